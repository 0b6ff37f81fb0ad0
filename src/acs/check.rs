//! What can be said of a `[[resource]]` section without calling it.

use super::ConnectionString;
use crate::{
    config::{
        CredentialSettings, EntraKind, Finding, KeySettings, LoadedSecret, ResourceSettings,
        Severity,
    },
    entra::ClientCertificate,
    transport::{NetworkOptions, Transport},
};

/// The oldest version whose shapes renewd speaks.
const OLDEST_SPOKEN: &str = "2021-03-07";
/// The oldest version that lets a token's lifetime be chosen.
const OLDEST_WITH_LIFETIME: &str = "2022-10-01";

/// Everything that is wrong with one `[[resource]]`; `path` is its configuration path, such as
/// `resource[0]`.
pub fn check(settings: &ResourceSettings, path: &str) -> Vec<Finding> {
    let at = |key: &str| format!("{path}.{key}");
    let keys = settings.credential.keys();
    let mut findings = keys.map_or_else(Vec::new, |keys| check_keys(keys, at));
    findings.extend(certificate(&settings.credential, at));
    findings.extend(api_version(&settings.api_version, at("api_version")));
    if let Some(file) = &settings.ca_file {
        let options = NetworkOptions {
            ca_file: Some(file.clone()),
            ..NetworkOptions::default()
        };
        if let Err(reason) = Transport::network(&options) {
            findings.push(error(at("ca_file"), reason.to_string()));
        }
    }
    if let Some(proxy) = &settings.proxy {
        let options = NetworkOptions {
            proxy: Some(proxy.clone()),
            ..NetworkOptions::default()
        };
        if let Err(reason) = Transport::network(&options) {
            findings.push(error(at("proxy"), reason.to_string()));
        }
    }
    findings
}

/// What keeps the certificate from proving who calls.
fn certificate(credential: &CredentialSettings, at: impl Fn(&str) -> String) -> Option<Finding> {
    let kind = &credential.entra()?.kind;
    let EntraKind::ClientCertificate { certificate, .. } = kind else {
        return None;
    };
    let why = ClientCertificate::parse(&certificate.secret).err()?;
    Some(error(at("entra.client_certificate"), why.to_string()))
}

fn check_keys(keys: &KeySettings, at: impl Fn(&str) -> String) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut read = |loaded: &LoadedSecret, key: &str| {
        let read = ConnectionString::parse(&loaded.secret);
        match &read {
            Ok(string) if !string.endpoint.is_safe() => findings.push(Finding {
                hint: Some("plain http is for an emulator on this machine; use https".to_owned()),
                ..error(
                    at(key),
                    "plain http would carry tokens in the clear out of this machine",
                )
            }),
            Ok(_) => {}
            Err(reason) => findings.push(error(at(key), reason.to_string())),
        }
        read.ok()
    };
    let primary = read(&keys.connection_string, "connection_string");
    let secondary = keys
        .secondary_connection_string
        .as_ref()
        .and_then(|loaded| read(loaded, "secondary_connection_string"));
    if let (Some(primary), Some(secondary)) = (primary, secondary) {
        findings.extend(pair(
            &primary,
            &secondary,
            at("secondary_connection_string"),
        ));
    }
    findings
}

/// Whether a text has the form of an API version: `YYYY-MM-DD`, with a word after it for previews.
pub(super) fn is_api_version(text: &str) -> bool {
    let (date, preview) = text.split_at_checked(10).unwrap_or((text, ""));
    date.parse::<jiff::civil::Date>().is_ok()
        && (preview.is_empty() || preview.starts_with("-preview"))
        && preview
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn pair(primary: &ConnectionString, secondary: &ConnectionString, at: String) -> Option<Finding> {
    if primary.endpoint != secondary.endpoint {
        return Some(Finding {
            hint: Some("both keys of a pair belong to one resource; make another [[resource]] for the other".to_owned()),
            ..error(
                at,
                format!(
                    "its endpoint {} is not that of connection_string, {}",
                    secondary.endpoint, primary.endpoint
                ),
            )
        });
    }
    (primary.key == secondary.key).then(|| {
        warning(
            at,
            "it holds the same key as connection_string, so nothing is left when that key is regenerated",
        )
    })
}

fn api_version(version: &str, at: String) -> Option<Finding> {
    if !is_api_version(version) {
        let message = "an API version reads YYYY-MM-DD or YYYY-MM-DD-preview, such as 2023-10-01";
        return Some(error(at, message));
    }
    if version < OLDEST_SPOKEN {
        return Some(error(
            at,
            format!("renewd speaks {OLDEST_SPOKEN} and newer"),
        ));
    }
    (version < OLDEST_WITH_LIFETIME).then(|| {
        warning(
            at,
            format!(
                "before {OLDEST_WITH_LIFETIME} every token lives 24h, whatever lifetime is asked"
            ),
        )
    })
}

fn error(path: String, message: impl Into<String>) -> Finding {
    Finding {
        path,
        severity: Severity::Error,
        message: message.into(),
        hint: None,
    }
}

fn warning(path: String, message: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Warning,
        ..error(path, message)
    }
}

#[cfg(test)]
mod tests {
    //! What `check` says of good, odd and impossible sections.

    use std::io::Write;

    use super::*;
    use crate::{
        config::{CreatePolicy, EntraSettings, Limits, SecretRef},
        model::Secret,
    };

