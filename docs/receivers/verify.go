// Package receiver verifies events from renewd: signature, age, and that no older version comes
// after a newer one. Standard library only.
package receiver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Tolerance is how far the sender's clock may differ from ours.
const Tolerance = 300 * time.Second

// ErrRefused asks for 401: this did not come from renewd, or not just now.
var ErrRefused = errors.New("not a fresh event of renewd")

// Event is what renewd posts.
type Event struct {
	ID, Type, Source, Subject string
	Data                      json.RawMessage
}

// Verifier knows the secrets and the newest versions; keep those with the tokens.
type Verifier struct {
	Secrets  []string // whsec_…
	mu       sync.Mutex
	versions map[string]uint64
}

// Verify gives the event, or nil for one that is old news: answer 2xx to both, act on the first alone.
func (v *Verifier) Verify(header http.Header, body []byte, now time.Time) (*Event, error) {
	id, sent := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(sent, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > Tolerance || !v.signed(header, id+"."+sent+".", body) {
		return nil, ErrRefused
	}
	var event Event
	var data struct{ Version uint64 }
	if json.Unmarshal(body, &event) != nil || json.Unmarshal(event.Data, &data) != nil || event.ID != id {
		return nil, ErrRefused
	}
	if data.Version == 0 { // a notice: it has no version and is never superseded
		return &event, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if data.Version <= v.versions[event.Subject] {
		return nil, nil
	}
	if v.versions == nil {
		v.versions = map[string]uint64{}
	}
	v.versions[event.Subject] = data.Version
	return &event, nil
}

func (v *Verifier) signed(header http.Header, prefix string, body []byte) bool {
	for _, secret := range v.Secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil || len(key) < 24 {
			continue
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(prefix))
		mac.Write(body)
		good := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		for _, given := range strings.Split(header.Get("webhook-signature"), " ") {
			if hmac.Equal([]byte(given), []byte(good)) {
				return true
			}
		}
	}
	return false
}
