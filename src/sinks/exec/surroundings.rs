//! The environment that a program is given: little, known, and without a secret.

use std::collections::BTreeMap;

use crate::{
    config::ExecSinkSettings,
    model::{TokenDocument, whole_seconds},
};

/// Where programs are looked for that are named without their place.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything that a program finds in its environment; nothing of the daemon's own is passed on.
pub(super) fn environment(
    settings: &ExecSinkSettings,
    document: &TokenDocument,
) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> =
        [("PATH", PATH.to_owned()), ("LANG", "C.UTF-8".to_owned())]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
    environment.extend(settings.environment.clone());
    let facts = [
        ("SINK", settings.name.to_string()),
        ("NAME", document.name.to_string()),
        ("RESOURCE", document.resource.to_string()),
        ("STATE", document.state.to_string()),
        ("EVENT", format!("token.{}", document.kind)),
        ("VERSION", document.version.to_string()),
    ];
    let ends = document
        .expires_at
        .map(|at| ("EXPIRES_AT", whole_seconds(at)));
    let facts = facts.into_iter().chain(ends);
    environment.extend(facts.map(|(key, value)| (format!("RENEWD_{key}"), value)));
    environment
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Kind, Secret, State, Version};

    #[test]
    fn it_tells_the_facts_but_never_the_token() {
        let settings = ExecSinkSettings {
            rate: None,
            name: "reload".parse().unwrap(),
            command: vec!["/bin/true".to_owned()],
            timeout: Duration::from_secs(30),
            environment: [("LANG", "cs_CZ.UTF-8"), ("APP_HOME", "/opt/app")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            max_in_flight: 4,
            after: Vec::new(),
        };
        let document = TokenDocument {
            name: "bot".parse().unwrap(),
            resource: "contoso".parse().unwrap(),
            id: Some("8:acs:a_b".parse().unwrap()),
            state: State::Active,
            token: Some(Secret::new("ey.canary".to_owned())),
            scopes: Vec::new(),
            issued_at: None,
            expires_at: Some("2026-11-23T17:00:00.7Z".parse().unwrap()),
            renews_at: None,
            version: Version(7),
            kind: Kind::Renewed,
        };
        let environment = environment(&settings, &document);
        let lines: Vec<String> = environment
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            lines,
            [
                "APP_HOME=/opt/app",
                "LANG=cs_CZ.UTF-8",
                &format!("PATH={PATH}"),
                "RENEWD_EVENT=token.renewed",
                "RENEWD_EXPIRES_AT=2026-11-23T17:00:00Z",
                "RENEWD_NAME=bot",
                "RENEWD_RESOURCE=contoso",
                "RENEWD_SINK=reload",
                "RENEWD_STATE=active",
                "RENEWD_VERSION=7",
            ]
        );
    }
}
