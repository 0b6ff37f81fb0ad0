"""Verifies events from renewd: signature, age, and that no older version comes after a newer one.

Standard library only. Keep `versions` with the tokens, so that it outlives a restart.
"""
import base64, hashlib, hmac, json, time

TOLERANCE = 300  # seconds that the sender's clock may differ from ours


class Refused(Exception):
    """Answer 401: this did not come from renewd, or not just now."""


def verify(secrets, headers, body, versions, now=None):
    """The event, or None for one that is old news: answer 2xx to both, act on the first alone.

    `secrets` are whsec_ texts, `headers` has a case-blind get(), `body` is the raw bytes.
    """
    id, sent = headers.get("webhook-id") or "", headers.get("webhook-timestamp") or ""
    if not sent.isdecimal() or abs((now or time.time()) - int(sent)) > TOLERANCE:
        raise Refused("too old, or from the future")
    signed = f"{id}.{sent}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    if any(len(key) < 24 for key in keys):
        raise ValueError("a secret is whsec_ and 24 to 64 bytes in base64")
    good = [b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in keys]
    given = (headers.get("webhook-signature") or "").encode().split(b" ")
    if not any(hmac.compare_digest(a, b) for a in good for b in given):
        raise Refused("no signature fits")
    event = json.loads(body)
    if event["id"] != id:
        raise Refused("signed under another id")
    subject, version = event.get("subject"), event["data"].get("version")
    if version is None:
        return event  # a notice: it has no version and is never superseded
    if version <= versions.get(subject, 0):
        return None
    versions[subject] = version
    return event
