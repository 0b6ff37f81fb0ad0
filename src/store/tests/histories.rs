//! Random histories: whatever happens, in whatever order, the promises of the rows hold.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
enum Event {
    Declare {
        names: Vec<usize>,
        voip: bool,
        hook: bool,
        on_removal: OnRemoval,
    },
    On(usize, OnRow),
    Tick(i64),
    Restart,
    Prune,
}

#[derive(Debug, Clone)]
enum OnRow {
    Issue { ago: i64, create: bool },
    Fail,
    Gone,
    Step(Step),
    Deliver { hook: bool, old: bool },
    FailDelivery,
}

fn events() -> impl Strategy<Value = Event> {
    let removal = prop_oneof![
        Just(OnRemoval::Hold),
        Just(OnRemoval::Forget),
        Just(OnRemoval::Revoke)
    ];
    let names = proptest::collection::vec(0..NAMES.len(), 0..5);
    let declare = (names, any::<bool>(), any::<bool>(), removal);
    prop_oneof![
        3 => declare.prop_map(|(names, voip, hook, on_removal)| {
            Event::Declare { names, voip, hook, on_removal }
        }),
        16 => (0..NAMES.len(), on_row()).prop_map(|(row, what)| Event::On(row, what)),
        3 => (-50..200_i64).prop_map(Event::Tick),
        1 => Just(Event::Restart),
        1 => Just(Event::Prune),
    ]
}

fn on_row() -> impl Strategy<Value = OnRow> {
    let steps = prop_oneof![
        Just(Step::Withhold),
        Just(Step::Release),
        Just(Step::Due(DueReason::Requested)),
        Just(revoked(0, Then::Hold)),
        Just(revoked(0, Then::Reissue)),
        Just(Step::Deleted { at: at(0) }),
    ];
    prop_oneof![
        6 => (0..40_i64, any::<bool>()).prop_map(|(ago, create)| OnRow::Issue { ago, create }),
        1 => Just(OnRow::Fail),
        1 => Just(OnRow::Gone),
        3 => steps.prop_map(OnRow::Step),
        4 => (any::<bool>(), any::<bool>()).prop_map(|(hook, old)| OnRow::Deliver { hook, old }),
        1 => Just(OnRow::FailDelivery),
    ]
}

struct World {
    home: Home,
    now: i64,
    ids: i64,
    versions: BTreeMap<Num, Version>,
}

impl World {
    async fn happen(&mut self, event: Event) {
        match event {
            Event::Declare {
                names,
                voip,
                hook,
                on_removal,
            } => {
                let names: BTreeSet<usize> = names.into_iter().collect();
                let all = [sink("file"), sink("hook")];
                let declaration = |n: usize| Spec {
                    scopes: vec![if voip { Scope::Voip } else { Scope::Chat }],
                    // One of them is served by the socket alone now and then.
                    sinks: all[..usize::from(n > 0) + usize::from(hook)].to_vec(),
                    on_removal,
                    ..spec(NAMES[n])
                };
                let specs: Vec<Spec> = names.into_iter().map(declaration).collect();
                declare(&self.home, &specs, self.now).await;
                assert!(declare(&self.home, &specs, self.now).await.is_unchanged());
            }
            Event::On(row, what) => {
                let record = self.home.record(&name(NAMES[row])).await.unwrap();
                if let Some(record) = record {
                    self.happen_to(&record, what).await;
                }
            }
            Event::Tick(by) => self.now += by,
            Event::Restart => {
                self.home.reopen();
                assert_eq!(self.home.opened.taken_over, None);
            }
            Event::Prune => {
                self.home.prune(2, at(self.now)).await.unwrap();
            }
        }
    }

