//! What an answer to a token request means. Pure: a reply goes in, a bearer with its life or an error comes out.

use std::time::Duration;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::{HeaderMap, header::WWW_AUTHENTICATE};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use crate::{
    model::Secret,
    transport::{Reply, tamed, wipe},
};

/// No bearer is used for longer, whatever it says of itself.
const LONGEST_LIFE: Duration = Duration::from_hours(48);

/// A bearer that ends sooner may have ended when it arrives.
pub(super) const EDGE: Duration = Duration::from_secs(1);

/// A bearer fresh from whoever gives it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grant {
    pub(super) secret: Secret,
    /// It lives so long from the request on.
    pub(super) lives: Duration,
    /// It should be renewed after so long, where that was said.
    pub(super) refresh_in: Option<Duration>,
    /// The client id that it is for, where that was said.
    pub(super) client: Option<String>,
}

/// What a refusal says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TokenRefusal {
    /// Such as `invalid_client`; empty where it is in no known form.
    pub(super) error: String,
    /// Whatever else it says, for people to read.
    pub(super) description: String,
}

impl TokenRefusal {
    /// The same in a sentence's part, with its status and whose it is.
    pub(super) fn told(&self, status: u16, peer: &str) -> String {
        match (self.error.as_str(), self.description.as_str()) {
            ("", _) => format!("{status} from {peer}, in no form that it answers in"),
            (error, "") => format!("{status} {error} from {peer}"),
            (error, description) => format!("{status} {error} from {peer}: {description}"),
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(deserialize_with = "secret")]
    access_token: Secret,
    token_type: Option<String>,
    expires_in: Option<Number>,
    expires_on: Option<Number>,
    refresh_in: Option<Number>,
    client_id: Option<String>,
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

/// Metadata services write numbers as texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(f64),
    Text(String),
}

impl Number {
    fn seconds(&self) -> Option<f64> {
        let number = match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
        };
        number.filter(|number| number.is_finite() && *number > 0.0)
    }

    fn duration(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.seconds()?).ok()
    }
}

/// Reads an answer of success that came at `now`, and wipes it; or says what is wrong with it.
pub(super) fn granted(reply: Reply, now: Timestamp) -> Result<Grant, String> {
    let read = serde_json::from_slice::<TokenAnswer>(&reply.body);
    // The parser's own words may repeat what it read.
    let read = read.map_err(|_| "it is not the JSON of a token".to_owned());
    wipe(reply);
    let read = read?;
    if let Some(other) = read
        .token_type
        .filter(|kind| !kind.eq_ignore_ascii_case("bearer"))
    {
        return Err(format!("its token is no bearer but {}", tamed(&other)));
    }
    let text = read.access_token.expose();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its token is empty or not visible ASCII".to_owned());
    }
    let on = || {
        let ends = read.expires_on.as_ref()?.seconds()?;
        Duration::try_from_secs_f64(ends - now.as_duration().as_secs_f64()).ok()
    };
    let lives = read
        .expires_in
        .as_ref()
        .and_then(Number::duration)
        .or_else(on);
    let lives = lives.ok_or("it does not say how long its token lives")?;
    if lives <= EDGE {
        return Err("its token ends as soon as it comes".to_owned());
    }
    Ok(Grant {
        client: read.client_id.or_else(|| claim(text)),
        refresh_in: read.refresh_in.as_ref().and_then(Number::duration),
        lives: lives.min(LONGEST_LIFE),
        secret: read.access_token,
    })
}

/// The application that a JWT names, if it is one.
fn claim(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        appid: Option<String>,
        azp: Option<String>,
    }
    let payload = token.split('.').nth(1)?;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('='));
    let claims: Claims = serde_json::from_slice(&payload.ok()?).ok()?;
    claims.appid.or(claims.azp).map(|id| tamed(&id))
}

/// What a refusal says. `secret`, should somebody echo it, goes no further.
pub(super) fn refusal(reply: &Reply, secret: Option<&Secret>) -> TokenRefusal {
    #[derive(Deserialize)]
    struct Said {
        error: String,
        #[serde(default)]
        error_description: String,
    }
    let Ok(said) = serde_json::from_slice::<Said>(&reply.body) else {
        return TokenRefusal::default();
    };
    let hidden = |text: &str| match secret.map(Secret::expose).filter(|one| !one.is_empty()) {
        Some(secret) => text.replace(secret, "***"),
        None => text.to_owned(),
    };
    // What follows is another text each time, for the support of Entra ID.
    let description = said.error_description.split("Trace ID:").next();
    TokenRefusal {
        error: tamed(&hidden(&said.error)),
        description: tamed(&hidden(description.unwrap_or_default())),
    }
}

/// The claims that a resource asks another bearer for, as JSON: a challenge of Continuous Access Evaluation.
pub fn claims_challenge(headers: &HeaderMap) -> Option<String> {
    let challenges = headers.get_all(WWW_AUTHENTICATE);
    let texts = challenges.iter().filter_map(|value| value.to_str().ok());
    let mut asked = texts.filter(|text| parameter(text, "error") == Some("insufficient_claims"));
    let claims = parameter(asked.next()?, "claims")?;
    let bare = claims.trim_end_matches('=');
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(bare)
        .or_else(|_| BASE64_STANDARD.decode(claims));
    let text = String::from_utf8(bytes.ok()?).ok()?;
    let json = serde_json::from_str::<serde_json::Value>(&text).ok()?;
    json.is_object().then_some(text)
}

