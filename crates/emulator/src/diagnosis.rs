//! Finds out what a client signed instead of what it sent.
//!
//! The service says only "Denied by the resource provider", for every mistake. Here each usual
//! mistake is tried in turn: whichever gives the signature at hand is the one that was made.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    access_keys::{AccessKeys, hmac_sha256},
    percent,
    signature::{Sent, content_hash, string_to_sign},
};

/// What was signed in place of what was sent, as one sentence.
pub(super) fn explain(
    sent: &Sent<'_>,
    names: &[&str],
    signature: &str,
    keys: &AccessKeys,
) -> String {
    let values: Vec<String> = names
        .iter()
        .map(|name| sent.value(name).unwrap_or_default().to_owned())
        .collect();
    let text = string_to_sign(sent.method.as_str(), sent.target, &values);
    if let Some(reason) = other_key(&text, signature, keys) {
        return reason;
    }
    for guess in guesses(sent, names, &values) {
        for key in keys.valid() {
            if matches(&hmac_sha256(key.bytes(), guess.text.as_bytes()), signature) {
                return guess.reason;
            }
        }
    }
    format!(
        "wrong key, or a mistake that is not known here: neither access key gives this signature for {text:?}"
    )
}

/// The same text under a key that is not valid, or in another encoding.
fn other_key(text: &str, signature: &str, keys: &AccessKeys) -> Option<String> {
    for key in keys.valid() {
        let slot = key.stamp.slot.as_str();
        let mac = hmac_sha256(key.bytes(), text.as_bytes());
        if hex(&mac).eq_ignore_ascii_case(signature) {
            return Some("the signature is in hexadecimal; it should be base64".to_owned());
        }
        if matches(
            &hmac_sha256(key.text().expose().as_bytes(), text.as_bytes()),
            signature,
        ) {
            return Some(format!(
                "wrong key: the {slot} key was used as text; decode it from base64 first"
            ));
        }
    }
    let retired = keys
        .retired()
        .find(|key| matches(&hmac_sha256(key.bytes(), text.as_bytes()), signature))?;
    Some(format!(
        "wrong key: signed with the former {} key, which was regenerated",
        retired.stamp.slot.as_str()
    ))
}

fn matches(mac: &[u8; 32], signature: &str) -> bool {
    BASE64_STANDARD.encode(mac) == signature
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One usual mistake: what would have been signed, and how to say so.
struct Guess {
    text: String,
    reason: String,
}

fn guesses(sent: &Sent<'_>, names: &[&str], values: &[String]) -> Vec<Guess> {
    let method = sent.method.as_str();
    let mut guesses: Vec<Guess> = targets(sent)
        .into_iter()
        .map(|target| Guess {
            text: string_to_sign(method, &target, values),
            reason: format!(
                "path signed differently: signed {target}, sent {}",
                sent.target
            ),
        })
        .collect();
    guesses.push(Guess {
        text: string_to_sign(&method.to_lowercase(), sent.target, values),
        reason: "the method was signed in lower case".to_owned(),
    });
    let mut replaced = |name: &str, what: &str, others: Vec<String>| {
        let Some(at) = names.iter().position(|n| n.eq_ignore_ascii_case(name)) else {
            return;
        };
        for other in others {
            let mut values = values.to_vec();
            let reason = format!(
                "{what} signed differently: signed {other}, sent {}",
                values[at]
            );
            values[at] = other;
            guesses.push(Guess {
                text: string_to_sign(method, sent.target, &values),
                reason,
            });
        }
    };
    replaced("host", "host", hosts(sent.host));
    replaced(
        "x-ms-content-sha256",
        "content hash",
        vec![content_hash(b""), String::new()],
    );
    let other_date = |name: &str| sent.value(name).map(str::to_owned).into_iter().collect();
    replaced("x-ms-date", "date", other_date("date"));
    replaced("date", "date", other_date("x-ms-date"));
    guesses
}

/// Ways in which the same target is written by clients that sign another one than they send.
fn targets(sent: &Sent<'_>) -> Vec<String> {
    let target = sent.target;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut found = vec![
        path.to_owned(),
        format!("{path}/?{query}"),
        format!("/{target}"),
        format!("https://{}{target}", sent.host),
        format!("http://{}{target}", sent.host),
        format!("{}?{query}", path.replace("%3A", ":").replace("%3a", ":")),
        format!("{}?{query}", encode_colons(path)),
        format!("{}?{query}", path.replace(':', "%3A")),
    ];
    found.extend(percent::decode(target));
    found.retain(|other| other != target);
    found
}

/// `8:acs:…` as `8%3Aacs%3A…`, the verb's own colon left.
fn encode_colons(path: &str) -> String {
    let segments: Vec<String> = path
        .split('/')
        .map(|segment| match segment.strip_prefix(':') {
            Some(verb) => format!(":{verb}"),
            None => segment.replace(':', "%3A"),
        })
        .collect();
    segments.join("/")
}

/// Names of the same place under which a request may have been signed.
fn hosts(host: &str) -> Vec<String> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    };
    let mut found = vec![format!("{host}/"), name.to_owned(), host.to_lowercase()];
    for name in [name, "localhost", "127.0.0.1", "[::1]"] {
        for port in [port, "443", "80"] {
            found.push(name.to_owned());
            found.push(format!("{name}:{port}"));
        }
    }
    for scheme in ["https", "http"] {
        found.push(format!("{scheme}://{host}"));
        found.push(format!("{scheme}://{host}/"));
    }
    found.retain(|other| other != host);
    found
}
