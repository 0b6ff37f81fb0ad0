//! What `renewd sink test` hands over: a document that looks like any other and is marked as a test in
//! every field that a person or a program would look at. It never holds a real token.

use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Kind, Name, ResourceName, Secret, State, TokenDocument, Version};

/// What stands in place of the token.
const NO_TOKEN: &str = "renewd-test-this-is-not-a-token";
/// How long it claims to live.
const LIFE: Duration = Duration::from_hours(1);

/// A document of an identity that does not exist; its name is another one each microsecond, so that no
/// receiver holds it against an earlier test, and no identity is meant by accident.
pub(super) fn document(resource: &ResourceName, now: Timestamp) -> TokenDocument {
    TokenDocument {
        name: name(now),
        resource: resource.clone(),
        id: None,
        state: State::Active,
        token: Some(Secret::new(NO_TOKEN.to_owned())),
        scopes: Vec::new(),
        issued_at: Some(now),
        expires_at: Some(now + LIFE),
        renews_at: Some(now + LIFE / 2),
        version: Version(0).next(now),
        kind: Kind::Issued,
    }
}

fn name(now: Timestamp) -> Name {
    let name = format!("renewd-test-{:x}", now.as_microsecond().unsigned_abs());
    #[expect(
        clippy::expect_used,
        reason = "letters, digits and hyphens make a name"
    )]
    name.parse().expect("the name of a test is a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_says_so_wherever_one_looks() {
        let now: Timestamp = "2026-11-22T12:00:00.5Z".parse().unwrap();
        let document = document(&"contoso".parse().unwrap(), now);
        assert!(document.name.as_str().starts_with("renewd-test-"));
        assert_eq!(document.token.unwrap().expose(), NO_TOKEN);
        assert_eq!(document.version, Version(1_795_348_800));
        let later = now + Duration::from_micros(1);
        assert_ne!(name(now), name(later));
    }
}
