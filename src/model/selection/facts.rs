//! What a selection looks at.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;

use crate::model::{Origin, Record, Scope, State};

/// What a selection may ask of an identity.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Our name of it.
    pub name: &'a str,
    /// What ACS calls it, once known.
    pub id: Option<&'a str>,
    /// The resource it belongs to.
    pub resource: &'a str,
    /// What its tokens may be used for.
    pub scopes: &'a [Scope],
    /// Where it stands now; `late` included.
    pub state: State,
    /// Who declares it, spelled as in listings.
    pub origin: Cow<'a, str>,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// When its current token was issued.
    pub issued: Option<Timestamp>,
    /// When its current token ends.
    pub expires: Option<Timestamp>,
    /// When its tokens were last revoked.
    pub revoked: Option<Timestamp>,
}

impl<'a> Facts<'a> {
    /// The facts of an identity at an instant.
    pub fn of(record: &'a Record, now: Timestamp) -> Self {
        Self {
            name: record.spec.name.as_str(),
            id: record.id.as_ref().map(AsRef::as_ref),
            resource: record.spec.resource.as_str(),
            scopes: &record.spec.scopes,
            state: record.state_at(now),
            origin: match &record.spec.origin {
                Origin::File => "file".into(),
                Origin::Cli => "cli".into(),
                source @ Origin::Source(_) => source.to_string().into(),
            },
            labels: &record.spec.labels,
            issued: record.token.as_ref().map(|token| token.issued_at),
            expires: record.token.as_ref().map(|token| token.expires_at),
            revoked: record.revoked_at,
        }
    }
}
