//! Entra tokens of Teams users, as the emulator takes them.
//!
//! A test makes one by itself: three parts joined by dots, the middle one base64url (padded or not)
//! of a JSON object with `appid` (or `azp`), `oid` and `exp` (seconds). The first part and the
//! signature are not looked at, so `base64url({"alg":"none"}) . base64url(claims) . x` will do.

use base64::{
    Engine,
    prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use serde::Deserialize;

/// What the emulator reads of an Entra token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntraToken {
    /// The application that it was issued to.
    pub(super) app_id: String,
    /// The user's object id.
    pub(super) user_id: String,
    /// When it ends.
    pub(super) expires_at: Timestamp,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(alias = "azp")]
    appid: String,
    oid: String,
    exp: i64,
}

/// Reads a token; the error says why it is not a valid one.
pub(super) fn read(token: &str, now: Timestamp) -> Result<EntraToken, String> {
    let parts: Vec<&str> = token.split('.').collect();
    let [_, payload, _] = parts[..] else {
        return Err("the Entra token does not have three parts joined by dots".to_owned());
    };
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(payload)
        .or_else(|_| BASE64_URL_SAFE.decode(payload))
        .map_err(|_| "the Entra token's middle part is not base64url".to_owned())?;
    let claims: Claims = serde_json::from_slice(&bytes).map_err(|error| {
        // The text of the error could quote a claim; its kind and place say enough.
        format!(
            "the Entra token's claims need appid, oid and exp (JSON {:?} error at column {})",
            error.classify(),
            error.column()
        )
    })?;
    let expires_at = Timestamp::from_second(claims.exp)
        .map_err(|_| "the Entra token's exp is not a time".to_owned())?;
    if expires_at <= now {
        return Err(format!("the Entra token expired at {expires_at}"));
    }
    Ok(EntraToken {
        app_id: claims.appid,
        user_id: claims.oid,
        expires_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn it_needs_three_claims_and_a_future() {
        let now = Timestamp::from_second(1000).unwrap();
        let good = read(&token(r#"{"appid":"a","oid":"o","exp":1001}"#), now).unwrap();
        assert_eq!((good.app_id.as_str(), good.user_id.as_str()), ("a", "o"));
        for (bad, why) in [
            (token(r#"{"appid":"a","oid":"o","exp":1000}"#), "expired"),
            (token(r#"{"appid":"a","exp":1001}"#), "need appid, oid"),
            (String::new(), "three parts"),
            ("a.?.c".to_owned(), "base64url"),
        ] {
            let error = read(&bad, now).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
