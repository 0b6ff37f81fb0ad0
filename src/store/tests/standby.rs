//! What a node answers, from its database or from its mirror: never anything older than what it has answered, whatever is
//! cut, killed or lost in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{journal::Pair, *};

const NAMES: [&str; 2] = ["anna", "bert"];
const CLUSTER: &str = "tests";

#[derive(Debug, Clone)]
enum Happening {
    /// The other node notes something of an identity, or this one does.
    Issue(usize),
    Step {
        row: usize,
        step: Step,
        here: bool,
    },
    /// This node is asked by one of its queries.
    Ask(usize),
    /// The same while the database is away.
    AskAway(usize),
    /// This node looks what changed.
    Heed,
    /// This node ends, by a signal or not, and starts while the database is away.
    End {
        signal: bool,
        ask: usize,
    },
    /// A standby has everything up to now.
    Copy,
    /// That one takes the place of the database.
    FailOver,
    /// A node takes up what was lost.
    Follow(usize),
}

fn happenings() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let step = prop_oneof![
        Just(Step::Withhold),
        Just(Step::Release),
        Just(revoked(0, Then::Reissue)),
    ];
    prop_oneof![
        6 => (0..2_usize).prop_map(H::Issue),
        3 => (0..2_usize, step, any::<bool>()).prop_map(|(row, step, here)| H::Step { row, step, here }),
        6 => (0..QUERIES).prop_map(H::Ask),
        6 => (0..QUERIES).prop_map(H::AskAway),
        3 => Just(H::Heed),
        2 => (any::<bool>(), 0..QUERIES).prop_map(|(signal, ask)| H::End { signal, ask }),
        2 => Just(H::Copy),
        2 => Just(H::FailOver),
        2 => (0..2_usize).prop_map(H::Follow),
    ]
}

const QUERIES: usize = 6;

/// What is said of each identity: its version, and whether the token of that was revoked, where the query tells it.
type Said = Vec<(String, (Version, Option<bool>))>;

/// What this node says to one of its queries.
async fn asked(store: &Store, query: usize) -> Said {
    let names: Vec<Name> = NAMES.iter().map(|one| name(one)).collect();
    let of = |record: Record| {
        let revoked = Some(record.revoked);
        (record.spec.name.to_string(), (record.version, revoked))
    };
    match query {
        0 => {
            let led = store.led_to(names).await.unwrap();
            let there = led.into_iter().filter_map(|led| match led {
                Led::There(record) => Some(of(*record)),
                Led::Nowhere(_) => None,
            });
            there.collect()
        }
        1 => {
            let held = store.holdings(names).await.unwrap();
            held.into_iter().map(|one| of(one.record)).collect()
        }
        2 => {
            let listed = store.list(None, 10).await.unwrap();
            listed.into_iter().map(of).collect()
        }
        3 => {
            let record = store.record(&names[0]).await.unwrap();
            record.into_iter().map(of).collect()
        }
        4 => {
            let page = store.holdings_page(None, 10).await.unwrap();
            page.into_iter().map(|one| of(one.record)).collect()
        }
        _ => {
            let mut said = Said::new();
            for one in &names {
                if let Some(record) = store.record(one).await.unwrap()
                    && let Some(found) = store.consignment(record.num).await.unwrap()
                {
                    let revoked = found.document.token.is_some().then_some(found.revoked);
                    said.push((one.to_string(), (found.document.version, revoked)));
                }
            }
            said
        }
    }
}

/// Two nodes on one database, and what the second has answered.
struct Asked {
    pair: Pair,
    now: i64,
    has_standby: bool,
    answered: BTreeMap<String, (Version, bool)>,
}

impl Asked {
    async fn new() -> Self {
        let pair = Pair::new();
        let specs = NAMES.map(|one| with_id(one, &format!("8:acs:{one}")));
        declare(pair.node(0), &specs, 0).await;
        pair.node(1).keep_mirror(CLUSTER);
        pair.node(1).heed_others(at(1)).await.unwrap();
        Self {
            pair,
            now: 10,
            has_standby: false,
            answered: BTreeMap::new(),
        }
    }

    fn heard(&mut self, said: Said, how: &str) {
        for (who, (version, revoked)) in said {
            let before = self.answered.entry(who.clone()).or_insert((version, false));
            let same = before.0 == version;
            let told = (version, revoked.unwrap_or(same && before.1));
            assert!(told >= *before, "{who}: {told:?} after {before:?} {how}");
            *before = told;
        }
    }

    async fn ask_away(&mut self, query: usize) {
        let store = self.pair.node(1);
        store.database_is_silent("cut", at(self.now));
        let said = asked(store, query).await;
        store.database_answers();
        self.heard(said, "from the mirror");
    }

