//! `[[sink.webhook]]`: signed events over HTTP.

use super::super::keys::{
    MINUTE,
    Preset::{Is, Nothing, Required, Said},
    Table, Takes, key,
};
use super::identity::NAME;
use super::{
    super::{
        ContentType, EventBody, Include, LoadedSecret, WebhookSinkSettings,
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
            Said("none, which only a sink with a `body` may have: then nothing is signed"),
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
                ("text/plain", "for a `body` that is no JSON"),
            ]),
            Said("\"application/cloudevents+json\", or \"application/json\" with a `body`"),
            "\"application/cloudevents+json\"",
            "How the body is declared; body, id and signature are the same.",
        ),
        key(
            "body",
            Takes::Table(&BODY),
            Nothing,
            "\"alertmanager\"",
            "Notices in the form that their receiver reads, and nothing else: \"alertmanager\", or a template of yours, { file = \"/etc/renewd/slack.json.j2\" }. Minijinja (Jinja2) with notice, state, key, message, instance, resource, name, at, id, and the filters json and unix; docs/webhooks.md has samples. `events` must not ask for tokens then.",
        )
        .commented()
        .or("string"),
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

pub(super) static BODY: Table = Table {
    name: "sink.webhook.body",
    header: "`body`",
    says: "",
    groups: &[&[key(
        "file",
        Takes::Path,
        Required,
        "\"/etc/renewd/slack.json.j2\"",
        "",
    )]],
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
    let body_item = section.optional("body");
    let secrets = match (section.optional("secrets"), body_item) {
        (Some(item), _) => secrets(item),
        (None, Some(_)) => Some(Vec::new()),
        (None, None) => section.required("secrets").and_then(secrets),
    };
    let include = section.word("include", [Include::Token, Include::Reference]);
    let body = match body_item {
        Some(item) => body(item),
        None => Some(EventBody::Event),
    };
    let content_type = match section.optional("content_type") {
        Some(item) => content_type(item, body_item),
        None if body_item.is_some() => ContentType::Json,
        None => ContentType::CloudEvents,
    };
    let events_item = section.optional("events");
    let events = match events_item {
        Some(item) => events(item).unwrap_or_default(),
        None => vec!["token.*".to_owned()],
    };
    if let Some(body) = body_item {
        refuse_tokens(body, events_item);
    }
    let ca_file = section.optional("ca_file").and_then(references::ca_file);
    let timeout = section.duration("timeout");
    let rate = section.optional("rate").and_then(Item::limit);
    refuse_nodes(&mut section);
    section.finish();
    let settings =
        name.as_ref()
            .zip(url)
            .zip(secrets)
            .zip(body)
            .map(|(((name, url), secrets), body)| WebhookSinkSettings {
                name: name.value.clone(),
                url,
                allow_http,
                allow_private,
                proxy,
                secrets,
                include,
                content_type,
                body,
                events,
                ca_file,
                timeout,
                rate,
            });
    Draft { name, settings }
}

fn refuse_nodes(section: &mut Section<'_>) {
    section.refuse(
        "nodes",
        "a webhook is called by whichever machine of a cluster leads, so that its receiver hears everything once",
        "take `nodes` out; it is for sinks that are a machine's own: files and programs",
    );
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
        "http" if allow_http || references::is_loopback(&url) => Some(text.to_owned()),
        "http" => item.wrong(
            "plain http carries the token in the clear over the network",
            "use https; or, where the network itself is guarded, say allow_http = true",
        ),
        _ => item.unlike_sample("the URL must start with https://"),
    }
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

/// `"alertmanager"`, or `{ file = "…" }`.
fn body(item: Item<'_>) -> Option<EventBody> {
    match item.value() {
        Value::Text(text) if text == "alertmanager" => Some(EventBody::Alertmanager),
        Value::Text(_) => item.wrong(
            "no body of this name is known",
            "write \"alertmanager\", or { file = \"/etc/renewd/NAME.j2\" } for a template of yours",
        ),
        _ => references::template(
            item,
            "it holds what is to be sent, with {{ message|json }} and the like in it",
        )
        .map(EventBody::Template),
    }
}

fn content_type(item: Item<'_>, body: Option<Item<'_>>) -> ContentType {
    let read = item.word(&[
        ContentType::CloudEvents,
        ContentType::Json,
        ContentType::Text,
    ]);
    match (read, body) {
        (Some(ContentType::CloudEvents), Some(_)) => {
            item.wrong::<()>(
                "what has a `body` of another form is no CloudEvent",
                "write content_type = \"application/json\" or \"text/plain\", or leave it out",
            );
        }
        (Some(ContentType::Text), None) => {
            item.wrong::<()>(
                "an event is JSON, and cannot be declared as text",
                "leave it out",
            );
        }
        _ => {}
    }
    read.unwrap_or(ContentType::Json)
}

/// A body of another form is for people and their tools: no token ever goes there.
fn refuse_tokens(body: Item<'_>, events: Option<Item<'_>>) {
    let hint =
        "name groups of notices, such as events = [\"resource.*\", \"key.*\", \"renewal.*\"]";
    let Some(events) = events else {
        body.wrong::<()>(
            "a webhook with a `body` carries notices only, and `events` are [\"token.*\"] where they are left out",
            hint,
        );
        return;
    };
    for item in events.items().into_iter().flatten() {
        let Value::Text(text) = item.value() else {
            continue;
        };
        if text == "*" || text.split('.').next() == Some("token") {
            item.wrong::<()>(
                "a webhook with a `body` carries no tokens, only notices",
                hint,
            );
        }
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
