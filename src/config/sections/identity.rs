//! `[[identity]]`: one identity as it is wanted.

use std::{collections::BTreeMap, collections::BTreeSet};

use super::{
    super::{
        reader::{Item, Located, Section, one_of},
        suspicion::shown,
        tree::{Span, Value},
    },
    Renewal, references, renewal,
};
use crate::model::{
    IdentityId, Name, OnRemoval, Origin, Reader, ResourceName, Scope, SinkName, Spec, is_label_key,
};

/// An identity before its resource and its sinks are looked up.
#[derive(Debug)]
pub(in super::super) struct Draft {
    pub(in super::super) head: Span,
    pub(in super::super) name: Option<Located<Name>>,
    pub(in super::super) resource: Option<Located<ResourceName>>,
    pub(in super::super) resource_left_out: bool,
    pub(in super::super) id: Option<Located<IdentityId>>,
    pub(in super::super) sinks: Vec<Located<SinkName>>,
    scopes: Option<Vec<Scope>>,
    renewal: Renewal,
    labels: BTreeMap<String, String>,
    readers: Vec<Reader>,
    on_removal: OnRemoval,
}

impl Draft {
    /// The identity, complete; `None` where something was wrong and told of.
    pub(in super::super) fn spec(self, resource: Option<ResourceName>) -> Option<Spec> {
        Some(Spec {
            name: self.name?.value,
            resource: resource?,
            id: self.id.map(|id| id.value),
            scopes: self.scopes?,
            lifetime: self.renewal.lifetime,
            renew_at: self.renewal.renew_at,
            spread: self.renewal.spread,
            labels: self.labels,
            readers: self.readers,
            sinks: self.sinks.into_iter().map(|sink| sink.value).collect(),
            on_removal: self.on_removal,
            origin: Origin::File,
        })
    }

    /// How many tokens a second it takes to keep it renewed.
    pub(in super::super) fn renewals_per_second(&self) -> f64 {
        let share = self.renewal.renew_at - self.renewal.spread / 2.0;
        1.0 / (self.renewal.lifetime.as_secs_f64() * share)
    }
}

/// Reads one `[[identity]]`.
pub(super) fn read(mut section: Section<'_>, defaults: &Renewal) -> Draft {
    let resource = section.optional("resource");
    let draft = Draft {
        head: section.head(),
        name: section
            .required("name")
            .and_then(|item| item.name("support-bot")),
        resource_left_out: resource.is_none(),
        resource: resource.and_then(|item| item.name("contoso")),
        id: section.optional("id").and_then(|item| item.name("8:acs:…")),
        sinks: section.or("sinks", Vec::new(), sinks),
        scopes: section.required("scopes").and_then(scopes),
        renewal: renewal::read(&mut section, defaults),
        labels: section.or("labels", BTreeMap::new(), labels),
        readers: section.or("readers", Vec::new(), references::readers),
        on_removal: section.or("on_removal", OnRemoval::Hold, on_removal),
    };
    section.finish();
    draft
}

pub(super) fn on_removal(item: Item<'_>) -> Option<OnRemoval> {
    item.choice(&[
        ("hold", OnRemoval::Hold),
        ("forget", OnRemoval::Forget),
        ("revoke", OnRemoval::Revoke),
    ])
}

pub(super) fn sinks(item: Item<'_>) -> Option<Vec<Located<SinkName>>> {
    let mut seen = BTreeSet::new();
    let mut sinks = Vec::new();
    for item in item.items("[\"bot-file\"]")? {
        let Some(sink) = item.name::<SinkName>("bot-file") else {
            continue;
        };
        if seen.insert(sink.value.clone()) {
            sinks.push(sink);
        } else {
            item.tell(item.warning(format!(
                "the sink {} is named twice",
                shown(sink.value.as_str())
            )));
        }
    }
    Some(sinks)
}

pub(super) fn scopes(item: Item<'_>) -> Option<Vec<Scope>> {
    let mut scopes = BTreeSet::new();
    for item in item.items("[\"chat\", \"voip\"]")? {
        let Some(text) = item.text("chat") else {
            continue;
        };
        match text.parse::<Scope>() {
            Ok(scope) if !scopes.insert(scope) => {
                item.tell(item.warning(format!("the scope {scope} is named twice")));
            }
            Ok(_) => {}
            Err(_) => {
                let known = Scope::ALL.iter().map(|scope| scope.as_str());
                item.wrong::<()>(
                    format!("{} is not a scope", shown(text)),
                    one_of(text, known),
                );
            }
        }
    }
    if matches!(item.value(), Value::Array(items) if items.is_empty()) {
        return item.wrong(
            "an identity needs at least one scope",
            "such as scopes = [\"chat\"]",
        );
    }
    Some(scopes.into_iter().collect())
}

pub(super) fn labels(item: Item<'_>) -> Option<BTreeMap<String, String>> {
    let Value::Table(fields) = item.value() else {
        return item.mistyped("a table of words", "{ team = \"support\" }");
    };
    let mut labels = BTreeMap::new();
    for (key, field) in fields {
        if !is_label_key(key) {
            item.tell(
                super::Note::error(field.key, format!("{} is not a valid label", shown(key)))
                    .hint("a letter, then letters, digits, _ or -, at most 63"),
            );
            continue;
        }
        match &field.node.value {
            Value::Text(text) if text.len() <= 256 && !text.contains(char::is_control) => {
                labels.insert(key.clone(), text.clone());
            }
            Value::Text(_) => item.tell(
                super::Note::error(
                    field.node.span,
                    format!("the label `{key}` is too long or not one line"),
                )
                .hint("at most 256 bytes on one line"),
            ),
            other => item.tell(
                super::Note::error(
                    field.node.span,
                    format!("the label `{key}` must be a string, not {}", other.kind()),
                )
                .hint(format!("put it in quotes: {key} = \"…\"")),
            ),
        }
    }
    Some(labels)
}