    async fn happen(&mut self, happening: Happening) {
        // Now and then several things happen within a second.
        self.now += i64::from(!matches!(happening, Happening::Issue(0)));
        let now = self.now;
        match happening {
            Happening::Issue(row) => {
                self.pair.follow(0, now).await;
                let num = get(self.pair.node(0), NAMES[row]).await.num;
                commit(self.pair.node(0), issued(num, now, None), now).await;
            }
            Happening::Step {
                row,
                step: on,
                here,
            } => {
                let n = usize::from(here);
                self.pair.follow(n, now).await;
                let on = match on {
                    Step::Revoked { then, .. } => Step::Revoked { at: at(now), then },
                    other => other,
                };
                let num = get(self.pair.node(0), NAMES[row]).await.num;
                step(self.pair.node(n), num, on, now).await;
            }
            Happening::Ask(query) => {
                let said = asked(self.pair.node(1), query).await;
                self.heard(said, "from the database");
            }
            Happening::AskAway(query) => self.ask_away(query).await,
            Happening::Heed => self.pair.node(1).heed_others(at(now)).await.unwrap(),
            Happening::End { signal, ask } => self.end(signal, ask).await,
            Happening::Copy => {
                self.pair.copy();
                self.has_standby = true;
            }
            Happening::FailOver if self.has_standby => self.pair.fail_over(),
            Happening::FailOver => {}
            Happening::Follow(n) => _ = self.pair.follow(n, now).await,
        }
    }

    async fn end(&mut self, signal: bool, ask: usize) {
        if signal {
            self.pair.node(1).end_mirror(at(self.now)).await;
        }
        self.pair.leave(1);
        let (settings, dir) = self.pair.place(1);
        let alone = Store::of_mirror((&settings, &dir), CLUSTER, "cut", at(self.now)).unwrap();
        let said = asked(&alone.unwrap(), ask).await;
        self.heard(said, "after a start from the mirror");
        self.pair.back(1);
        self.pair.node(1).keep_mirror(CLUSTER);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_version_that_a_node_answers_is_older_than_one_that_it_has_answered(
        happenings in proptest::collection::vec(happenings(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut node = Asked::new().await;
            for happening in happenings {
                node.happen(happening).await;
            }
            for query in 0..QUERIES {
                node.ask_away(query).await;
            }
        });
    }
}

#[tokio::test]
async fn what_a_node_answered_and_the_database_lost_begins_anew_above_it() {
    let mut node = Asked::new().await;
    node.happen(Happening::Issue(0)).await;
    node.happen(Happening::Copy).await;
    node.happen(Happening::Issue(0)).await;
    node.happen(Happening::Ask(1)).await;
    let answered = node.answered["anna"].0;
    node.happen(Happening::FailOver).await;
    assert!(get(node.pair.node(0), "anna").await.version < answered);

    // Until that is taken up, this node says what it has said.
    node.happen(Happening::Ask(1)).await;
    assert_eq!(node.answered["anna"].0, answered);
    node.happen(Happening::Heed).await;
    assert!(node.pair.node(1).files_are_behind().await.unwrap());
    node.happen(Happening::Follow(1)).await;
    assert!(get(node.pair.node(0), "anna").await.version > answered);
    node.happen(Happening::Heed).await;
    assert!(!node.pair.node(1).files_are_behind().await.unwrap());
    let told = node.pair.node(0).latest_notices(5).await.unwrap();
    assert!(
        told.iter()
            .any(|(_, told)| told.message.contains("web-2 has answered newer versions")),
        "{told:?}"
    );
}

#[tokio::test]
async fn only_one_process_serves_a_mirror() {
    let mut pair = Pair::new();
    declare(pair.node(0), &[with_id("bot", "8:acs:bot")], 0).await;
    pair.node(1).keep_mirror(CLUSTER);
    pair.node(1).heed_others(at(1)).await.unwrap();
    let (settings, dir) = pair.place(1);
    let begin = || Store::of_mirror((&settings, &dir), CLUSTER, "cut", at(2));
    assert!(matches!(begin(), Err(OpenError::Locked { .. })));
    pair.leave(1);
    let first = begin().unwrap().unwrap();
    assert!(matches!(begin(), Err(OpenError::Locked { .. })));
    assert!(first.record(&name("bot")).await.unwrap().is_some());
    drop(first);
    assert!(begin().unwrap().is_some());
}

#[tokio::test]
async fn a_mirror_whose_clock_was_set_back_is_no_younger_than_its_start() {
    let mut pair = Pair::new();
    declare(pair.node(0), &[with_id("bot", "8:acs:bot")], 0).await;
    pair.node(1).keep_mirror(CLUSTER);
    pair.node(1).heed_others(at(100)).await.unwrap();
    pair.leave(1);
    let (settings, dir) = pair.place(1);
    let alone = Store::of_mirror((&settings, &dir), CLUSTER, "cut", at(50)).unwrap();
    let away = alone.unwrap().away().unwrap();
    assert_eq!(away.age(at(60)), Some(Duration::from_secs(10)));
}
