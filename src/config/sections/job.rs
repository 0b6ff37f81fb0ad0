//! `[[job]]`: work by the calendar. Pattern, zone and selection are words here; the rooms that
//! understand them check them.

use super::super::{
    JobSettings,
    reader::{Item, Located, Section},
};
use crate::model::{JobAction, JobName, Missed, Selection, Then};

/// A job and where its name stands.
#[derive(Debug)]
pub(in super::super) struct Draft {
    pub(in super::super) name: Option<Located<JobName>>,
    pub(in super::super) settings: Option<JobSettings>,
}

/// Reads one `[[job]]`.
pub(super) fn read(mut section: Section<'_>) -> Draft {
    let name: Option<Located<JobName>> = section
        .required("name")
        .and_then(|item| item.name("friday-guests"));
    let cron = section
        .required("cron")
        .and_then(|item| item.text("0 22 * * FRI"))
        .map(str::to_owned);
    let timezone = section.or("timezone", "UTC".to_owned(), |item| {
        item.text("Europe/Prague").map(str::to_owned)
    });
    let action = section.required("action").and_then(|item| {
        item.choice(&[
            ("revoke", JobAction::Revoke),
            ("renew", JobAction::Renew),
            ("hold", JobAction::Hold),
        ])
    });
    let select = section.required("select").and_then(selection);
    let then = section.optional("then").and_then(|item| then(item, action));
    let missed = section.or("missed", Missed::RunOnce, |item| {
        item.choice(&[("run_once", Missed::RunOnce), ("skip", Missed::Skip)])
    });
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
    let text = item.text("label.team = 'guest'")?;
    match Selection::parse(text) {
        Ok(selection) => Some(selection),
        Err(error) => item.wrong(
            format!(
                "`select` cannot be understood: {}",
                error.explain(text).replace('\n', "\n    ")
            ),
            "such as select = \"label.team = 'guest' and not state in (held)\"",
        ),
    }
}

fn then(item: Item<'_>, action: Option<JobAction>) -> Option<Then> {
    let then = item.choice(&[("reissue", Then::Reissue), ("hold", Then::Hold)])?;
    match action {
        Some(JobAction::Renew | JobAction::Hold) => {
            item.wrong("`then` goes with action = \"revoke\" alone", "take it out")
        }
        _ => Some(then),
    }
}
