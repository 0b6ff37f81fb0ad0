//! Each promise, whether it was kept, and the numbers that say so.

use jiff::SignedDuration;

/// What the whole demo measured.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Identities that were wanted, and that the emulator says were created.
    pub(super) wanted: u64,
    pub(super) created: u64,
    pub(super) renewals: u64,
    /// The least life that was left to a token when its successor was seen.
    pub(super) tightest: Option<SignedDuration>,
    pub(super) looks: u64,
    pub(super) without: u64,
    pub(super) backwards: u64,
    /// How long the outage took, how many calls it broke, how many looks at files fell in it.
    pub(super) outage: SignedDuration,
    pub(super) broken_calls: u64,
    pub(super) outage_looks: u64,
    pub(super) outage_without: u64,
    /// From the revocation at the emulator to a live token in the file.
    pub(super) gap: Option<SignedDuration>,
    pub(super) events: u64,
    pub(super) bad_events: u64,
    /// Identities whose newest event carries the version of their file.
    pub(super) in_step: u64,
    /// How the daemon ended; `None` where it goes on.
    pub(super) ended: Option<bool>,
}

/// What was promised, and what was seen of it.
#[derive(Debug)]
pub struct Promise {
    /// Whether it was kept.
    pub kept: bool,
    /// The promise.
    pub what: &'static str,
    /// What was seen.
    pub seen: String,
}

impl Facts {
    /// Each promise, and whether these facts keep it.
    pub(super) fn promises(&self) -> Vec<Promise> {
        let all = [created, ahead, living, outage, revocation, newest];
        all.iter()
            .map(|promise| promise(self))
            .chain(self.ended.map(end))
            .collect()
    }
}

fn created(of: &Facts) -> Promise {
    Promise {
        kept: of.created == of.wanted,
        what: "nobody is created twice",
        seen: format!("{} wanted, {} created", of.wanted, of.created),
    }
}

fn ahead(of: &Facts) -> Promise {
    let spare = of.tightest.unwrap_or_default();
    let left = secs(spare);
    Promise {
        kept: of.renewals >= 2 * of.wanted && spare.is_positive(),
        what: "renewed ahead of expiry",
        seen: format!("{} renewals, the tightest with {left} left", of.renewals),
    }
}

fn living(of: &Facts) -> Promise {
    Promise {
        kept: of.looks > 0 && of.without == 0,
        what: "a live token at every instant",
        seen: format!(
            "{} looks at {} files, {} without one",
            of.looks, of.wanted, of.without
        ),
    }
}

fn outage(of: &Facts) -> Promise {
    let (length, calls) = (secs(of.outage), of.broken_calls);
    let (looks, without) = (of.outage_looks, of.outage_without);
    Promise {
        kept: of.broken_calls > 0 && of.outage_looks > 0 && of.outage_without == 0,
        what: "an outage of ACS is not ours",
        seen: format!("{length}, {calls} calls broken, {without} of {looks} looks without a token"),
    }
}

fn revocation(of: &Facts) -> Promise {
    let seen = match of.gap {
        Some(gap) => format!("a new token in the file {} ms after it", gap.as_millis()),
        None => "no live token came back".to_owned(),
    };
    Promise {
        kept: of.gap.is_some(),
        what: "a revocation leaves a short gap",
        seen,
    }
}

fn newest(of: &Facts) -> Promise {
    let (events, bad, in_step) = (of.events, of.bad_events, of.in_step);
    Promise {
        kept: events > 0 && bad == 0 && in_step == of.wanted && of.backwards == 0,
        what: "every consumer has the newest",
        seen: format!(
            "{events} webhooks verified, {bad} refused; {in_step} of {} as their file",
            of.wanted
        ),
    }
}

fn end(kept: bool) -> Promise {
    let how = if kept {
        "ended with 0"
    } else {
        "did not end with 0"
    };
    Promise {
        kept,
        what: "SIGTERM is a clean end",
        seen: format!("the daemon {how}"),
    }
}

fn secs(duration: SignedDuration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            wanted: 5,
            created: 5,
            renewals: 15,
            tightest: Some(SignedDuration::from_millis(4100)),
            looks: 1500,
            outage: SignedDuration::from_secs(6),
            broken_calls: 9,
            outage_looks: 300,
            gap: Some(SignedDuration::from_millis(41)),
            events: 21,
            in_step: 5,
            ended: Some(true),
            ..Facts::default()
        }
    }

    #[test]
    fn a_good_run() {
        let promises = good().promises();
        assert!(promises.iter().all(|promise| promise.kept));
        let lines = promises.iter().map(|p| format!("{}: {}\n", p.what, p.seen));
        insta::assert_snapshot!(lines.collect::<String>());
    }

    #[test]
    fn each_promise_can_be_broken() {
        let broken: [fn(&mut Facts); 13] = [
            |f| f.created = 6,
            |f| f.renewals = 3,
            |f| f.tightest = Some(SignedDuration::from_secs(-1)),
            |f| f.without = 1,
            |f| f.looks = 0,
            |f| f.broken_calls = 0,
            |f| f.outage_looks = 0,
            |f| f.outage_without = 1,
            |f| f.gap = None,
            |f| f.bad_events = 1,
            |f| f.in_step = 4,
            |f| f.backwards = 1,
            |f| f.ended = Some(false),
        ];
        for (number, spoil) in broken.iter().enumerate() {
            let mut facts = good();
            spoil(&mut facts);
            let kept = facts.promises().iter().all(|promise| promise.kept);
            assert!(!kept, "fact {number}");
        }
    }
}