/// A quoted parameter of a challenge.
pub(super) fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    challenge.match_indices(name).find_map(|(at, _)| {
        let before = challenge[..at].chars().next_back();
        let is_whole = before.is_none_or(|before| before == ' ' || before == ',');
        let value = challenge[at + name.len()..]
            .trim_start()
            .strip_prefix('=')?;
        let value = value.trim_start();
        let value = match value.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next()?,
            None => value.split([',', ' ']).next()?,
        };
        is_whole.then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;

    const NOW: &str = "2026-11-22T12:00:00Z";

    fn reply(body: &str) -> Reply {
        Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn read(body: &str) -> Result<Grant, String> {
        granted(reply(body), NOW.parse().unwrap())
    }

    #[test]
    fn numbers_are_read_as_numbers_and_as_texts() {
        let on = NOW.parse::<Timestamp>().unwrap().as_second() + 3600;
        for said in [
            r#""expires_in":3600"#.to_owned(),
            r#""expires_in":"3600","ext_expires_in":"3600""#.to_owned(),
            format!(r#""expires_on":"{on}""#),
            format!(r#""expires_in":null,"expires_on":{on}.0"#),
            format!(r#""expires_in":"3600","expires_on":"{}""#, on + 9000),
        ] {
            let body = format!(r#"{{"token_type":"Bearer","access_token":"a.b.c",{said}}}"#);
            let granted = read(&body).unwrap();
            assert_eq!(granted.lives, Duration::from_secs(3600), "{said}");
            assert_eq!(
                (granted.refresh_in, granted.secret.expose()),
                (None, "a.b.c")
            );
        }
        let body =
            r#"{"access_token":"a","expires_in":86400,"refresh_in":"43200","client_id":"me"}"#;
        let granted = read(body).unwrap();
        assert_eq!(granted.refresh_in, Some(Duration::from_secs(43200)));
        assert_eq!(granted.client.as_deref(), Some("me"));
    }

    #[test]
    fn the_client_is_read_from_the_token_where_nothing_else_names_it() {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"appid":"11111111","aud":"x"}"#);
        let body = format!(r#"{{"access_token":"e.{payload}.s","expires_in":60}}"#);
        assert_eq!(read(&body).unwrap().client.as_deref(), Some("11111111"));
    }

    #[test]
    fn a_bad_success_is_none_and_its_content_stays_unseen() {
        for body in [
            "",
            "canary",
            r#"{"access_token":"canary"}"#,
            r#"{"access_token":"canary","expires_in":"soon canary"}"#,
            r#"{"access_token":"canary","expires_in":0}"#,
            r#"{"access_token":"canary","expires_in":-1}"#,
            r#"{"access_token":"canary","expires_on":1}"#,
            r#"{"access_token":"","expires_in":60}"#,
            "{\"access_token\":\"canary\\n\",\"expires_in\":60}",
            r#"{"access_token":["canary"],"expires_in":60}"#,
            r#"{"access_token":"canary","token_type":"pop","expires_in":60}"#,
            r#"{"access_token":"canary","expires_in":60"#,
        ] {
            let why = read(body).unwrap_err();
            assert!(!why.contains("canary"), "{why}");
        }
    }

    #[test]
    fn a_life_of_centuries_is_cut() {
        for said in ["1e300", "31536000000"] {
            let body = format!(r#"{{"access_token":"a","expires_in":{said}}}"#);
            let lives = read(&body).map(|granted| granted.lives);
            assert!(lives.is_err() || lives == Ok(LONGEST_LIFE), "{lives:?}");
        }
    }

    #[test]
    fn what_a_refusal_says_is_tamed_and_holds_no_secret() {
        let secret = Secret::new("can~ary".to_owned());
        let body = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid\r\nsecret can~ary eyJh.b.c Trace ID: 1"}"#;
        let said = refusal(&reply(body), Some(&secret));
        assert_eq!(said.error, "invalid_client");
        assert_eq!(said.description, "AADSTS7000215: Invalid secret *** ***");
        for body in ["<html>", r#"{"error":{"code":"x"}}"#, ""] {
            assert_eq!(refusal(&reply(body), None), TokenRefusal::default());
        }
    }

    #[test]
    fn a_challenge_is_read_in_every_spelling() {
        let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1"}}}"#;
        let plain = BASE64_STANDARD.encode(claims);
        let bare = BASE64_URL_SAFE_NO_PAD.encode(claims);
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.append(WWW_AUTHENTICATE, "HMAC-SHA256".parse().unwrap());
            headers.append(WWW_AUTHENTICATE, text.parse().unwrap());
            claims_challenge(&headers)
        };
        for text in [
            format!(r#"Bearer realm="", error="insufficient_claims", claims="{plain}""#),
            format!(r#"Bearer error="insufficient_claims",claims="{bare}""#),
            format!(r#"Bearer claims={bare}, error=insufficient_claims"#),
        ] {
            assert_eq!(read(&text).as_deref(), Some(claims), "{text}");
        }
        for text in [
            format!(r#"Bearer error="invalid_token", claims="{plain}""#),
            r#"Bearer error="insufficient_claims""#.to_owned(),
            r#"Bearer error="insufficient_claims", claims="?""#.to_owned(),
            r#"Bearer error="insufficient_claims", claims="bm90IGpzb24=""#.to_owned(),
        ] {
            assert_eq!(read(&text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(body in ".{0,100}", challenge in "[ -~]{0,60}") {
            read(&body).ok();
            refusal(&reply(&body), None);
            let mut headers = HeaderMap::new();
            headers.insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
            claims_challenge(&headers);
        }
    }
}
