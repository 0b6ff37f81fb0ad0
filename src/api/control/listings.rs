//! `GET /v1/notices`, `/v1/audit`: what happened, in pages.

use axum::{
    Json,
    extract::{Query, State},
};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::{
    super::{
        handle::Api,
        problem::{Problem, ProblemType},
        wire::{NoticeRow, Page},
    },
    Admin, After, PAGE,
};
use crate::{
    model::{AuditEntry, Name, NameError},
    store::AuditQuery,
};

/// The largest page of the audit trail, for the entries of one instant.
const AUDIT_MOST: usize = 200_000;

/// Notices after a number, or the latest ones; oldest first.
pub(super) async fn notices(
    State(api): State<Api>,
    _: Admin,
    Query(After { after }): Query<After>,
) -> Result<Json<Page<NoticeRow>>, Problem> {
    let rows = match after {
        Some(after) => {
            let after = after.parse().map_err(|_| bad_cursor())?;
            api.store.notices(after, PAGE).await?
        }
        None => {
            let mut latest = api.store.latest_notices(PAGE).await?;
            latest.reverse();
            latest
        }
    };
    // A caller that follows along comes again with the last number, whether or not there is more.
    let next = rows.last().map(|(seq, _)| seq.to_string());
    let items = rows
        .into_iter()
        .map(|(seq, notice)| NoticeRow { seq, notice })
        .collect();
    Ok(Json(Page { items, next }))
}

/// Which entries of the audit trail.
#[derive(Debug, Deserialize)]
pub(super) struct WhichEntries {
    name: Option<String>,
    actor: Option<String>,
    action: Option<String>,
    since: Option<String>,
    until: Option<String>,
    #[serde(default)]
    without_renewals: bool,
    after: Option<String>,
}

/// The audit trail, newest first. A cursor is the instant before which to go on.
pub(super) async fn audit(
    State(api): State<Api>,
    _: Admin,
    Query(which): Query<WhichEntries>,
) -> Result<Json<Page<AuditEntry>>, Problem> {
    let invalid = |error: NameError| Problem::new(ProblemType::Invalid, error.to_string());
    let name = which
        .name
        .map(|name| name.parse::<Name>())
        .transpose()
        .map_err(invalid)?;
    let cursor = which
        .after
        .map(|at| at.parse::<Timestamp>())
        .transpose()
        .map_err(|_| bad_cursor())?;
    let wanted = AuditQuery {
        name,
        actor: which.actor,
        action: which.action,
        since: instant("since", which.since)?,
        before: cursor.or(instant("until", which.until)?),
        without_renewals: which.without_renewals,
        limit: 0,
    };
    let mut limit = PAGE;
    loop {
        let query = AuditQuery {
            limit,
            ..wanted.clone()
        };
        let entries = api.store.audit_trail(query).await?;
        let full = entries.len() == limit;
        match cut(entries, full) {
            Some(page) => return Ok(Json(page)),
            None if limit < AUDIT_MOST => limit *= 4,
            None => {
                return Err(Problem::new(
                    ProblemType::Internal,
                    "too many entries of one instant",
                ));
            }
        }
    }
}

/// Cuts a full page where one instant ends, so that the next page begins with a whole instant;
/// `None` when all of it is one instant.
fn cut(mut entries: Vec<AuditEntry>, full: bool) -> Option<Page<AuditEntry>> {
    let Some(last) = entries.last().map(|entry| entry.at).filter(|_| full) else {
        return Some(Page {
            items: entries,
            next: None,
        });
    };
    entries.retain(|entry| entry.at > last);
    if entries.is_empty() {
        return None;
    }
    let next = last
        .checked_add(SignedDuration::from_micros(1))
        .unwrap_or(last);
    Some(Page {
        items: entries,
        next: Some(next.to_string()),
    })
}

/// An instant in a query.
pub(super) fn instant(key: &str, text: Option<String>) -> Result<Option<Timestamp>, Problem> {
    let wrong = |_| {
        let why = format!("{key} is an instant such as 2026-11-22T00:00:00Z");
        Problem::new(ProblemType::Invalid, why)
    };
    text.map(|text| text.parse().map_err(wrong)).transpose()
}

pub(super) fn bad_cursor() -> Problem {
    Problem::new(
        ProblemType::Invalid,
        "after is not what a page gave as next",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(seconds: &[i64]) -> Vec<AuditEntry> {
        let at = |second: &i64| AuditEntry {
            at: Timestamp::from_second(*second).unwrap(),
            actor: "renewd".into(),
            action: "renew".into(),
            name: None,
            reason: None,
            request_id: None,
            result: "ok".into(),
        };
        seconds.iter().map(at).collect()
    }

    #[test]
    fn a_page_never_splits_an_instant() {
        let page = cut(entries(&[9, 8, 7, 7]), true).unwrap();
        assert_eq!(page.items.len(), 2);
        let before: Timestamp = page.next.unwrap().parse().unwrap();
        assert!(
            before > Timestamp::from_second(7).unwrap(),
            "the next page holds both of 7"
        );
        assert!(cut(entries(&[7, 7]), true).is_none());
        assert_eq!(cut(entries(&[7, 7]), false).unwrap().next, None);
    }
}
