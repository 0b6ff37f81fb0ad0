//! Documents to deliver.

use renewd::{
    model::{Kind, Reader, Scope, Secret, State, TokenDocument, Version},
    sinks::SinkDelivery,
};

/// An active identity's document; the token's length changes with the version.
pub(crate) fn document(name: &str, version: u64) -> TokenDocument {
    TokenDocument {
        name: name.parse().unwrap(),
        resource: "contoso".parse().unwrap(),
        id: Some("8:acs:a_b".parse().unwrap()),
        state: State::Active,
        token: Some(Secret::new(token(version))),
        scopes: vec![Scope::Chat],
        issued_at: Some("2026-11-22T17:00:00Z".parse().unwrap()),
        expires_at: Some("2026-11-23T17:00:00Z".parse().unwrap()),
        renews_at: Some("2026-11-23T05:00:00Z".parse().unwrap()),
        version: Version(version),
        kind: Kind::Renewed,
    }
}

/// The token of [`document`].
pub(crate) fn token(version: u64) -> String {
    format!("ey{version}.").repeat(40 + usize::try_from(version % 50).unwrap())
}

/// The document of an identity whose token is withheld.
pub(crate) fn held(name: &str, version: u64) -> TokenDocument {
    TokenDocument {
        state: State::Held,
        token: None,
        issued_at: None,
        expires_at: None,
        renews_at: None,
        kind: Kind::Held,
        ..document(name, version)
    }
}

/// The document on its way to these readers.
pub(crate) fn delivery(document: TokenDocument, readers: &[&str]) -> SinkDelivery {
    SinkDelivery {
        document: document.into(),
        readers: readers
            .iter()
            .map(|text| Reader::from((*text).to_owned()))
            .collect(),
    }
}
