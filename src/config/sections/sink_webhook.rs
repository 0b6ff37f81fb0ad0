//! `[[sink.webhook]]`: signed events over HTTP.

use reqwest::Url;

use super::super::keys::{
    MINUTE,
    Preset::{Is, Required},
    Table, Takes, key,
};
use super::identity::NAME;
use super::{
    super::{
        ContentType, Include, LoadedSecret, WebhookSinkSettings,
        quantity::quoted,
        reader::{Item, Located, Section, one_of},
        secret::check_webhook_secret,
        tree::Value,
    },
    references::{self, CA_FILE, PROXY, RATE},
};
use crate::model::{Kind, NoticeKind, SinkName};

pub(super) static SINK_WEBHOOK: Table = Table {
    name: "sink.webhook",
    header: "[[sink.webhook]]",
    says: "Signed events over HTTP.",
    groups: &[&[
        NAME.again(Required, "\"crm\"", ""),
        key(
            "url",
            Takes::Text,
            Required,
            "\"https://crm.example/hooks/acs\"",
            "https, or http to this machine; no user and password in it.",
        ),
        key(
            "allow_http",
            Takes::Boolean,
            Is("false"),
            "false",
            "Whether plain http may leave the machine.",
        ),
        key(
            "allow_private",
            Takes::Boolean,
            Is("false"),
            "false",
            "Whether the host's name may resolve to this machine or a private network. An address that is written in the URL needs no permission; metadata services are never reached.",
        ),
        PROXY,
        key(
            "secrets",
            Takes::Secrets,
            Required,
            "[{ credential = \"crm-webhook\" }]",
            "Standard Webhooks secrets: whsec_ and 24 to 64 bytes in base64. The first signs first; two while one replaces the other.",
        ),
        key(
            "include",
            Takes::Word(&[
                ("token", "the event carries it"),
                ("reference", "the app fetches it itself"),
            ]),
            Is("\"token\""),
            "\"token\"",
            "How the receiver gets the token.",
        ),
        key(
            "events",
            Takes::Texts,
            Is("[\"token.*\"]"),
            "[\"token.*\", \"identity.gone\"]",
            "Which events: types without \"renewd.\", or groups such as \"token.*\", \"resource.*\", or \"*\".",
        )
        .quoted(),
        key(
            "content_type",
            Takes::Word(&[
                ("application/cloudevents+json", "as CloudEvents say"),
                ("application/json", "for frameworks that parse nothing else"),
            ]),
            Is("\"application/cloudevents+json\""),
            "\"application/cloudevents+json\"",
            "How the body is declared; body, id and signature are the same.",
        ),
        CA_FILE,
        key(
            "timeout",
            Takes::Duration(1, MINUTE),
            Is("\"15s\""),
            "\"15s\"",
            "One attempt altogether, answer included.",
        ),
        RATE,
    ]],
};

/// A webhook sink before its name is held against the others.
#[derive(Debug)]
pub(in super::super) struct Draft {
    pub(in super::super) name: Option<Located<SinkName>>,
    settings: Option<WebhookSinkSettings>,
}

impl Draft {
    pub(in super::super) fn settings(self) -> Option<WebhookSinkSettings> {
        self.settings
    }
}

/// Reads one `[[sink.webhook]]`.
pub(super) fn read(mut section: Section<'_>) -> Draft {
    let name: Option<Located<SinkName>> = section.required("name").and_then(Item::name);
    let allow_http = section.boolean("allow_http");
    let url = section
        .required("url")
        .and_then(|item| url(item, allow_http));
    let allow_private = section.boolean("allow_private");
    let proxy = section.optional("proxy").and_then(references::proxy);
    let secrets = section.required("secrets").and_then(secrets);
    let include = section.word("include", [Include::Token, Include::Reference]);
    let content_type = section.word(
        "content_type",
        [ContentType::CloudEvents, ContentType::Json],
    );
    let events = section.or("events", vec!["token.*".to_owned()], events);
    let ca_file = section.optional("ca_file").and_then(references::ca_file);
    let timeout = section.duration("timeout");
    let rate = section.optional("rate").and_then(Item::limit);
    section.finish();
    let settings = name
        .as_ref()
        .zip(url)
        .zip(secrets)
        .map(|((name, url), secrets)| WebhookSinkSettings {
            name: name.value.clone(),
            url,
            allow_http,
            allow_private,
            proxy,
            secrets,
            include,
            content_type,
            events,
            ca_file,
            timeout,
            rate,
        });
    Draft { name, settings }
}

