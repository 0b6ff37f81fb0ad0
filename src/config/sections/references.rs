//! What several sections take in the same way: secrets, readers, certificates, proxies, rates.

use std::{collections::BTreeSet, path::PathBuf};

use reqwest::Url;

use super::super::keys::{
    Key,
    Preset::{Nothing, Said},
    Table, Takes, key,
};
use super::super::{
    LoadedSecret, SecretError, SecretRef, Template,
    file::read_text,
    quantity::{is_plain, quoted, shown},
    reader::Item,
    secret::{FROM_PFX, looks_secret, reload_secret, too_open},
    tree::Value,
};
use crate::model::Reader;

/// The inline table that refers to a secret.
pub(in super::super) static SECRET_REFERENCE: Table = Table {
    name: "a secret's reference",
    header: "a secret's reference",
    says: "",
    groups: &[&[
        key(
            "file",
            Takes::Path,
            Nothing,
            "\"/etc/renewd/contoso.cs\"",
            "",
        )
        .unquoted(),
        key("credential", Takes::Text, Nothing, "\"contoso\"", ""),
        key("env", Takes::Text, Nothing, "\"CONTOSO\"", ""),
    ]],
};

/// `{ file = "…" }` of a template; `holds` says what belongs there.
pub(super) fn template(item: Item<'_>, holds: &str) -> Option<Template> {
    let mut section = item.section()?;
    let named = section.required("file");
    section.finish();
    let named = named?;
    let path = named.path()?;
    match read_text(&path) {
        Ok(text) => Some(Template {
            text,
            file: Some(path),
        }),
        Err(why) => {
            let name = match named.is_shown() {
                true => format!("the template {}", path.display()),
                false => "this template".to_owned(),
            };
            named.wrong(format!("cannot read {name}: {why}"), holds)
        }
    }
}

/// Whether an address leads to this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || ip
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// Reads the secret that `{ file }`, `{ credential }` or `{ env }` refers to.
pub(super) fn secret(item: Item<'_>) -> Option<LoadedSecret> {
    let (from, is_shown) = secret_ref(item)?;
    match reload_secret(&from, item.reading().environment) {
        Ok(loaded) => {
            if let Some((message, hint)) = too_open(&from) {
                item.tell(item.warning(message).hint(hint));
            }
            Some(loaded)
        }
        Err(error) => {
            let (message, hint) = match is_shown {
                true => (error.to_string(), error.hint()),
                false => {
                    let of_pfx = matches!(error, SecretError::Der(_));
                    let hint = of_pfx.then(|| FROM_PFX.to_owned());
                    (error.without_its_place(), hint)
                }
            };
            item.tell(item.error(message).maybe_hint(hint));
            None
        }
    }
}

/// Where a secret lies, and whether an error may say it: what is written there may be the secret itself.
fn secret_ref(item: Item<'_>) -> Option<(SecretRef, bool)> {
    let Value::Table(fields) = item.value() else {
        refuse_bare(item);
        return None;
    };
    let mut section = item.section_of(&SECRET_REFERENCE)?;
    let file = section.optional("file");
    let credential = section.optional("credential");
    let env = section.optional("env");
    section.finish();
    let found = [file, credential, env];
    if found.iter().flatten().count() != 1 {
        // An unknown key was told of, and is the likelier mistake.
        if fields.keys().all(|key| SECRET_REFERENCE.key(key).is_some()) {
            item.tell(
                item.error(format!(
                    "`{}` must refer to its secret in exactly one way",
                    item.key()
                ))
                .hint("one of file, credential and env"),
            );
        }
        return None;
    }
    let reference = found.into_iter().flatten().next()?;
    let text = reference.text()?;
    if looks_secret(text) {
        return reference.wrong(
            format!(
                "`{}` must say where the secret lies; this looks like the secret itself",
                reference.key()
            ),
            format!(
                "{}; and replace this secret, it was written in the clear",
                advice(item.key())
            ),
        );
    }
    let from = match reference.key() {
        "file" => reference.path().map(SecretRef::File),
        "credential" => credential_name(reference, text),
        _ => variable_name(reference, text),
    };
    from.map(|from| (from, is_plain(text)))
}

fn credential_name(item: Item<'_>, text: &str) -> Option<SecretRef> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    let valid =
        (1..=255).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('.');
    if valid {
        return Some(SecretRef::Credential(text.to_owned()));
    }
    item.wrong(
        "this is not the name of a credential",
        "a name as in LoadCredential=NAME:PATH, without a slash",
    )
}