    const KEY: &str = "bm90LWEtcmVhbC1rZXktMDEyMzQ1Njc4OWFiY2RlZiEh";
    const OTHER: &str = "YW5vdGhlci1rZXk=";

    fn loaded(endpoint: &str, key: &str) -> LoadedSecret {
        LoadedSecret {
            from: SecretRef::Env("CS".to_owned()),
            secret: Secret::new(format!("endpoint={endpoint};accesskey={key}")),
        }
    }

    fn keys(primary: LoadedSecret, secondary: Option<LoadedSecret>) -> CredentialSettings {
        CredentialSettings::Keys(KeySettings {
            connection_string: primary,
            secondary_connection_string: secondary,
        })
    }

    fn section(endpoint: &str) -> ResourceSettings {
        ResourceSettings {
            name: "contoso".parse().unwrap(),
            credential: keys(loaded(endpoint, KEY), Some(loaded(endpoint, OTHER))),
            ca_file: None,
            proxy: None,
            api_version: "2023-10-01".to_owned(),
            create: CreatePolicy::Auto,
            limits: Limits::default(),
            max_in_flight: 32,
        }
    }

    fn paths(section: &ResourceSettings, severity: Severity) -> Vec<String> {
        let findings = check(section, "resource[0]");
        let shown = format!("{findings:?}");
        assert!(!shown.contains(KEY) && !shown.contains(OTHER), "{shown}");
        findings
            .into_iter()
            .filter(|f| f.severity == severity)
            .map(|f| f.path)
            .collect()
    }

    fn errors(section: &ResourceSettings) -> Vec<String> {
        paths(section, Severity::Error)
    }

    #[test]
    fn nothing_is_said_of_a_good_section() {
        for endpoint in [
            "https://contoso.communication.azure.com/",
            "http://127.0.0.1:8080",
        ] {
            assert_eq!(check(&section(endpoint), "resource[0]"), []);
        }
    }

    #[test]
    fn plain_http_may_not_leave_the_machine() {
        assert_eq!(
            errors(&section("http://contoso.communication.azure.com")),
            [
                "resource[0].connection_string",
                "resource[0].secondary_connection_string"
            ]
        );
    }

    #[test]
    fn every_mistake_is_found_at_once() {
        let mut section = section("https://contoso.communication.azure.com");
        let bare = LoadedSecret {
            secret: Secret::new(KEY.to_owned()),
            ..loaded("", KEY)
        };
        section.credential = keys(bare, Some(loaded("contoso", OTHER)));
        section.api_version = "v1".to_owned();
        section.ca_file = Some("/nonexistent/ca.pem".into());
        assert_eq!(
            errors(&section),
            [
                "resource[0].connection_string",
                "resource[0].secondary_connection_string",
                "resource[0].api_version",
                "resource[0].ca_file",
            ]
        );
    }

    #[test]
    fn a_pair_has_one_endpoint_and_two_keys() {
        let mut odd = section("https://a.example");
        let with = |secondary| keys(loaded("https://a.example", KEY), Some(secondary));
        odd.credential = with(loaded("https://b.example", OTHER));
        assert_eq!(errors(&odd), ["resource[0].secondary_connection_string"]);
        odd.credential = with(loaded("https://a.example/", KEY));
        assert_eq!(errors(&odd), [""; 0]);
        assert_eq!(
            paths(&odd, Severity::Warning),
            ["resource[0].secondary_connection_string"]
        );
    }

    #[test]
    fn api_versions_have_a_form_and_an_age() {
        for (version, wrong, odd) in [
            ("2023-10-01", false, false),
            ("2025-03-02-preview", false, false),
            ("2021-03-31-preview1", false, true),
            ("2020-07-20-preview2", true, false),
            ("2023-13-01", true, false),
            ("2023-10-01&x=y", true, false),
            ("latest", true, false),
            ("", true, false),
            ("äöüäöüäöü", true, false),
        ] {
            let mut section = section("https://a.example");
            section.api_version = version.to_owned();
            assert_eq!(!errors(&section).is_empty(), wrong, "{version}");
            assert_eq!(
                !paths(&section, Severity::Warning).is_empty(),
                odd,
                "{version}"
            );
        }
    }

    #[test]
    fn a_certificate_must_be_one_with_its_key() {
        let mut section = section("https://a.example");
        let mut told = |pem: &str| {
            section.credential = CredentialSettings::Entra(EntraSettings {
                endpoint: "https://a.example".to_owned(),
                kind: EntraKind::ClientCertificate {
                    tenant: "contoso.com".to_owned(),
                    client_id: String::new(),
                    certificate: LoadedSecret {
                        from: SecretRef::Env("PEM".to_owned()),
                        secret: Secret::new(pem.to_owned()),
                    },
                },
                authority: String::new(),
                scope: String::new(),
            });
            errors(&section)
        };
        let own = include_str!("../../tests/it/fixtures/entra-client.pem");
        assert_eq!(told(own), [""; 0]);
        let other = include_str!("../../tests/it/fixtures/authority.pem");
        let path = ["resource[0].entra.client_certificate"];
        for wrong in ["MIIJqQIBAzCCCW8GCSqGSIb3", other, &own[..own.len() / 2]] {
            assert_eq!(told(wrong), path);
        }
    }

    #[test]
    fn a_ca_file_must_hold_a_certificate() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"not a certificate\n").unwrap();
        let mut section = section("https://a.example");
        section.ca_file = Some(file.path().to_owned());
        assert_eq!(errors(&section), ["resource[0].ca_file"]);
    }
}
