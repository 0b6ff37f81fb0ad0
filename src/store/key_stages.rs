//! What a change of keys tells as it goes on: each stage in the audit trail, and what a person should
//! know as a notice, in the transaction that notes the stage.

use super::{columns::spelled, db::Txn, error::Outcome};
use crate::model::{AuditEntry, KeyChange, KeyStage, KeyWork, Notice, NoticeKind, Timestamp};

impl Txn<'_> {
    /// A stage was reached.
    pub(super) fn tell_stage(
        &mut self,
        change: &KeyChange,
        actor: &str,
        now: Timestamp,
    ) -> Outcome<()> {
        self.audit(&AuditEntry {
            at: now,
            actor: actor.to_owned(),
            action: format!("key.{}", spelled(&change.work)),
            name: None,
            reason: change.reason.clone(),
            request_id: None,
            result: format!(
                "{} key {} of {}: {}",
                change.role,
                change.old_key,
                change.resource,
                spelled(&change.stage)
            ),
        })?;
        match news(change, actor) {
            Some((NoticeKind::KeyReplaceable, message)) => {
                let held = self.holding_key(&change.old_key, now)?;
                let message = match held.iter().next() {
                    None => message,
                    Some((sink, count)) => format!(
                        "{message} But {count} consumers of {sink}, which is disabled, still hold a token of it."
                    ),
                };
                self.raise(&[notice(change, NoticeKind::KeyReplaceable, message, now)])
            }
            Some((kind, message)) => self.raise(&[notice(change, kind, message, now)]),
            None => Ok(()),
        }
    }

    /// It is held up no more, in the stage that it was in.
    pub(super) fn tell_resumed(&mut self, change: &KeyChange, now: Timestamp) -> Outcome<()> {
        let message = format!(
            "The replacement of the {} key of {} goes on.",
            change.role, change.resource
        );
        self.announce(&notice(change, NoticeKind::KeyResumed, message, now))?;
        Ok(())
    }

    /// It is held up.
    pub(super) fn tell_trouble(&mut self, change: &KeyChange, now: Timestamp) -> Outcome<()> {
        let Some(trouble) = &change.trouble else {
            return Ok(());
        };
        let message = format!(
            "The replacement of the {} key of {} is held up: {trouble}.",
            change.role, change.resource
        );
        self.raise(&[notice(change, NoticeKind::KeyStuck, message, now)])
    }
}

/// What a stage is to a person, if it is anything.
fn news(change: &KeyChange, actor: &str) -> Option<(NoticeKind, String)> {
    let (role, resource, other) = (change.role, &change.resource, change.role.other());
    let (kind, message) = match change.stage {
        KeyStage::Checking => (NoticeKind::KeyReplacing, begun(change, actor)),
        KeyStage::Regenerate => (
            NoticeKind::KeyReplaceable,
            format!(
                "The {role} key of {resource} may be regenerated now: every consumer that can be reached \
                 holds another token. `renewd key status {resource}` shows the command."
            ),
        ),
        KeyStage::Done => (
            NoticeKind::KeyReplaced,
            format!("The {role} key of {resource} is replaced: the new one works."),
        ),
        KeyStage::Refused => (
            NoticeKind::KeyKept,
            format!(
                "The {role} key of {resource} is not replaced: {}.",
                change
                    .trouble
                    .as_deref()
                    .unwrap_or("the other key does not work")
            ),
        ),
        KeyStage::Cancelled => (
            NoticeKind::KeyKept,
            format!(
                "{actor} called the replacement of the {role} key of {resource} off. What the {other} key \
                 minted stays."
            ),
        ),
        KeyStage::Reminting | KeyStage::Replace => return None,
    };
    Some((kind, message))
}

fn begun(change: &KeyChange, actor: &str) -> String {
    let (role, resource, other) = (change.role, &change.resource, change.role.other());
    let what = match change.work {
        KeyWork::Roll => "It may be regenerated when they are delivered, not before.",
        KeyWork::Leak => {
            "Somebody else has it; it may be regenerated when they are delivered, not before."
        }
        KeyWork::LeakNow => {
            "Somebody else has it: regenerate it at once; consumers are without a live token until \
             their new one arrives."
        }
    };
    let reason = change.reason.as_ref();
    let reason = reason.map_or(String::new(), |reason| format!(" Reason: {reason}."));
    format!(
        "{actor} replaces the {role} key of {resource}: the {other} key mints its tokens anew. {what}{reason}"
    )
}

fn notice(change: &KeyChange, kind: NoticeKind, message: String, at: Timestamp) -> Notice {
    Notice {
        at,
        kind,
        resource: Some(change.resource.clone()),
        name: None,
        key: Some(format!("key {} {}", change.resource, change.role)),
        message,
    }
}
