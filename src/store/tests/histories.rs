//! Random histories: whatever happens, in whatever order, the promises of the rows hold.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    model::Placed,
    store::{Tally, aside::RowKind},
};

fn placed(path: &str) -> Placed {
    Placed {
        path: path.into(),
        digest: [0; 32],
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
pub(super) enum Event {
    Declare {
        names: Vec<usize>,
        voip: bool,
        hook: bool,
        on_removal: OnRemoval,
    },
    On(usize, OnRow),
    Campaign(usize, CampaignAction),
    Work(usize),
    Follow,
    Place {
        row: usize,
        hook: bool,
        path: Option<u8>,
    },
    Bundle(Option<u8>),
    Replay,
    Tick(i64),
    Restart,
    Prune,
}

#[derive(Debug, Clone)]
pub(super) enum OnRow {
    Issue { ago: i64, create: bool },
    Fail,
    Gone,
    Step(Step),
    Deliver { hook: bool, old: bool },
    FailDelivery,
}

pub(super) fn events() -> impl Strategy<Value = Event> {
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
        2 => (0..NAMES.len(), actions()).prop_map(|(row, action)| Event::Campaign(row, action)),
        3 => (0..5_usize).prop_map(Event::Work),
        2 => Just(Event::Follow),
        4 => (0..NAMES.len(), any::<bool>(), proptest::option::of(0..4_u8))
            .prop_map(|(row, hook, path)| Event::Place { row, hook, path }),
        1 => proptest::option::of(10..12_u8).prop_map(Event::Bundle),
        1 => Just(Event::Replay),
        3 => (-50..200_i64).prop_map(Event::Tick),
        1 => Just(Event::Restart),
        1 => Just(Event::Prune),
    ]
}

fn actions() -> impl Strategy<Value = CampaignAction> {
    prop_oneof![
        Just(CampaignAction::Revoke),
        Just(CampaignAction::Hold),
        Just(CampaignAction::Release),
        Just(CampaignAction::Renew),
        Just(CampaignAction::Delete),
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

/// How an item of a campaign ended: for good, for now, or with its step.
fn ended(how: usize, action: CampaignAction, now: Timestamp) -> (Option<Step>, ItemOutcome) {
    let (error, request_id) = ("no".to_owned(), None);
    let step = match action {
        CampaignAction::Revoke => Step::Revoked {
            at: now,
            then: Then::Reissue,
        },
        CampaignAction::Hold => Step::Withhold,
        CampaignAction::Release => Step::Release,
        CampaignAction::Renew => Step::Due(DueReason::Requested),
        CampaignAction::Delete => Step::Deleted { at: now },
    };
    match how {
        0 => (None, ItemOutcome::Failed { error, request_id }),
        1 => {
            let next_at = now;
            let again = ItemOutcome::Retry {
                next_at,
                error,
                request_id,
            };
            (None, again)
        }
        _ => {
            let done = ItemOutcome::Done {
                at: now,
                request_id,
            };
            (Some(step), done)
        }
    }
}

pub(super) struct World {
    pub(super) home: Home,
    pub(super) now: i64,
    ids: i64,
    versions: BTreeMap<Num, Version>,
    campaigns: Vec<CampaignId>,
    /// The files that were written and not removed.
    files: BTreeSet<String>,
}

impl World {
    pub(super) fn new(home: Home) -> Self {
        Self {
            home,
            now: 100,
            ids: 0,
            versions: BTreeMap::new(),
            campaigns: Vec::new(),
            files: BTreeSet::new(),
        }
    }

    /// A row, by the place of its name.
    pub(super) async fn record(&self, row: usize) -> Option<Record> {
        self.home.record(&name(NAMES[row])).await.unwrap()
    }

    pub(super) async fn happen(&mut self, event: Event) {
        match event {
            Event::Declare {
                names,
                voip,
                hook,
                on_removal,
            } => {
                let names: BTreeSet<usize> = names.into_iter().collect();
                let all = [sink_name("file"), sink_name("hook")];
                let declaration = |n: usize| Spec {
                    declared: Declaration {
                        scopes: vec![if voip { Scope::Voip } else { Scope::Chat }],
                        // One of them is served by the socket alone now and then.
                        sinks: all[..usize::from(n > 0) + usize::from(hook)].to_vec(),
                        on_removal,
                        ..spec(NAMES[n]).declared
                    },
                    ..spec(NAMES[n])
                };
                let specs: Vec<Spec> = names.into_iter().map(declaration).collect();
                declare(&self.home, &specs, self.now).await;
                assert!(declare(&self.home, &specs, self.now).await.is_unchanged());
            }
            Event::On(row, what) => {
                if let Some(record) = self.record(row).await {
                    self.happen_to(&record, what).await;
                }
            }
            Event::Campaign(row, action) => self.order(row, action).await,
            Event::Work(how) => self.work(how).await,
            Event::Follow => {
                for id in &self.campaigns {
                    let followed = self.home.follow_items(*id, None, 100, true, at(self.now));
                    followed.await.unwrap();
                }
            }
            Event::Place { row, hook, path } => self.place(row, hook, path).await,
            Event::Bundle(path) => self.place_bundle(path).await,
            Event::Replay => {
                let rows = Rows::default();
                self.home
                    .replay_deliveries(rows, at(self.now))
                    .await
                    .unwrap();
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
                home.settle(vec![failed], at(now)).await.unwrap();
            }
        }
    }

    async fn order(&mut self, row: usize, action: CampaignAction) {
        let Some(record) = self.record(row).await else {
            return;
        };
        let then = (action == CampaignAction::Revoke).then_some(Then::Reissue);
        let items = vec![
            Wanted::Row(record.num),
            Wanted::Id(resource(), "8:acs:nobody".parse().unwrap()),
        ];
        let cause = Cause::ours("test");
        let new = NewCampaign::new(action, then, Target::Items(items), cause);
        let id = self.home.create_campaign(new, at(self.now)).await.unwrap();
        self.campaigns.push(id);
    }

    /// Works an item of the newest campaign off, in one way or another.
    async fn work(&mut self, how: usize) {
        let Some(id) = self.campaigns.last().copied() else {
            return;
        };
        let (now, cause) = (at(self.now), Cause::ours("test"));
        if how == 4 {
            if self.home.cancel_campaign(id, &cause, now).await.unwrap() {
                let (place, nobody) = (resource(), none());
                let sweep = self.home.sweep_cancelled(id, &place, &nobody, 9, now);
                sweep.await.unwrap();
            }
            return;
        }
        if how == 3 {
            self.home.retry_campaign(id, &cause, now).await.unwrap();
            return;
        }
        let items = self.items_to_begin(id).await;
        let campaign = self.home.campaign(id).await.unwrap();
        let (Some(item), Some(campaign)) = (items.first(), campaign) else {
            return;
        };
        let (step, outcome) = ended(how, campaign.action, now);
        let num = item.num;
        let end = ItemEnd {
            campaign: Arc::new(campaign),
            num,
            step: step.filter(|_| num > 0).map(|step| StepOn {
                num,
                step,
                request_id: None,
            }),
            outcome,
            notice: None,
            again_at: None,
        };
        let notes = vec![ItemNote::Called(id, num), ItemNote::Ended(Box::new(end))];
        let place = resource();
        let noted = self.home.note_items(&place, Arc::new(notes), now);
        for noted in noted.await.unwrap() {
            noted.unwrap();
        }
    }

    async fn items_to_begin(&self, id: CampaignId) -> Vec<CampaignItem> {
        let mut items = Vec::new();
        for failing in [true, false] {
            let (place, nobody) = (resource(), none());
            let some = self.home.campaign_items(id, &place, failing, 1, &nobody);
            items.extend(some.await.unwrap());
        }
        items
    }

    async fn place(&mut self, row: usize, hook: bool, path: Option<u8>) {
        let Some(record) = self.record(row).await else {
            return;
        };
        let sink = sink(if hook { "hook" } else { "file" });
        let deliveries = self.home.deliveries_of(record.num).await.unwrap();
        if !deliveries.iter().any(|delivery| delivery.sink == sink) {
            return;
        }
        let placed = path.map(|at| placed(&format!("/run/{}/{sink}/{at}", record.num)));
        match &placed {
            Some(placed) => {
                self.files.insert(placed.path.display().to_string());
            }
            // Who removes a file removes the one that it knows of.
            None => {
                for path in self.spoken_of(record.num, &sink).await {
                    self.files.remove(&path);
                }
            }
        }
        let num = record.num;
        let settled = vec![Settled::Placed { sink, num, placed }];
        self.home.settle(settled, at(self.now)).await.unwrap();
    }

    async fn spoken_of(&self, num: Num, sink: &SinkAt) -> Vec<String> {
        let sink = sink.clone();
        let found = self.home.read("test", move |db| {
            let sql =
                "SELECT path FROM delivery WHERE identity = ?1 AND sink = ?2 AND path IS NOT NULL";
            let params = [num, db.sink_num(&sink)?];
            Ok(db.first(sql, params, |row| row.get(0))?)
        });
        found.await.unwrap().into_iter().collect()
    }

    async fn place_bundle(&mut self, path: Option<u8>) {
        let hook = sink("hook");
        let known = "SELECT count(*) FROM sink WHERE name = 'hook'";
        if number(&self.home, known).await == 0 {
            return;
        }
        let was = self.home.bundle_of(&hook).await.unwrap();
        let placed = path.map(|at| placed(&format!("/run/bundle/{at}")));
        match &placed {
            Some(placed) => self.files.insert(placed.path.display().to_string()),
            None => was.is_some_and(|was| self.files.remove(&was.path.display().to_string())),
        };
        self.home.place_bundle(&hook, placed).await.unwrap();
    }

    /// Every file is spoken of by a delivery or a sink, or is a stray; and no other is.
    async fn no_file_is_lost(&self) {
        let sql = "SELECT path FROM delivery WHERE digest IS NOT NULL UNION SELECT path FROM sink WHERE digest IS NOT NULL \
                   UNION SELECT path FROM stray";
        let found = self.home.read("test", move |db| {
            let paths = db.all(RowKind::Stray, sql, [], |row| row.get::<_, String>(0))?;
            Ok(paths.into_iter().collect::<BTreeSet<_>>())
        });
        assert_eq!(found.await.unwrap(), self.files);
        for left in [
            "SELECT count(*) FROM delivery WHERE identity NOT IN (SELECT num FROM identity)",
            "SELECT count(*) FROM holder WHERE identity NOT IN (SELECT num FROM identity)",
            "SELECT count(*) FROM gone_claim WHERE identity NOT IN (SELECT num FROM identity)",
            "SELECT count(*) FROM identity WHERE by_socket = \
             CASE WHEN EXISTS (SELECT 1 FROM delivery d WHERE d.identity = num) THEN 1 ELSE 0 END",
        ] {
            assert_eq!(number(&self.home, left).await, 0, "{left}");
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
        self.no_file_is_lost().await;
    }

    /// Every counter equals a recount.
    async fn counters_agree(&self) {
        assert_eq!(self.home.miscounts().await.unwrap(), []);
        let negative = "SELECT (SELECT count(*) FROM identity_count WHERE n < 0) + (SELECT count(*) FROM item_count WHERE n < 0) \
                        + (SELECT count(*) FROM pending_count WHERE n < 0) + (SELECT count(*) FROM life_count WHERE n < 0)";
        assert_eq!(number(&self.home, negative).await, 0);
        let told = self.home.counts().await.unwrap();
        let pending = pending(&self.home, "file", i64::from(u32::MAX)).await.len() as u64;
        assert_eq!(
            told.pending.get(&sink("file")).copied().unwrap_or(0),
            pending
        );
        let mut kinds: Vec<Tally> = Vec::new();
        for record in self.home.list(None, 100).await.unwrap() {
            let of = Tally {
                shown: record.state_at(at(self.now)),
                state: record.state,
                has_id: record.id.is_some(),
                resource: record.spec.resource,
                count: 0,
            };
            let known = kinds.iter_mut().find(|kind| {
                Tally {
                    count: 0,
                    ..(**kind).clone()
                } == of
            });
            match known {
                Some(kind) => kind.count += 1,
                None => kinds.push(Tally { count: 1, ..of }),
            }
        }
        let told = self.home.tally(at(self.now)).await.unwrap();
        assert_eq!(told.len(), kinds.len(), "{told:?} {kinds:?}");
        assert!(
            told.iter().all(|kind| kinds.contains(kind)),
            "{told:?} {kinds:?}"
        );
    }
}

fn live(home: impl FnOnce() -> Home, events: Vec<Event>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(home());
        for event in events {
            world.happen(event).await;
            world.check().await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_promises_of_the_rows_hold(expanded in any::<bool>(), events in proptest::collection::vec(events(), 1..60)) {
        live(if expanded { Home::expanded } else { Home::new }, events);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn they_hold_in_postgresql_as_well(events in proptest::collection::vec(events(), 1..60)) {
        on_postgres(|| live(Home::new, events));
    }
}
