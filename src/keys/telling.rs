//! What people are told of keys in doubt, in sentences.

use super::Keys;
use crate::model::{
    KeyDoubt, KeyRole, Notice, NoticeKind, ResourceName, Timestamp, short_duration,
};

impl Keys {
    /// Tokens are in doubt and are minted anew by another key.
    pub(super) fn doubtful(&self, doubt: &KeyDoubt, by: KeyRole) -> Notice {
        let now = self.clock.now();
        let minutes = doubt.tokens as f64 / self.issues_per_minute() as f64;
        let takes = std::time::Duration::from_secs_f64((minutes * 60.0).ceil());
        let done_by = now.checked_add(takes).unwrap_or(now);
        let ends = doubt.first_end.map_or(String::new(), |end| {
            format!(" If they are good after all, the first of them ends at {end:.0}.")
        });
        let resource = &self.settings.name;
        let message = format!(
            "At {resource} {}. They are minted anew with the {by} key, most urgent first, by {done_by:.0} at the latest that the pace \
             allows ({} from now).{ends} See `renewd key status {resource}`.",
            doubt.told(),
            short_duration(takes)
        );
        notice(resource, doubt, NoticeKind::TokensDoubtful, message, now)
    }

    /// The last of them is replaced.
    pub(super) fn replaced(&self, doubt: &KeyDoubt) -> Notice {
        let resource = &self.settings.name;
        let message = format!(
            "No token of {} of {resource} is in use any more: all are minted anew.",
            doubt.key()
        );
        notice(
            resource,
            doubt,
            NoticeKind::TokensReplaced,
            message,
            self.clock.now(),
        )
    }

    /// The key is accepted again.
    pub(super) fn accepted_again(&self, doubt: &KeyDoubt) -> Notice {
        let resource = &self.settings.name;
        let message = format!(
            "{resource} accepts {} again: the {} that it minted and that were not replaced yet are good, and keep \
             their own time.",
            doubt.key(),
            tokens(doubt.tokens)
        );
        notice(
            resource,
            doubt,
            NoticeKind::TokensReplaced,
            message,
            self.clock.now(),
        )
    }
}

fn tokens(count: u64) -> String {
    format!("{count} {}", if count == 1 { "token" } else { "tokens" })
}

fn notice(
    resource: &ResourceName,
    doubt: &KeyDoubt,
    kind: NoticeKind,
    message: String,
    at: Timestamp,
) -> Notice {
    Notice {
        at,
        kind,
        resource: Some(resource.clone()),
        name: None,
        key: Some(format!("doubt {resource} {}", doubt.fingerprint)),
        message,
    }
}
