//! Whom failures are about: the resource, or the one row that was asked for.
//!
//! A row that fails while others succeed says nothing of the resource, and one that fails while
//! others fail says nothing of itself. So what is concluded of the resource needs failures of two
//! different rows without a success between them, none of which is known to fail alone; and what is
//! concluded of a row needs a run of failures that a row like the others would hardly ever see.
//!
//! Every call costs one look into a map of the rows that fail at the moment; nothing else is kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Num;

/// So many failures in a row, and nothing but probes goes out.
const UNANSWERED: usize = 3;
/// Where a harmless call was answered meanwhile, so many different rows have to fail.
const DESPITE_PROOF: usize = 4;
/// So many harmless calls have to be answered before it counts as a row's own fault that it alone is refused.
const VOUCHED: u64 = 2;
/// Where one that was refused succeeds by itself, the service refuses at random: before so many others have
/// succeeded no refusal counts as anybody's own fault.
const RANDOM: u32 = 20;
/// A row is known to fail by itself where a row like the others would see such a run of failures once
/// in a hundred million times.
const CHANCE: f64 = 1e-8;
/// Before others were seen, a failure is expected of one call in five, as if two and a half had been.
const EXPECTED_FAILED: f64 = 0.5;
const EXPECTED_OK: f64 = 2.0;
/// Failures of one run that are looked at, and rows that are remembered, at most.
const LONGEST_RUN: u32 = 200;
const MOST_RUNS: usize = 16_384;
const LONGEST_STREAK: usize = 32;

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// No connection came about: it is about the resource, whoever was asked for.
    Unconnected,
    /// No answer, an unreadable one, or a fault of the service.
    Unanswered,
    /// 403, or a 401 that does not blame the key by itself.
    Forbidden,
    /// The service understood and said no.
    Refused,
    /// 429, although others succeed since it was first said to this row.
    Throttled,
}

/// What a failure adds up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sign {
    /// It is about the resource.
    pub(super) trips: bool,
    /// Rows whose failures had led there: they are taken back.
    pub(super) excused: Vec<Num>,
    /// How likely a row like the others would have seen such a run of failures.
    pub(super) chance: f64,
    /// So it is about the row.
    pub(super) own: bool,
    /// Others have succeeded since the row began to fail.
    pub(super) others_succeed: bool,
    /// Others have failed as well.
    pub(super) others_fail: bool,
    /// The share of their first attempts that did.
    pub(super) rate: f64,
}

/// What is known of the rows of one operation.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    successes: u64,
    /// First attempts: of those that fail, retries say the same over and over.
    tally: Tally,
    /// Rows that failed and have not succeeded since.
    runs: BTreeMap<Num, Run>,
    unanswered: Streak,
    forbidden: Streak,
    /// Rows that were refused and have not succeeded since.
    refused: BTreeMap<Num, Refusal>,
    /// Harmless calls that were answered to find out about those.
    vouched: u64,
    /// So many have to succeed before refusals count again.
    random: u32,
    /// Rows were refused while nobody succeeded.
    hushed: bool,
    /// Rows that failed while the gate was shut.
    accused: BTreeSet<Num>,
    /// Rows that were answered 429 and have not succeeded since; with more successes of others than so
    /// many, it is about the row.
    throttled: BTreeMap<Num, u64>,
}

/// What is known of a row that is refused.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    /// Harmless calls that had been answered when it began.
    vouched: u64,
    /// Since its last attempt a harmless call failed as well: there is no point in another one.
    closed: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    ok: u64,
    failed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    failures: u32,
    /// Successes of others before it.
    successes: u64,
    before: Tally,
    failing: bool,
}

/// Failures without a success between them, newest last.
#[derive(Debug, Clone, Default)]
struct Streak {
    failures: Vec<Witness>,
    /// A harmless call was answered after the first so many.
    vouched: usize,
    was_vouched: bool,
}

#[derive(Debug, Clone, Copy)]
struct Witness {
    who: Num,
    /// Nobody else has succeeded since it began to fail.
    weighs: bool,
    unconnected: bool,
}

