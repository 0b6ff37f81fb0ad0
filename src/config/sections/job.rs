//! `[[job]]`: work by the calendar. Pattern, zone and selection are words here; the rooms that
//! understand them check them.

use super::super::keys::{
    Preset::{Is, Required},
    Table, Takes, key,
};
use super::super::{
    JobSettings,
    reader::{Item, Located, Section},
};
use super::identity::NAME;
use crate::model::{JobAction, JobName, Missed, Selection, Then};

pub(super) static JOB: Table = Table {
    name: "job",
    header: "[[job]]",
    says: "",
    groups: &[&[
        NAME.again(Required, "\"friday-guests\"", ""),
        key(
            "cron",
            Takes::Text,
            Required,
            "\"0 0 22 * * FRI\"",
            "Minute, hour, day, month, weekday; or six fields with seconds first. 0 and 7 are Sunday; all of it as Debian's cron reads it (docs/jobs.md). A local time that a clock change skips runs at the next valid instant, a doubled one runs once.",
        )
        .quoted(),
        key(
            "timezone",
            Takes::Text,
            Is("\"UTC\""),
            "\"Europe/Prague\"",
            "The IANA zone in which the pattern is meant.",
        )
        .quoted(),
        key(
            "action",
            Takes::Word(&[("revoke", ""), ("renew", ""), ("hold", "")]),
            Required,
            "\"revoke\"",
            "",
        ),
        key(
            "select",
            Takes::Text,
            Required,
            "\"label.team = 'guest'\"",
            "Which identities.",
        )
        .quoted(),
        key(
            "then",
            Takes::Word(&[("reissue", ""), ("hold", "")]),
            Is("\"reissue\""),
            "\"reissue\"",
            "What follows a revocation.",
        ),
        key(
            "missed",
            Takes::Word(&[
                ("run_once", "one run for all of them, at once"),
                ("skip", "they are noted and left out"),
            ]),
            Is("\"run_once\""),
            "\"run_once\"",
            "What becomes of instants that passed while the daemon was not running.",
        ),
    ]],
};

/// A job and where its name stands.
#[derive(Debug)]
pub(in super::super) struct Draft {
    pub(in super::super) name: Option<Located<JobName>>,
    pub(in super::super) settings: Option<JobSettings>,
}

/// Reads one `[[job]]`.
pub(super) fn read(mut section: Section<'_>) -> Draft {
    let name: Option<Located<JobName>> = section.required("name").and_then(Item::name);
    let cron = section
        .required("cron")
        .and_then(Item::text)
        .map(str::to_owned);
    let timezone = section.or("timezone", "UTC".to_owned(), |item| {
        item.text().map(str::to_owned)
    });
    let action = section
        .required("action")
        .and_then(|item| item.word(&[JobAction::Revoke, JobAction::Renew, JobAction::Hold]));
    let select = section.required("select").and_then(selection);
    let then = section.optional("then").and_then(|item| then(item, action));
    let missed = section.word("missed", [Missed::RunOnce, Missed::Skip]);
    section.finish();
    let settings =
        name.as_ref()
            .zip(cron)
            .zip(action)
            .zip(select)
            .map(|(((name, cron), action), select)| JobSettings {
                name: name.value.clone(),
                cron,
                timezone,
                action,
                select,
                then: (action == JobAction::Revoke).then(|| then.unwrap_or(Then::Reissue)),
                missed,
            });
    Draft { name, settings }
}

fn selection(item: Item<'_>) -> Option<Selection> {
    let text = item.text()?;
    match Selection::parse(text) {
        Ok(selection) => Some(selection),
        Err(error) => item.wrong(
            match item.is_shown() {
                true => format!(
                    "`select` cannot be understood: {}",
                    error.explain(text).replace('\n', "\n    ")
                ),
                false => "`select` cannot be understood".to_owned(),
            },
            "such as select = \"label.team = 'guest' and not state in (held)\"",
        ),
    }
}

fn then(item: Item<'_>, action: Option<JobAction>) -> Option<Then> {
    let then = item.word(&[Then::Reissue, Then::Hold])?;
    match action {
        Some(JobAction::Renew | JobAction::Hold) => {
            item.wrong("`then` goes with action = \"revoke\" alone", "take it out")
        }
        _ => Some(then),
    }
}
