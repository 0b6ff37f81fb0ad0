//! The closing table: each promise, whether it was kept, and the numbers that say so.

use jiff::SignedDuration;

use super::super::{
    output::{BAD, DIM, GOOD, paint},
    table::{Cell, Table},
};

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

/// One line of the table.
struct Promise {
    kept: bool,
    what: &'static str,
    seen: String,
}

/// The table, and whether every promise was kept.
pub(super) fn render(of: &Facts, width: Option<usize>) -> (String, bool) {
    let promises = promises(of);
    let mut table = Table::new(&["", "PROMISE", "SEEN"]);
    for promise in &promises {
        let mark = if promise.kept {
            Cell::styled("✓", GOOD)
        } else {
            Cell::styled("✗", BAD)
        };
        table.row([mark, promise.what.into(), promise.seen.as_str().into()]);
    }
    let broken = promises.iter().filter(|promise| !promise.kept).count();
    let verdict = match broken {
        0 => paint(GOOD, "every promise was kept"),
        _ => paint(BAD, format!("{broken} of {} promises were broken", promises.len())),
    };
    let text = format!("{}\n{} {verdict}\n", table.render(1, width), paint(DIM, " "));
    (text, broken == 0)
}

fn promises(of: &Facts) -> Vec<Promise> {
    let spare = of.tightest.unwrap_or_default();
    let mut promises = vec![
        Promise {
            kept: of.created == of.wanted,
            what: "nobody is created twice",
            seen: format!("{} wanted, {} created", of.wanted, of.created),
        },
        Promise {
            kept: of.renewals >= 2 * of.wanted && spare.is_positive(),
            what: "renewed ahead of expiry",
            seen: format!("{} renewals, the tightest with {} left", of.renewals, secs(spare)),
        },
        Promise {
            kept: of.looks > 0 && of.without == 0,
            what: "a live token at every instant",
            seen: format!("{} looks at {} files, {} without one", of.looks, of.wanted, of.without),
        },
        Promise {
            kept: of.broken_calls > 0 && of.outage_looks > 0 && of.outage_without == 0,
            what: "an outage of ACS is not ours",
            seen: format!(
                "{} of it, {} calls broken, {} of {} looks without a live token",
                secs(of.outage), of.broken_calls, of.outage_without, of.outage_looks
            ),
        },
        Promise {
            kept: of.gap.is_some(),
            what: "revoked means revoked, and a new one at once",
            seen: of.gap.map_or_else(
                || "no live token came back".to_owned(),
                |gap| format!("from the revocation to a live token in the file: {} ms", gap.as_millis()),
            ),
        },
        Promise {
            kept: of.events > 0 && of.bad_events == 0 && of.in_step == of.wanted && of.backwards == 0,
            what: "every consumer has the newest",
            seen: format!(
                "{} webhooks, {} refused; {} of {} in step with their file",
                of.events, of.bad_events, of.in_step, of.wanted
            ),
        },
    ];
    promises.extend(of.ended.map(|kept| Promise {
        kept,
        what: "SIGTERM is a clean end",
        seen: if kept { "the daemon ended with 0" } else { "the daemon did not end with 0" }.to_owned(),
    }));
    promises
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
        let (text, kept) = render(&good(), None);
        assert!(kept);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
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
            assert!(!render(&facts, None).1, "fact {number}");
        }
    }
}