fn url(item: Item<'_>, allow_http: bool) -> Option<String> {
    let text = item.text()?;
    let url = match references::addressable(text) {
        Some(url) if url.host().is_some() => url,
        Some(_) => return item.unlike_sample("this URL names no host"),
        None => return item.unlike_sample("this is not a URL"),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return item.wrong(
            "a user and a password must not stand in a URL",
            "take them out; deliveries are signed with the sink's secret",
        );
    }
    if url.fragment().is_some() {
        return item.wrong(
            "a URL to post to has no fragment",
            "take out the part after #",
        );
    }
    match url.scheme() {
        "https" => Some(text.to_owned()),
        "http" if allow_http || is_loopback(&url) => Some(text.to_owned()),
        "http" => item.wrong(
            "plain http carries the token in the clear over the network",
            "use https; or, where the network itself is guarded, say allow_http = true",
        ),
        _ => item.unlike_sample("the URL must start with https://"),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || ip
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

fn secrets(item: Item<'_>) -> Option<Vec<LoadedSecret>> {
    if let Value::Text(_) | Value::Table(_) = item.value() {
        return item.wrong(
            "`secrets` must be a list of references to secrets",
            "write secrets = [{ file = \"/etc/renewd/NAME\" }], with the secret in that file",
        );
    }
    let items: Vec<_> = item.items()?.collect();
    if items.is_empty() {
        return item.unlike_sample("a webhook needs a secret to be signed with");
    }
    if items.len() > 2 {
        item.tell(
            item.warning("each delivery is signed with all of these secrets")
                .hint("two are enough while one replaces the other"),
        );
    }
    let count = items.len();
    let mut secrets: Vec<LoadedSecret> = Vec::new();
    for (item, loaded) in items
        .into_iter()
        .filter_map(|item| Some((item, secret(item)?)))
    {
        if secrets.iter().any(|known| known.secret == loaded.secret) {
            item.tell(item.warning("this is the same secret as one before it"));
        }
        secrets.push(loaded);
    }
    (secrets.len() == count).then_some(secrets)
}

fn secret(item: Item<'_>) -> Option<LoadedSecret> {
    let loaded = references::secret(item)?;
    match check_webhook_secret(&loaded.secret) {
        Ok(()) => Some(loaded),
        Err(why) => item.wrong(why, "make one with: echo whsec_$(openssl rand -base64 32)"),
    }
}

fn events(item: Item<'_>) -> Option<Vec<String>> {
    let mut events = Vec::new();
    for item in item.items()? {
        if let Some(text) = item.text().and_then(|text| event(item, text)) {
            events.push(text);
        }
    }
    if matches!(item.value(), Value::Array(items) if items.is_empty()) {
        return item.unlike_sample("a webhook without events would get nothing");
    }
    Some(events)
}

/// A pattern: an event's type without `renewd.`, or `GROUP.*`, or `*`.
fn event(item: Item<'_>, text: &str) -> Option<String> {
    let kinds = Kind::ALL.into_iter().map(|kind| format!("token.{kind}"));
    let known: Vec<String> = kinds
        .chain(NoticeKind::ALL.iter().map(|kind| kind.to_string()))
        .collect();
    let group = text.strip_suffix(".*");
    let groups = || {
        known
            .iter()
            .filter_map(|kind| kind.split_once('.'))
            .map(|(group, _)| group)
    };
    if text == "*" || known.iter().any(|kind| kind == text) || groups().any(|g| group == Some(g)) {
        return Some(text.to_owned());
    }
    let hint = if text.starts_with("renewd.") {
        "leave out `renewd.`, such as \"token.*\"".to_owned()
    } else if group.is_some() {
        let mut names: Vec<String> = groups().map(|group| format!("{group}.*")).collect();
        names.dedup();
        one_of(text, names.iter().map(String::as_str))
    } else {
        one_of(text, known.iter().map(String::as_str))
    };
    item.wrong(
        match quoted(text) {
            Some(text) => format!("no event has the type {text}"),
            None => "no event has this type".to_owned(),
        },
        hint,
    )
}