impl Evidence {
    /// A call for this row succeeded. True when the row was known to fail by itself.
    pub(super) fn succeeded(&mut self, who: Num) -> bool {
        let run = self.runs.remove(&who);
        self.throttled.remove(&who);
        self.accused.remove(&who);
        let by_itself = run.is_none_or(|run| !run.failing);
        self.random = match self.refused.remove(&who) {
            Some(_) if by_itself => RANDOM,
            _ => self.random.saturating_sub(1),
        };
        self.heard_well();
        if run.is_none_or(|run| run.failures == 0) {
            self.tally.ok += 1;
        }
        self.unanswered = Streak::default();
        self.forbidden = Streak::default();
        run.is_some_and(|run| run.failing)
    }

    /// A call for this row failed while the gate was open.
    pub(super) fn failed(&mut self, who: Num, kind: FailureKind) -> Sign {
        let weighs = !self.is_suspect(who);
        if kind == FailureKind::Refused && weighs {
            // The service answers.
            self.unanswered = Streak::default();
        }
        self.hushed |= kind == FailureKind::Refused && weighs;
        if kind == FailureKind::Refused {
            self.was_refused(who).closed = false;
        }
        let mut sign = match kind {
            FailureKind::Unconnected => Sign {
                chance: 1.0,
                ..Sign::default()
            },
            _ => self.count(who),
        };
        let failing = self.runs.get(&who).is_some_and(|run| run.failing);
        let Some(streak) = self
            .streak(kind)
            .filter(|_| !failing || kind == FailureKind::Unconnected)
        else {
            return sign;
        };
        streak.push(Witness {
            who,
            weighs,
            unconnected: kind == FailureKind::Unconnected,
        });
        let least = match kind {
            FailureKind::Forbidden => 2,
            _ => UNANSWERED,
        };
        if streak.trips(least) {
            sign.trips = true;
            sign.own = false;
            sign.excused = self.concluded(kind);
        }
        sign
    }

    /// Somebody is served: those that failed meanwhile are no witnesses any more until they succeed.
    fn heard_well(&mut self) {
        for other in std::mem::take(&mut self.accused) {
            let run = self.begun();
            self.runs.entry(other).or_insert(run);
        }
        self.successes += 1;
    }

    /// A call for this row was answered 429, beside so many that are on their way. Whether that may be about
    /// the resource: not where others have succeeded since it was first said to this row, nor where the row is
    /// known to fail by itself, as an earlier process may have found out.
    pub(super) fn throttled(&mut self, who: Num, in_flight: usize) -> bool {
        if self.runs.get(&who).is_some_and(|run| run.failing) {
            return false;
        }
        // What was on its way may succeed and tells nothing.
        let silent_until = self.successes + in_flight as u64;
        if self.throttled.len() >= MOST_RUNS && !self.throttled.contains_key(&who) {
            return true;
        }
        self.successes <= *self.throttled.entry(who).or_insert(silent_until)
    }

    /// A call for this row failed while the gate was shut: that counts against nobody, but where
    /// another succeeds after that, it is not the resource.
    pub(super) fn accuse(&mut self, who: Num) {
        if self.accused.len() < MOST_RUNS {
            self.accused.insert(who);
        }
    }

    /// An earlier process found out that it fails by itself.
    pub(super) fn knows_failing(&mut self, who: Num) {
        let begun = self.begun();
        self.runs.entry(who).or_insert(begun).failing = true;
    }

    /// Somebody succeeds. True when rows had been refused while nobody did.
    pub(super) fn end_hush(&mut self) -> bool {
        std::mem::take(&mut self.hushed)
    }

    /// This row was refused, by what an earlier process left at the latest.
    fn was_refused(&mut self, who: Num) -> &mut Refusal {
        let vouched = self.vouched;
        let begun = Refusal {
            vouched,
            closed: false,
        };
        if self.refused.len() >= MOST_RUNS && !self.refused.contains_key(&who) {
            self.refused.pop_first();
        }
        self.refused.entry(who).or_insert(begun)
    }

    /// Whether a harmless call could tell that it is a row's own fault that it is refused.
    pub(super) fn asks_for_vouching(&mut self, who: Num) -> bool {
        let Refusal { vouched, closed } = *self.was_refused(who);
        !closed && self.vouched < vouched + VOUCHED && self.random == 0
    }

    /// A harmless call was answered while rows are refused, or failed as well.
    pub(super) fn vouches(&mut self, answered: bool) {
        self.vouched += u64::from(answered);
        for refusal in self.refused.values_mut().filter(|_| !answered) {
            refusal.vouched = self.vouched;
            refusal.closed = true;
        }
    }

