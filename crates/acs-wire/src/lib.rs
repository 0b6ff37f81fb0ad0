//! What crosses the wire of the ACS Identity API, as both sides write and read it: operations, JSON shapes,
//! and secrets, which are redacted in `Debug` and wiped when dropped.
//!
//! Source: ACS REST 2023-10-01 and recordings of the service. The service takes `null` for every
//! optional member, and so do these shapes; they never write one.

#![warn(missing_docs)]

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// An operation of the ACS Identity API; limits and health are kept per (resource, operation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Issue a token for an identity.
    Issue,
    /// Create an identity without a token.
    Create,
    /// Create an identity together with its first token.
    CreateWithToken,
    /// Revoke all tokens of an identity.
    Revoke,
    /// Delete an identity; its tokens die with it.
    Delete,
    /// Exchange a Teams user's Entra token.
    Exchange,
}

impl Operation {
    /// The word in metrics, limits and snapshots.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::Create => "create",
            Self::CreateWithToken => "create_with_token",
            Self::Revoke => "revoke",
            Self::Delete => "delete",
            Self::Exchange => "exchange",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Body of `POST /identities`; the service also takes an empty body for an empty object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateRequest {
    /// Asks for a token along with the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_token_with_scopes: Option<Vec<String>>,
    /// The life asked for, 60 to 1440; the service's default is 1440.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_minutes: Option<i64>,
}

/// Body of `POST /identities/{id}/:issueAccessToken`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssueRequest {
    /// Required by the service, which says so itself when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// As in [`CreateRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_minutes: Option<i64>,
}

/// Body of `POST /teamsUser/:exchangeAccessToken`. All three are required by the service, which says
/// so itself when one is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeRequest {
    /// The Teams user's Entra token.
    #[serde(
        default,
        with = "optional_secret_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub token: Option<Secret>,
    /// The Entra application that the token was issued to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// The Entra object id of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// An identity as answers name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its raw id, `8:acs:…`.
    pub id: String,
}

/// A token; the answer to issuing and exchanging (200).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessToken {
    /// The text that apps present.
    #[serde(with = "secret_text")]
    pub token: Secret,
    /// When it ends: up to seven fractional digits and `+00:00`, never `Z`.
    pub expires_on: String,
}

/// The answer to creating (201).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateResponse {
    /// The identity that was made.
    pub identity: Identity,
    /// Its first token, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<AccessToken>,
}

/// The body of every error of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorResponse {
    /// What went wrong, as the service says it.
    pub error: ErrorBody,
}

/// What the service says of an error; `details` and `innererror` add nothing that is acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Such as `ValidationError` or `Denied`.
    pub code: String,
    /// A sentence for a person.
    pub message: String,
    /// The member that is wrong; left out where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A secret as a JSON string, moved straight into its wrapper.
mod secret_text {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    use super::Secret;

    pub(super) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::new(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Secret, E> {
                Ok(Secret::new(text))
            }
        }

        from.deserialize_string(Text)
    }
}

/// As [`secret_text`], or nothing.
mod optional_secret_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Secret, secret_text};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Secret>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => secret_text::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Secret>, D::Error> {
        #[derive(Deserialize)]
        struct Present(#[serde(with = "secret_text")] Secret);

        Ok(Option::<Present>::deserialize(from)?.map(|present| present.0))
    }
}

/// A secret text. The only way to its content is [`Secret::expose`], so that a search for that
/// word finds every place that touches one.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes ownership of the text.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The text in the clear.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// A short, stable, one-way name of this secret: 12 hex digits of its SHA-256.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.expose().as_bytes());
        hex(&digest[..6])
    }
}

/// Bytes as hex digits in lower case.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    let digits = bytes.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.expose()
            .as_bytes()
            .ct_eq(other.expose().as_bytes())
            .into()
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_as_good_as_absent() {
        let create: CreateRequest =
            serde_json::from_str(r#"{"createTokenWithScopes": null, "expiresInMinutes": null}"#)
                .unwrap();
        assert_eq!(create, CreateRequest::default());
        let issue: IssueRequest =
            serde_json::from_str(r#"{"scopes": ["chat"], "expiresInMinutes": null}"#).unwrap();
        assert_eq!(issue.scopes.as_deref(), Some(&["chat".to_owned()][..]));
        let exchange: ExchangeRequest =
            serde_json::from_str(r#"{"token":null,"appId":null}"#).unwrap();
        assert_eq!(exchange, ExchangeRequest::default());
        let created: CreateResponse =
            serde_json::from_str(r#"{"identity":{"id":"8:acs:a_b"},"accessToken":null}"#).unwrap();
        assert_eq!(created.access_token, None);
        let error: ErrorResponse = serde_json::from_str(
            r#"{"error":{"code":"C","message":"M","target":null,"innererror":null}}"#,
        )
        .unwrap();
        assert_eq!(error.error.target, None);
    }

    #[test]
    fn what_is_written_has_the_services_names_and_no_null() {
        let issue = IssueRequest {
            scopes: Some(vec!["chat".into()]),
            expires_in_minutes: Some(60),
        };
        assert_eq!(
            serde_json::to_string(&issue).unwrap(),
            r#"{"scopes":["chat"],"expiresInMinutes":60}"#
        );
        assert_eq!(
            serde_json::to_string(&CreateRequest::default()).unwrap(),
            "{}"
        );
        let exchange = ExchangeRequest {
            token: Some(Secret::new("a.b.c".into())),
            app_id: Some("app".into()),
            user_id: Some("user".into()),
        };
        assert_eq!(
            serde_json::to_string(&exchange).unwrap(),
            r#"{"token":"a.b.c","appId":"app","userId":"user"}"#
        );
        assert!(!format!("{exchange:?}").contains("a.b.c"));
    }
}
