//! What a renewer tells of the bearer of its resource: that none is to be had, until when the one in hand lasts, and
//! that it is refused, with what can be done. One notice at each end, and one more where the cause becomes another.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{Moment, OPERATIONS, Renewer};
use crate::{
    model::{BearerCause, Notice, NoticeKind, ResourceName, short_duration},
    schedule::Outage,
};

/// While a bearer is in hand, it is told only of an outage that lasts so long.
const LASTING: Duration = Duration::from_mins(5);

impl Renewer {
    /// Takes over what an earlier process told.
    pub(super) fn restore_bearer_outages(
        &mut self,
        told: &BTreeMap<String, NoticeKind>,
        now: Moment,
    ) {
        let resource = &self.settings.name;
        let is_told = |kind| told.contains_key(&key(kind, resource));
        if is_told(NoticeKind::EntraUnreachable) {
            self.bearer_outage = Outage::inherited(now.steady);
        }
        if is_told(NoticeKind::EntraRefused) {
            self.bearer_refusal = Outage::inherited(now.steady);
        }
    }

    pub(super) async fn tell_bearer(&mut self, now: Moment) {
        let view = self.client.bearer_view();
        let in_hand = view.as_ref().and_then(|view| view.ends);
        let trouble = view.and_then(|view| view.trouble);
        let (outage, refusal) = match trouble {
            Some(trouble) if trouble.cause.is_outage() => (Some(trouble), None),
            other => (None, other),
        };
        let has_keys = self.client.bearers().is_none();
        if has_keys || in_hand.is_some() && outage.is_none() && refusal.is_none() {
            self.bearer_outage.heard();
        }
        if has_keys {
            self.bearer_refusal.heard();
        }
        let outage = outage.filter(|outage| {
            let lasting = outage.since.checked_add(LASTING);
            in_hand.is_none() || lasting.is_ok_and(|at| at <= now.wall)
        });
        let because = outage.map(|outage| outage.told);
        self.tell_hold(NoticeKind::EntraUnreachable, because, now)
            .await;
        let refused = match refusal {
            Some(refusal) if !is_by_acs(refusal.cause) => Some((refusal.cause, refusal.told)),
            by_acs => self.refused_by_acs(by_acs.map(|refusal| refusal.cause)),
        };
        self.tell_refusal(refused, now).await;
    }

    /// That ACS refuses the bearer is known once it holds an operation.
    fn refused_by_acs(&self, cause: Option<BearerCause>) -> Option<(BearerCause, String)> {
        self.client.bearers()?;
        let because = self.permits.gate().refusal(&OPERATIONS)?.to_owned();
        Some((cause.unwrap_or(BearerCause::MissingRole), because))
    }

    async fn tell_refusal(&mut self, refused: Option<(BearerCause, String)>, now: Moment) {
        let (cause, because) = refused.unzip();
        let before = std::mem::replace(&mut self.bearer_cause, cause);
        let other = before.is_some() && cause.is_some() && before != cause;
        match because {
            Some(because) if other && self.bearer_refusal.is_announced() => {
                let kind = NoticeKind::EntraRefused;
                let notice = self.without_new_bearer(kind, &because, "", now.wall);
                tracing::error!(resource = %self.settings.name, "{}", notice.message);
                self.raise(notice);
            }
            because => self.tell_hold(NoticeKind::EntraRefused, because, now).await,
        }
    }

    /// The beginning of an outage of whoever gives bearers, or of a refusal.
    pub(super) fn without_new_bearer(
        &self,
        kind: NoticeKind,
        because: &str,
        survival: &str,
        at: Timestamp,
    ) -> Notice {
        let resource = &self.settings.name;
        let in_hand = self.client.bearer_view().and_then(|view| view.ends);
        let lasts = match in_hand {
            Some(ends) => {
                let left = ends.duration_since(at).try_into().unwrap_or_default();
                let left = short_duration(left);
                format!(
                    "The bearer in hand lasts until {ends:.0} ({left} from now), and calls go on until then."
                )
            }
            None => format!("Without one no token is obtained. {survival}"),
        };
        let cause = self
            .bearer_cause
            .filter(|_| kind == NoticeKind::EntraRefused);
        let message = match cause {
            None => format!("There is no new bearer for {resource} ({because}). {lasts}"),
            Some(cause) if is_by_acs(cause) => format!(
                "{resource} does not take the bearer that Entra ID gives ({because}). {} {survival}",
                cause.remedy(resource)
            ),
            Some(cause) => format!(
                "There is no new bearer for {resource} ({because}). {} {lasts}",
                cause.remedy(resource)
            ),
        };
        let notice = Notice::new(kind, at, message.trim_end()).about(resource);
        notice.keyed(key(kind, resource))
    }
}

/// Under which key it is told.
pub(super) fn key(kind: NoticeKind, resource: &ResourceName) -> String {
    let word = match kind {
        NoticeKind::EntraRefused => "bearer",
        _ => "entra",
    };
    format!("{word} {resource}")
}

/// Whether ACS refuses, not whoever gives bearers.
fn is_by_acs(cause: BearerCause) -> bool {
    matches!(cause, BearerCause::MissingRole | BearerCause::Challenged)
}

/// The end of either; a resource that was given access keys meanwhile needs none.
pub(super) fn recovered(
    resource: &ResourceName,
    kind: NoticeKind,
    (has_keys, survival): (bool, &str),
    at: Timestamp,
) -> Notice {
    let message = match kind {
        _ if has_keys => format!("{resource} is called with access keys, and needs no bearer."),
        NoticeKind::EntraRefused => {
            format!("{resource} takes the bearer of Entra ID again. {survival}")
        }
        _ => format!("There is a new bearer for {resource} again. {survival}"),
    };
    let notice = Notice::new(NoticeKind::EntraRecovered, at, message).about(resource);
    notice.keyed(key(kind, resource))
}
