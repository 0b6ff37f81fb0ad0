//! What the courier publishes.

use super::Courier;
use crate::model::CourierView;

impl Courier {
    /// Publishes the state after a decision.
    pub(super) fn publish(&self) {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let probe_at = self.breaker.probe_at();
        self.view.send_replace(CourierView {
            decided_at: Some(now),
            // A sink that is paused keeps its files as they lie, and nobody waits for them.
            restored: self.restored || self.is_paused(),
            in_flight: self.attempts.len(),
            failures_in_row: self.breaker.failures_in_row(),
            failing_since: self.breaker.failing_since().map(|at| {
                let ago = steady.saturating_sub(at);
                now.checked_sub(ago).unwrap_or(now)
            }),
            probe_at: probe_at.map(|at| now + at.saturating_sub(steady)),
            disabled: self.disabled.as_ref().map(|d| d.why.clone()),
            paused: self.disabled.as_ref().is_some_and(|d| d.by_command),
            kind: self.sink.kind().to_owned(),
            target: self.sink.target(),
            rate: self.limit.map(|limit| limit.to_string()),
            last_error: self.counts.last_error.clone(),
            delivered: self.counts.delivered,
            failed: self.counts.failed,
        });
    }
}
