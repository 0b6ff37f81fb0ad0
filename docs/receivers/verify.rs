//! Verifies events from renewd: signature, age, and that no older version comes after a newer one.
//! Needs the crates base64, hmac, serde_json and sha2. Keep `versions` with the tokens, so that it
//! outlives a restart.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// Seconds that the sender's clock may differ from ours.
const TOLERANCE: u64 = 300;

/// Answer 401: this did not come from renewd, or not just now. It says why.
#[derive(Debug)]
pub struct Refused(pub &'static str);

/// The event, or nothing for one that is old news: answer 2xx to both, act on the first alone.
/// `secrets` are `whsec_` texts, `header` gives a header by its name, `body` is the raw bytes.
pub fn verify<'a>(
    secrets: &[&str],
    header: impl Fn(&str) -> &'a str,
    body: &[u8],
    versions: &mut HashMap<String, u64>,
    now: u64,
) -> Result<Option<Value>, Refused> {
    let (id, sent) = (header("webhook-id"), header("webhook-timestamp"));
    let seconds: u64 = sent.parse().map_err(|_| Refused("no timestamp"))?;
    if now.abs_diff(seconds) > TOLERANCE {
        return Err(Refused("too old, or from the future"));
    }
    let fits = |given: &str, secret: &str| {
        let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_")?).ok();
        let key = key.filter(|key| key.len() >= 24)?;
        let given = BASE64_STANDARD.decode(given.strip_prefix("v1,")?).ok()?;
        let mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        let mac = mac.chain_update(format!("{id}.{sent}.")).chain_update(body);
        mac.verify_slice(&given).ok()
    };
    let mut given = header("webhook-signature").split(' ');
    if !given.any(|one| secrets.iter().any(|secret| fits(one, secret).is_some())) {
        return Err(Refused("no signature fits"));
    }
    let event: Value = serde_json::from_slice(body).map_err(|_| Refused("no JSON"))?;
    if event["id"] != id {
        return Err(Refused("signed under another id"));
    }
    // A notice has no version and is never superseded.
    let Some(version) = event["data"]["version"].as_u64() else {
        return Ok(Some(event));
    };
    let newest = versions.entry(event["subject"].to_string()).or_default();
    if version <= *newest {
        return Ok(None);
    }
    *newest = version;
    Ok(Some(event))
}