    async fn happen_to(&mut self, record: &Record, what: OnRow) {
        let (home, now, num) = (&self.home, self.now, record.num);
        let due = Due {
            at: at(now + 30),
            why: DueReason::Retry,
        };
        match what {
            OnRow::Issue { ago, create } => {
                self.ids += 1;
                let id = create.then(|| format!("8:acs:{}", self.ids));
                commit(home, issued(num, now - ago, id.as_deref()), now).await;
            }
            OnRow::Fail => {
                let attempt = attempt(now, "retry");
                commit(
                    home,
                    Change::Failed {
                        num,
                        attempt,
                        due,
                        blame: crate::model::Blame::Row,
                    },
                    now,
                )
                .await;
            }
            OnRow::Gone => {
                commit(home, said_gone(num, now, "gone 404"), now).await;
            }
            OnRow::Step(Step::Revoked { then, .. }) => {
                step(home, num, revoked(now, then), now).await;
            }
            OnRow::Step(taken) => {
                step(home, num, taken, now).await;
            }
            OnRow::Deliver { hook, old } => {
                let version = Version(record.version.0.saturating_sub(u64::from(old)));
                deliver(home, if hook { "hook" } else { "file" }, num, version).await;
            }
            OnRow::FailDelivery => {
                let failed = Settled::Failed {
                    sink: sink("file"),
                    num,
                    version: record.version,
                    next_at: due.at,
                    error: "no".to_owned(),
                };
                home.settle(vec![failed]).await.unwrap();
            }
        }
    }

    async fn check(&mut self) {
        for record in self.home.list(None, 100).await.unwrap() {
            let before = self.versions.insert(record.num, record.version);
            assert!(
                before.is_none_or(|before| before <= record.version),
                "backwards: {record:?}"
            );
            let document = self.home.document(record.num).await.unwrap().unwrap();
            assert_eq!(document.version, record.version);
            assert_eq!(
                document.token.is_some(),
                record.state == State::Active,
                "{record:?}"
            );
            assert_eq!(
                record.due.is_some(),
                record.state.wants_token(),
                "{record:?}"
            );
            for delivery in self.home.deliveries_of(record.num).await.unwrap() {
                assert_eq!(delivery.wanted, record.version, "{delivery:?}");
                assert!(delivery.delivered <= delivery.wanted);
            }
        }
        self.counters_agree().await;
    }

    /// Every counter equals a recount.
    async fn counters_agree(&self) {
        for disagreeing in [
            "SELECT count(*) FROM (SELECT resource, state, n FROM identity_count WHERE n <> 0 \
             EXCEPT SELECT resource, state, count(*) FROM identity GROUP BY 1, 2)",
            "SELECT count(*) FROM (SELECT resource, state, count(*) FROM identity GROUP BY 1, 2 \
             EXCEPT SELECT resource, state, n FROM identity_count)",
            "SELECT count(*) FROM (SELECT sink, n FROM pending_count WHERE n <> 0 \
             EXCEPT SELECT sink, count(*) FROM delivery WHERE wanted > delivered GROUP BY 1)",
            "SELECT count(*) FROM (SELECT sink, count(*) FROM delivery WHERE wanted > delivered GROUP BY 1 \
             EXCEPT SELECT sink, n FROM pending_count)",
            "SELECT (SELECT n FROM orphan_count) <> (SELECT count(*) FROM orphan)",
            "SELECT (SELECT n FROM consumer_count WHERE sink = 0) <> (SELECT count(*) FROM identity \
             WHERE by_socket AND due_at IS NOT NULL)",
            "SELECT count(*) FROM (SELECT sink, n FROM consumer_count WHERE sink <> 0 AND n <> 0 \
             EXCEPT SELECT sink, count(*) FROM delivery WHERE live_until IS NOT NULL GROUP BY 1)",
            "SELECT count(*) FROM (SELECT campaign, state, n FROM item_count WHERE n <> 0 \
             EXCEPT SELECT campaign, state, count(*) FROM campaign_item GROUP BY 1, 2)",
        ] {
            assert_eq!(number(&self.home, disagreeing).await, 0, "{disagreeing}");
        }
        let told = self.home.counts().await.unwrap();
        let pending = pending(&self.home, "file", i64::from(u32::MAX)).await.len() as u64;
        assert_eq!(
            told.pending.get(&sink("file")).copied().unwrap_or(0),
            pending
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_promises_of_the_rows_hold(events in proptest::collection::vec(events(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World {
                home: Home::new(),
                now: 100,
                ids: 0,
                versions: BTreeMap::new(),
            };
            for event in events {
                world.happen(event).await;
                world.check().await;
            }
        });
    }
}