fn variable_name(item: Item<'_>, text: &str) -> Option<SecretRef> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let valid = !text.is_empty()
        && text.chars().all(allowed)
        && !text.starts_with(|c: char| c.is_ascii_digit());
    if valid {
        return Some(SecretRef::Env(text.to_owned()));
    }
    item.wrong(
        "this is not the name of an environment variable",
        "letters, digits and underscores, without a dollar sign",
    )
}

fn refuse_bare(item: Item<'_>) {
    let key = item.key();
    let message = match item.value() {
        Value::Text(_) => format!("`{key}` must refer to its secret, not hold it"),
        other => format!(
            "`{key}` must refer to its secret, as a table, not {}",
            other.kind()
        ),
    };
    item.wrong::<()>(message, advice(key));
}

fn advice(key: &str) -> String {
    let reference = "{ file = \"/etc/renewd/NAME\" }";
    let written = if key == "secrets" {
        format!("[{reference}]")
    } else {
        reference.to_owned()
    };
    format!("put the secret into a file of mode 0600 and write {key} = {written}")
}

/// Users and `group:` groups, each once.
pub(super) fn readers(item: Item<'_>) -> Option<Vec<Reader>> {
    let mut seen = BTreeSet::new();
    let mut readers = Vec::new();
    for item in item.items()? {
        let Some(reader) = reader(item) else { continue };
        if seen.insert(reader.clone()) {
            readers.push(reader);
        } else {
            let who = quoted(&reader.to_string()).unwrap_or_else(|| "somebody".to_owned());
            item.tell(item.warning(format!("{who} is named twice")));
        }
    }
    Some(readers)
}

fn reader(item: Item<'_>) -> Option<Reader> {
    let text = item.text()?;
    let name = text.strip_prefix("group:").unwrap_or(text);
    let odd = |c: char| c.is_whitespace() || c.is_control() || ":/,".contains(c);
    if !name.is_empty() && name.len() <= 256 && !name.contains(odd) && !name.starts_with('-') {
        return Some(Reader::from(text.to_owned()));
    }
    item.wrong(
        format!("{} is neither a user nor a group", shown(text)),
        "a user is written \"www-data\" or by its number, a group \"group:ops\"",
    )
}

pub(super) const CA_FILE: Key = key(
    "ca_file",
    Takes::Path,
    Nothing,
    "\"/etc/renewd/ca.pem\"",
    "Trust the certificates in this PEM file besides the system's.",
);

/// A file of certificates, which must be there: whoever connects reads it again.
pub(super) fn ca_file(item: Item<'_>) -> Option<PathBuf> {
    let path = item.path()?;
    match crate::config::open_regular(&path) {
        Ok(_) => Some(path),
        Err(error) => {
            let name = match item.is_shown() {
                true => format!("the CA file {}", path.display()),
                false => "this CA file".to_owned(),
            };
            let message = format!("cannot read {name}: {error}");
            item.wrong(
                message,
                "it holds certificates in PEM, trusted besides the system's",
            )
        }
    }
}

pub(super) const PROXY: Key = key(
    "proxy",
    Takes::Text,
    Nothing,
    "\"http://proxy.example:3128\"",
    "Everything goes through this proxy, which then resolves the host's name; proxies from the environment are never used.",
);

/// A proxy by its URL. Its password would be a bare secret, so there is none.
pub(super) fn proxy(item: Item<'_>) -> Option<String> {
    let text = item.text()?;
    match addressable(text) {
        Some(url) if !url.username().is_empty() || url.password().is_some() => item.wrong(
            "a user and a password must not stand in a URL",
            "use a proxy that knows this machine by its address",
        ),
        Some(url) if !matches!(url.scheme(), "http" | "https") || url.host().is_none() => {
            item.unlike_sample("a proxy is reached over http or https")
        }
        Some(url) if !matches!(url.path(), "" | "/") || url.query().is_some() => {
            item.unlike_sample("the URL of a proxy ends after its port")
        }
        Some(_) => Some(text.to_owned()),
        None => item.unlike_sample("this is not a URL"),
    }
}

/// A URL that a request can be addressed to: URL parsers let hosts pass that no request line can hold.
pub(super) fn addressable(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    url.as_str().parse::<http::Uri>().is_ok().then_some(url)
}

pub(super) const RATE: Key = key(
    "rate",
    Takes::Limit(10_000),
    Said("no limit"),
    "\"50/s\"",
    "The most attempts in any such time, retries and notices included: \"50/s\", \"600/10m\".",
);
