//! What an answer means. Pure: a reply goes in, a value or a [`Cause`] comes out.

use http::{HeaderMap, StatusCode, header::DATE};
use jiff::Timestamp;
use zeroize::Zeroize;

use super::{Cause, Rejection, wire};
use crate::{
    model::{IdentityId, Operation, Secret},
    transport::{Reply, http_date, retry_after},
};

/// Longest text of the service that is passed on, in characters.
const LONGEST_TEXT: usize = 300;

/// A token fresh from the service.
#[derive(Debug, Clone, PartialEq)]
pub struct Issued {
    /// The text that apps present.
    pub secret: Secret,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A new identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// What ACS calls it.
    pub id: IdentityId,
    /// Its first token, where one was asked for and could be read.
    pub token: Option<Issued>,
}

/// What one answer says.
#[derive(Debug)]
pub(super) struct Heard<T> {
    pub(super) result: Result<T, Cause>,
    /// The answer's own `Date`.
    pub(super) date: Option<Timestamp>,
    /// What to quote to support.
    pub(super) request_id: Option<String>,
}

impl<T> Heard<T> {
    /// `ok`, or the class of the failure.
    pub(super) fn outcome(&self) -> &'static str {
        match &self.result {
            Ok(_) => "ok",
            Err(cause) => cause.class().as_str(),
        }
    }

    /// Whether only the resource itself, having accepted our signature, can have answered so.
    pub(super) fn is_authenticated(&self) -> bool {
        match &self.result {
            Ok(_) => true,
            Err(Cause::Rejected(rejection)) => rejection.proves_key(),
            Err(_) => false,
        }
    }
}

/// The status of success and how to read what comes with it.
pub(super) struct Wanted<T> {
    pub(super) status: StatusCode,
    pub(super) read: fn(&[u8]) -> Result<T, String>,
}

/// Reads an answer to `operation` that came at `now`, and wipes its body.
pub(super) fn read<T>(
    reply: Reply,
    operation: Operation,
    wanted: &Wanted<T>,
    now: Timestamp,
) -> Heard<T> {
    let date = header(&reply.headers, DATE.as_str()).and_then(http_date);
    let request_id = ["MS-CV", "x-ms-client-request-id"]
        .into_iter()
        .find_map(|name| header(&reply.headers, name))
        .map(clean);
    let result = if reply.status == wanted.status {
        (wanted.read)(&reply.body).map_err(|reason| Cause::Unreadable {
            status: reply.status.as_u16(),
            reason,
            retry_after: None,
        })
    } else {
        Err(refusal(&reply, operation, date.unwrap_or(now)))
    };
    wipe(reply);
    Heard {
        result,
        date,
        request_id,
    }
}

/// Success of creating an identity alone.
pub(super) fn created(body: &[u8]) -> Result<Created, String> {
    let read: wire::CreateResponse = json(body)?;
    Ok(Created {
        id: identity_id(&read.identity)?,
        token: None,
    })
}

/// Success of creating an identity with a token.
pub(super) fn created_with_token(body: &[u8]) -> Result<Created, String> {
    let read: wire::CreateResponse = json(body)?;
    let id = identity_id(&read.identity)?;
    // Whatever is wrong with the token, the identity is there: its id is not thrown away.
    let token = read
        .access_token
        .ok_or_else(|| "no token came with it".to_owned())
        .and_then(issue);
    if let Err(reason) = &token {
        tracing::warn!(%id, "an identity was created, but {reason}");
    }
    Ok(Created {
        id,
        token: token.ok(),
    })
}

/// Success of issuing or exchanging.
pub(super) fn issued(body: &[u8]) -> Result<Issued, String> {
    issue(json(body)?)
}

/// Success without content.
#[expect(
    clippy::unnecessary_wraps,
    reason = "one shape for the readers of all operations"
)]
pub(super) fn nothing(_: &[u8]) -> Result<(), String> {
    Ok(())
}

fn issue(token: wire::AccessToken) -> Result<Issued, String> {
    let text = token.token.expose();
    if text.is_empty() {
        return Err("the token is empty".to_owned());
    }
    // Every format that a token is written in, every header and every shell takes these and no others.
    if let Some(at) = text.bytes().position(|byte| !byte.is_ascii_graphic()) {
        return Err(format!("byte {at} of the token is no visible ASCII"));
    }
    Ok(Issued {
        expires_at: token
            .expires_on
            .parse()
            .map_err(|_| "expiresOn is not a time".to_owned())?,
        secret: token.token,
    })
}

fn identity_id(identity: &wire::Identity) -> Result<IdentityId, String> {
    let valid = identity.id.parse();
    valid.map_err(|_| "identity.id is not an identity's id".to_owned())
}

/// The parser's own words may repeat what it read, so only the place is told.
fn json<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "its JSON is cut short",
            serde_json::error::Category::Data => "its JSON has another shape",
            _ => "it is not JSON",
        };
        format!("{what}, at byte {} of {}", error.column(), body.len())
    })
}

fn refusal(reply: &Reply, operation: Operation, now: Timestamp) -> Cause {
    let status = reply.status.as_u16();
    let retry_after = retry_after(&reply.headers, now);
    let unreadable = |reason| Cause::Unreadable {
        status,
        reason,
        retry_after,
    };
    if reply.status.is_success() {
        return unreadable("another kind of success was expected".to_owned());
    }
    match json::<wire::ErrorResponse>(&reply.body) {
        Ok(wire::ErrorResponse { error }) => Cause::Rejected(Box::new(Rejection {
            status,
            code: clean(&error.code),
            message: clean(&error.message),
            target: error.target.as_deref().map(clean),
            retry_after,
            about_identity: matches!(
                operation,
                Operation::Issue | Operation::Revoke | Operation::Delete
            ),
        })),
        Err(reason) => unreadable(reason),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The service's text, on one line and not too long. Should something on the way have echoed a token
/// (every JWT begins with `eyJ`), it goes no further.
fn clean(text: &str) -> String {
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .map(|word| if word.contains("eyJ") { "***" } else { word })
        .collect();
    words.join(" ").chars().take(LONGEST_TEXT).collect()
}

/// Nobody else holds the body any more, so it can be wiped; it may hold a token.
fn wipe(reply: Reply) {
    if let Ok(mut body) = reply.body.try_into_mut() {
        body.as_mut().zeroize();
    }
}

#[cfg(test)]
mod tests;