    /// Whether harmless calls were answered, often enough, since this row began to be refused, and nobody is
    /// refused at random.
    pub(super) fn is_refused_alone(&self, who: Num) -> bool {
        let refusal = self.refused.get(&who);
        let vouched = refusal.is_some_and(|one| self.vouched >= one.vouched + VOUCHED);
        vouched && self.random == 0
    }

    /// The row is no more.
    pub(super) fn forget(&mut self, who: Num) {
        self.refused.remove(&who);
        self.runs.remove(&who);
        self.accused.remove(&who);
        self.throttled.remove(&who);
    }

    /// Whether others have succeeded since this row began to fail: then it is no witness against the
    /// resource.
    pub(super) fn is_suspect(&self, who: Num) -> bool {
        self.runs
            .get(&who)
            .is_some_and(|run| run.failing || run.successes < self.successes)
    }

    /// Whether another failure of this row could tell nothing new.
    pub(super) fn has_testified(&self, who: Num) -> bool {
        let failed = |streak: &Streak| streak.failures.iter().any(|one| one.who == who);
        self.is_suspect(who) || failed(&self.unanswered) || failed(&self.forbidden)
    }

    /// What only a second witness could tell: failures since the last success, or since the last
    /// harmless call that was answered, which do not suffice by themselves.
    pub(super) fn open_question(&self) -> Option<FailureKind> {
        if self.forbidden.unvouched() > 0 {
            return Some(FailureKind::Forbidden);
        }
        // The harmless call is the third.
        (self.unanswered.unvouched() >= UNANSWERED - 1).then_some(FailureKind::Unanswered)
    }

    /// A harmless call was answered well.
    pub(super) fn vouched(&mut self) {
        self.tally.ok += 1;
        for streak in [&mut self.unanswered, &mut self.forbidden] {
            streak.vouched = streak.failures.len();
            streak.was_vouched = true;
        }
    }

    /// A harmless call was answered well while the gate was shut: whether that opens it. What is
    /// `conclusive` does; otherwise too many rows may not have failed.
    pub(super) fn vindicated(&mut self, conclusive: bool) -> bool {
        let opens = conclusive || self.accused.len() < DESPITE_PROOF;
        if opens {
            self.heard_well();
            self.tally.ok += 1;
        }
        opens
    }

    /// It is about the resource: what led there is taken back from the rows, which are returned.
    pub(super) fn concluded(&mut self, kind: FailureKind) -> Vec<Num> {
        let Some(streak) = self.streak(kind).map(std::mem::take) else {
            return Vec::new();
        };
        let mut excused = Vec::new();
        for one in streak.failures {
            self.accuse(one.who);
            if one.unconnected {
                continue;
            }
            excused.push(one.who);
            if let Some(run) = self.runs.get_mut(&one.who) {
                run.failures = run.failures.saturating_sub(1);
                if run.failures == 0 && run.successes == self.successes {
                    self.runs.remove(&one.who);
                }
            }
        }
        excused
    }

    fn streak(&mut self, kind: FailureKind) -> Option<&mut Streak> {
        match kind {
            FailureKind::Unconnected | FailureKind::Unanswered => Some(&mut self.unanswered),
            FailureKind::Forbidden => Some(&mut self.forbidden),
            FailureKind::Refused | FailureKind::Throttled => None,
        }
    }

    fn begun(&self) -> Run {
        Run {
            failures: 0,
            successes: self.successes,
            before: self.tally,
            failing: false,
        }
    }

    /// Counts a failure in the row's own run, and weighs the run against what others saw meanwhile.
    fn count(&mut self, who: Num) -> Sign {
        let mut run = self.runs.get(&who).copied().unwrap_or(self.begun());
        if run.failures == 0 {
            self.tally.failed += 1;
            run.before = self.tally;
        }
        run.failures = (run.failures + 1).min(LONGEST_RUN);
        let others = Tally {
            ok: self.tally.ok - run.before.ok,
            failed: self.tally.failed.saturating_sub(run.before.failed),
        };
        let chance = chance(run.failures, others);
        run.failing |= others.ok > 0 && chance <= CHANCE;
        if self.runs.len() < MOST_RUNS || self.runs.contains_key(&who) {
            self.runs.insert(who, run);
        }
        Sign {
            own: run.failing,
            others_succeed: others.ok > 0,
            others_fail: others.failed > 0,
            rate: others.failed as f64 / (others.failed + others.ok).max(1) as f64,
            chance,
            ..Sign::default()
        }
    }
}

