//! What must hold at any time in a world of three machines, whatever happened there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::SignedDuration;
use renewd::{
    model::{Name, NodeName, Record, State},
    store::Holding,
};

use super::{IDENTITIES, Span, machine::Node};

/// A machine that reaches everything leads after so long, and has renewed what had died.
pub(super) const BACK: Duration = Duration::from_secs(75);
/// After a hold, a machine that reaches the database serves its token so much longer than between two of its looks at
/// most: one question is on its way.
const ON_THE_WAY: Duration = Duration::from_secs(12);

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Promises {
    versions: BTreeMap<Name, u64>,
    /// The highest version that each machine has answered.
    answered: BTreeMap<(usize, Name), u64>,
    /// Who is held, since when, and by which machine's word.
    held: BTreeMap<usize, (Duration, usize)>,
    /// Which machine knows of whose hold: it reached the database for long enough since.
    known: BTreeSet<(usize, usize)>,
    /// When each was released last.
    released: BTreeMap<usize, Duration>,
}

impl Promises {
    pub(super) fn is_held(&self, who: usize) -> bool {
        self.held.contains_key(&who)
    }

    pub(super) fn held(&mut self, who: usize, now: Duration, by: usize) {
        self.held.entry(who).or_insert((now, by));
    }

    pub(super) fn released(&mut self, who: usize, now: Duration) {
        self.held.remove(&who);
        self.known.retain(|(_, held)| *held != who);
        self.released.insert(who, now);
    }

    /// What the database says: no version falls, and what is held stays held.
    pub(super) fn look(&mut self, now: Duration, records: &[Record]) -> Vec<String> {
        let mut broken = Vec::new();
        for record in records {
            let (name, version) = (record.spec.name.clone(), record.version.0);
            let before = self.versions.insert(name.clone(), version).unwrap_or(0);
            if version < before {
                broken.push(format!(
                    "{now:?}: the version of {name} fell from {before} to {version}"
                ));
            }
        }
        let is_held = |who: usize| {
            let names = |record: &&Record| record.spec.name == name_of(who);
            records.iter().find(names).map(|record| record.state) == Some(State::Held)
        };
        let lost: Vec<usize> = self.held.keys().copied().filter(|n| !is_held(*n)).collect();
        for who in lost {
            broken.push(format!(
                "{now:?}: {} is held no more, and nobody released it",
                name_of(who)
            ));
        }
        broken
    }

    /// Notes which machine knows of whose hold: its own word at once, another one's after it has looked. From then on it
    /// knows it without the database too.
    pub(super) fn learn(&mut self, now: Duration, nodes: &[Node], span: Span) {
        for (who, (since, by)) in &self.held {
            for (n, node) in nodes.iter().enumerate() {
                let hears = node.hears_since.map(|hears| hears.max(*since));
                let has_looked = hears.is_some_and(|from| now >= from + span.heeds + ON_THE_WAY);
                if *by == n || has_looked {
                    self.known.insert((n, *who));
                }
            }
        }
    }

    /// What a machine answers whoever asks it: no version falls at it, and nobody is served a token whose hold it could
    /// know of.
    pub(super) fn ask(
        &mut self,
        now: Duration,
        (n, node): (usize, &NodeName),
        answered: &[Holding],
    ) -> Vec<String> {
        let mut broken = Vec::new();
        for Holding { record, document } in answered {
            let (name, version) = (&record.spec.name, document.version.0);
            let key = (n, name.clone());
            let before = self.answered.insert(key, version).unwrap_or(0);
            if version < before {
                broken.push(format!(
                    "{now:?}: {node} answered version {version} of {name} after {before}"
                ));
            }
            let held = (0..IDENTITIES).find(|who| name_of(*who) == *name);
            let knows = held.is_some_and(|who| self.known.contains(&(n, who)));
            if knows && document.token.is_some() {
                broken.push(format!(
                    "{now:?}: {node} serves the token of {name}, which is held"
                ));
            }
        }
        broken
    }

    /// Who is without a live token, although a machine has reached everything for a while.
    pub(super) fn dead(
        &self,
        now: Duration,
        records: &[Record],
        dead: &[(String, SignedDuration)],
    ) -> Vec<String> {
        let held: BTreeSet<Name> = records
            .iter()
            .filter(|record| record.state == State::Held)
            .map(|record| record.spec.name.clone())
            .collect();
        let limit = SignedDuration::try_from(BACK).unwrap();
        let is_broken = |(id, dead): &&(String, SignedDuration)| {
            let who = id.rsplit('-').next().and_then(|n| n.parse::<usize>().ok());
            let released = who.and_then(|who| self.released.get(&who));
            let excused = who.is_some_and(|who| held.contains(&name_of(who)))
                || released.is_some_and(|at| now < *at + BACK);
            !excused && *dead >= limit
        };
        let told = |(id, dead): &(String, SignedDuration)| {
            format!("{now:?}: {id} has had no live token for {dead:?}")
        };
        dead.iter().filter(is_broken).map(told).collect()
    }
}

pub(super) fn name_of(who: usize) -> Name {
    format!("bot-{who:02}").parse().unwrap()
}
