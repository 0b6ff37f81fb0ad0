//! What each operation puts on the wire: method, target, body.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT},
};
use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{AccessKey, Endpoint, hmac, wire};
use crate::model::{IdentityId, Operation, RESERVED, Scope, Secret, percent_encoded};

const OURS: &str = concat!("renewd/", env!("CARGO_PKG_VERSION"));

/// One operation, before it is signed.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) operation: Operation,
    pub(super) identity: Option<&'a IdentityId>,
    method: Method,
    path: String,
    body: Bytes,
}

impl<'a> Call<'a> {
    pub(super) fn create(token: Option<(&[Scope], Duration)>) -> Self {
        let (operation, body) = match token {
            None => (Operation::Create, Bytes::new()),
            Some((scopes, lifetime)) => {
                let wanted = wire::CreateRequest {
                    create_token_with_scopes: Some(words(scopes)),
                    expires_in_minutes: Some(minutes(lifetime)),
                };
                (Operation::CreateWithToken, json(&wanted, 0))
            }
        };
        Self {
            operation,
            identity: None,
            method: Method::POST,
            path: "/identities".to_owned(),
            body,
        }
    }

    pub(super) fn issue(id: &'a IdentityId, scopes: &[Scope], lifetime: Duration) -> Self {
        let wanted = wire::IssueRequest {
            scopes: Some(words(scopes)),
            expires_in_minutes: Some(minutes(lifetime)),
        };
        Self {
            body: json(&wanted, 0),
            ..Self::on(id, Operation::Issue, "/:issueAccessToken")
        }
    }

    pub(super) fn revoke(id: &'a IdentityId) -> Self {
        Self::on(id, Operation::Revoke, "/:revokeAccessTokens")
    }

    pub(super) fn delete(id: &'a IdentityId) -> Self {
        Self {
            method: Method::DELETE,
            ..Self::on(id, Operation::Delete, "")
        }
    }

    pub(super) fn exchange(token: &Secret, app_id: &str, user_id: &str) -> Self {
        let wanted = wire::ExchangeRequest {
            token: Some(token.clone()),
            app_id: Some(app_id.to_owned()),
            user_id: Some(user_id.to_owned()),
        };
        Self {
            operation: Operation::Exchange,
            identity: None,
            method: Method::POST,
            path: "/teamsUser/:exchangeAccessToken".to_owned(),
            body: json(&wanted, token.expose().len()),
        }
    }

    fn on(id: &'a IdentityId, operation: Operation, verb: &str) -> Self {
        Self {
            operation,
            identity: Some(id),
            method: Method::POST,
            path: format!(
                "/identities/{}{verb}",
                percent_encoded(id.as_str(), RESERVED)
            ),
            body: Bytes::new(),
        }
    }

    /// The signed request.
    pub(super) fn sign(&self, with: &Signing<'_>) -> Result<Request<Bytes>, http::Error> {
        let target = format!("{}?api-version={}", self.path, with.api_version);
        let date = hmac::http_date(with.at);
        let content_hash = hmac::content_hash(&self.body);
        let signable = hmac::Signable {
            method: &self.method,
            target: &target,
            host: with.endpoint.authority(),
            date: &date,
            content_hash: &content_hash,
        };
        let mut authorization = HeaderValue::try_from(signable.authorization(with.key))?;
        authorization.set_sensitive(true);
        let mut request = Request::builder()
            .method(&self.method)
            .uri(with.endpoint.url(&target))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, OURS)
            .header("x-ms-client-request-id", with.request_id)
            .header("x-ms-return-client-request-id", "true")
            .header("x-ms-date", &date)
            .header("x-ms-content-sha256", &content_hash)
            .header(AUTHORIZATION, authorization);
        if self.body.is_empty() {
            // Said openly, as the SDKs do: some servers refuse a POST that says nothing of length.
            request = request.header(CONTENT_LENGTH, 0);
        }
        if !self.body.is_empty() || self.operation == Operation::Create {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(self.body.clone())
    }
}

/// What a request is signed with.
#[derive(Debug)]
pub(super) struct Signing<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) api_version: &'a str,
    pub(super) key: &'a AccessKey,
    pub(super) at: Timestamp,
    pub(super) request_id: &'a str,
}

fn words(scopes: &[Scope]) -> Vec<String> {
    scopes.iter().map(Scope::to_string).collect()
}

/// Whole minutes, rounded up.
fn minutes(lifetime: Duration) -> i64 {
    i64::try_from(lifetime.as_secs().div_ceil(60)).unwrap_or(i64::MAX)
}

/// A body that is wiped when the last who sends it is done with it. With room for the secret in it
/// up front, no copy is left behind by growing.
fn json(value: &impl Serialize, secret: usize) -> Bytes {
    let mut bytes = Zeroizing::new(Vec::with_capacity(256 + 2 * secret));
    #[expect(
        clippy::expect_used,
        reason = "plain strings and numbers always serialise into memory"
    )]
    serde_json::to_writer(&mut *bytes, value).expect("a request body serialises");
    Bytes::from_owner(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_encoded_segment() {
        assert_eq!(percent_encoded("8:acs:1-2_3", RESERVED), "8%3Aacs%3A1-2_3");
        assert_eq!(
            percent_encoded("8:a/../b?c#d%", RESERVED),
            "8%3Aa%2F..%2Fb%3Fc%23d%25"
        );
    }

    #[test]
    fn lifetimes_are_whole_minutes() {
        assert_eq!(minutes(Duration::from_secs(3600)), 60);
        assert_eq!(minutes(Duration::from_secs(3601)), 61);
    }
}