impl Streak {
    fn push(&mut self, witness: Witness) {
        if self.failures.len() == LONGEST_STREAK {
            self.failures.remove(0);
            self.vouched = self.vouched.saturating_sub(1);
        }
        self.failures.push(witness);
    }

    /// Whether so many failures of different rows that may testify are about the resource.
    fn trips(&self, least: usize) -> bool {
        let unconnected = self.failures.iter().filter(|one| one.unconnected).count();
        if unconnected >= UNANSWERED {
            return true;
        }
        let weighing = self.failures.iter().filter(|one| one.weighs);
        let rows: BTreeSet<Num> = weighing.clone().map(|one| one.who).collect();
        let different = if self.was_vouched { DESPITE_PROOF } else { 2 };
        weighing.count() >= least && rows.len() >= different
    }

    fn unvouched(&self) -> usize {
        self.failures.len() - self.vouched
    }
}

/// How likely a row like the others fails so often in a row: the others' first attempts say how
/// likely one failure is, and the fewer there are, the less they say (a beta-binomial estimate).
fn chance(run: u32, others: Tally) -> f64 {
    let failed = others.failed as f64 + EXPECTED_FAILED;
    let all = failed + others.ok as f64 + EXPECTED_OK;
    (0..run)
        .map(|so_far| (failed + f64::from(so_far)) / (all + f64::from(so_far)))
        .product()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn two_rows_without_a_success_between_are_an_outage_and_one_row_is_not() {
        let mut evidence = Evidence::default();
        for _ in 0..20 {
            assert!(!evidence.failed(1, FailureKind::Unanswered).trips);
        }
        let sign = evidence.failed(2, FailureKind::Unanswered);
        assert!(sign.trips);
        assert_eq!(sign.excused.len(), 21, "what led there is taken back");
        let mut evidence = Evidence::default();
        for _ in 0..2 {
            assert!(!evidence.failed(1, FailureKind::Unconnected).trips);
        }
        let sign = evidence.failed(1, FailureKind::Unconnected);
        assert!(sign.trips && sign.excused.is_empty());
    }

    #[test]
    fn a_success_between_counts_anew() {
        let mut evidence = Evidence::default();
        for round in 0..10 {
            assert!(!evidence.failed(round * 3, FailureKind::Unanswered).trips);
            assert!(
                !evidence
                    .failed(round * 3 + 1, FailureKind::Unanswered)
                    .trips
            );
            evidence.succeeded(round * 3 + 2);
        }
    }

    #[test]
    fn rows_that_fail_while_others_succeed_never_testify_again() {
        for kind in [FailureKind::Unanswered, FailureKind::Forbidden] {
            let mut evidence = Evidence::default();
            evidence.failed(1, kind);
            evidence.succeeded(100);
            evidence.failed(2, kind);
            evidence.succeeded(101);
            for _ in 0..50 {
                assert!(!evidence.failed(1, kind).trips);
                assert!(!evidence.failed(2, kind).trips);
            }
            // But others do at once.
            evidence.failed(3, kind);
            let told = (4..7).any(|row| evidence.failed(row, kind).trips);
            assert!(told);
        }
    }

    #[test]
    fn what_failed_in_a_false_alarm_is_no_witness_for_the_next() {
        let mut evidence = Evidence::default();
        evidence.failed(1, FailureKind::Forbidden);
        assert!(evidence.failed(2, FailureKind::Forbidden).trips);
        evidence.succeeded(3);
        for _ in 0..10 {
            assert!(!evidence.failed(1, FailureKind::Forbidden).trips);
            assert!(!evidence.failed(2, FailureKind::Forbidden).trips);
        }
    }

    #[test]
    fn one_that_fails_among_others_that_do_not_is_named_soon() {
        let mut evidence = Evidence::default();
        let mut failures = 0;
        for round in 0..100 {
            (0..10).for_each(|other| _ = evidence.succeeded(100 + round * 10 + other));
            failures += 1;
            if evidence.failed(1, FailureKind::Refused).own {
                break;
            }
        }
        assert!((4..=8).contains(&failures), "{failures}");
        assert!(evidence.succeeded(1), "and it recovers");
        assert!(!evidence.succeeded(1));
    }

    #[test]
    fn a_harmless_call_that_is_answered_lifts_the_bar() {
        let mut evidence = Evidence::default();
        for _ in 0..2 {
            assert_eq!(evidence.open_question(), None);
            evidence.failed(1, FailureKind::Unanswered);
        }
        assert_eq!(evidence.open_question(), Some(FailureKind::Unanswered));
        evidence.vouched();
        assert_eq!(evidence.open_question(), None);
        assert!(!evidence.failed(2, FailureKind::Unanswered).trips);
        assert!(!evidence.failed(3, FailureKind::Unanswered).trips);
        assert!(
            evidence.failed(4, FailureKind::Unanswered).trips,
            "all fail after all"
        );
    }

    #[test]
    fn a_row_that_alone_is_answered_429_holds_nobody_up() {
        let mut evidence = Evidence::default();
        assert!(evidence.throttled(1, 5));
        (2..7).for_each(|other| _ = evidence.succeeded(other));
        assert!(
            evidence.throttled(1, 0),
            "those were on their way when it was said"
        );
        evidence.succeeded(8);
        assert!(!evidence.throttled(1, 0), "others are served, it is not");
        assert!(evidence.throttled(9, 0), "another one says so, too");
        evidence.succeeded(1);
        assert!(evidence.throttled(1, 0));
    }

    #[test]
    fn one_that_is_refused_while_harmless_calls_are_answered_is_refused_alone() {
        let mut evidence = Evidence::default();
        evidence.failed(1, FailureKind::Refused);
        for _ in 0..2 {
            assert!(evidence.asks_for_vouching(1) && !evidence.is_refused_alone(1));
            evidence.vouches(true);
        }
        assert!(evidence.is_refused_alone(1) && !evidence.asks_for_vouching(1));
        // One that fails as well says that it is somebody else, and is not repeated before the row is.
        evidence.vouches(false);
        assert!(!evidence.is_refused_alone(1) && !evidence.asks_for_vouching(1));
        evidence.failed(1, FailureKind::Refused);
        assert!(evidence.asks_for_vouching(1));
    }

    #[test]
    fn where_refusals_end_by_themselves_no_row_is_refused_alone() {
        let mut evidence = Evidence::default();
        evidence.failed(1, FailureKind::Refused);
        evidence.succeeded(1);
        evidence.failed(2, FailureKind::Refused);
        (0..5).for_each(|_| evidence.vouches(true));
        assert!(!evidence.is_refused_alone(2) && !evidence.asks_for_vouching(2));
        (10..30).for_each(|other| _ = evidence.succeeded(other));
        assert!(evidence.is_refused_alone(2), "it was long ago");
    }

    #[test]
    fn one_that_an_earlier_process_knew_to_fail_holds_nobody_up_by_429() {
        let mut evidence = Evidence::default();
        evidence.knows_failing(1);
        assert!(!evidence.throttled(1, 0));
        assert!(evidence.throttled(2, 0));
    }

    #[test]
    fn a_shut_gate_opens_by_proof_while_few_failed() {
        let mut evidence = Evidence::default();
        (0..3).for_each(|row| evidence.accuse(row));
        assert!(evidence.vindicated(false) && evidence.is_suspect(2));
        (10..14).for_each(|row| evidence.accuse(row));
        assert!(
            !evidence.vindicated(false),
            "so many do not fail by themselves"
        );
        assert!(evidence.vindicated(true));
    }

    /// Seeds that once were said to fail.
    #[test]
    fn no_row_is_to_blame_in_these_lives_either() {
        for (share, seed) in [
            (0.7416, 13_491_722_447_556_021_196),
            (0.202_518_212_083_600_5, 4_578_601_080_973_701_356),
        ] {
            assert_eq!(blamed(share, seed), None, "{share} {seed}");
        }
    }

    /// Calls that fail by chance, every row alike: the first row that is blamed.
    fn blamed(share: f64, seed: u64) -> Option<Num> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut evidence = Evidence::default();
        let mut waiting: Vec<Num> = Vec::new();
        for _ in 0..2000 {
            if waiting.is_empty() {
                waiting = (0..30).collect();
            }
            let at = rng.random_range(0..waiting.len());
            if rng.random::<f64>() >= share {
                evidence.succeeded(waiting.swap_remove(at));
            } else if evidence.failed(waiting[at], FailureKind::Refused).own {
                return Some(waiting[at]);
            }
        }
        None
    }

    proptest! {
        /// However long it lasts.
        #[test]
        fn when_all_fail_alike_no_row_is_to_blame(share in 0.1_f64..0.8, seed: u64) {
            prop_assert_eq!(blamed(share, seed), None);
        }
    }
}
