//! The token document: the same object in JSON files, webhook `data` and the socket API.

use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{IdentityId, Kind, Name, ResourceName, Scope, Secret, State, Version};

/// What a consumer should hold, at one version.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenDocument {
    /// Our name of the identity.
    pub name: Name,
    /// Its resource.
    pub resource: ResourceName,
    /// What ACS calls it.
    pub id: Option<IdentityId>,
    /// `active`, `held`, `gone` or `deleted`.
    pub state: State,
    /// The secret itself; `None` where it is withheld.
    pub token: Option<Secret>,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it was issued.
    pub issued_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it will be renewed.
    pub renews_at: Option<Timestamp>,
    /// The version.
    pub version: Version,
    /// What this version means; not part of the document, but of the event type around it.
    pub kind: Kind,
}

#[derive(Serialize)]
struct Wire<'a> {
    name: &'a Name,
    resource: &'a ResourceName,
    id: Option<&'a IdentityId>,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Option<&'a str>>,
    scopes: &'a [Scope],
    issued_at: Option<String>,
    expires_at: Option<String>,
    renews_at: Option<String>,
    version: Version,
}

impl TokenDocument {
    /// The document as JSON, with the token (or `"token":null` where it is withheld).
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        self.encode(Some(self.token.as_ref().map(Secret::expose)))
    }

    /// The document as JSON without a `token` member: `include = "reference"`.
    pub fn to_json_reference(&self) -> Zeroizing<Vec<u8>> {
        self.encode(None)
    }

    fn encode(&self, token: Option<Option<&str>>) -> Zeroizing<Vec<u8>> {
        let wire = Wire {
            name: &self.name,
            resource: &self.resource,
            id: self.id.as_ref(),
            state: self.state,
            token,
            scopes: &self.scopes,
            issued_at: self.issued_at.map(whole_seconds),
            expires_at: self.expires_at.map(whole_seconds),
            renews_at: self.renews_at.map(whole_seconds),
            version: self.version,
        };
        // Room for any token up front, so that growing the buffer leaves no copy of it behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(
            1024 + token.flatten().map_or(0, |t| 2 * t.len()),
        ));
        #[expect(
            clippy::expect_used,
            reason = "plain strings and numbers always serialise into memory"
        )]
        serde_json::to_writer(&mut *bytes, &wire).expect("a token document serialises");
        bytes
    }
}

/// RFC 3339 in UTC with whole seconds, rounded down: a consumer never believes a token to live
/// longer than it does.
pub fn whole_seconds(at: Timestamp) -> String {
    format!("{at:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_down() {
        let at: Timestamp = "2026-11-22T17:00:00.999Z".parse().unwrap();
        assert_eq!(whole_seconds(at), "2026-11-22T17:00:00Z");
    }
}
