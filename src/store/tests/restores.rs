//! Whatever is put back, lost or cut off by a crash, and whenever: what was withdrawn stays withdrawn.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::model::StoreStanding;

const NAMES: [&str; 4] = ["a", "b", "c", "kept"];
const FILES: [&str; 3] = ["renewd.db", "renewd.db-wal", "renewd.db-shm"];

#[derive(Debug, Clone)]
enum Event {
    On(usize, OnRow),
    Campaign(Vec<usize>, bool),
    Settle,
    Cancel,
    Undeclare(usize),
    Tick(i64),
    Prune,
    Copy,
    Disaster(Disaster),
}

#[derive(Debug, Clone)]
enum OnRow {
    Issue,
    Gone,
    Revive,
    Step(Step),
}

/// What happens to the files.
#[derive(Debug, Clone)]
enum Disaster {
    Restart,
    PutBack,
    Lost,
    /// The process ends between the lines of an operation and its commit.
    Kill(usize, OnRow),
    /// The file beside the store is lost, and the second place knows.
    FileLost,
}

fn on_row() -> impl Strategy<Value = OnRow> {
    let steps = prop_oneof![
        Just(Step::Withhold),
        Just(Step::Release),
        Just(revoked(0, Then::Hold)),
        Just(revoked(0, Then::Reissue)),
        Just(Step::Deleted { at: at(0) }),
    ];
    prop_oneof![
        5 => Just(OnRow::Issue),
        1 => Just(OnRow::Gone),
        1 => Just(OnRow::Revive),
        5 => steps.prop_map(OnRow::Step),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    let disaster = prop_oneof![
        1 => Just(Disaster::Restart),
        4 => Just(Disaster::PutBack),
        1 => Just(Disaster::Lost),
        3 => (0..NAMES.len(), on_row()).prop_map(|(row, what)| Disaster::Kill(row, what)),
        1 => Just(Disaster::FileLost),
    ];
    let chosen = proptest::collection::vec(0..NAMES.len(), 1..4);
    prop_oneof![
        12 => (0..NAMES.len(), on_row()).prop_map(|(row, what)| Event::On(row, what)),
        2 => (chosen, any::<bool>()).prop_map(|(rows, delete)| Event::Campaign(rows, delete)),
        2 => Just(Event::Settle),
        1 => Just(Event::Cancel),
        1 => (0..3_usize).prop_map(Event::Undeclare),
        3 => (1..4000_i64).prop_map(Event::Tick),
        1 => Just(Event::Prune),
        3 => Just(Event::Copy),
        4 => disaster.prop_map(Event::Disaster),
    ]
}

/// What is known of a name before something happens to the files.
#[derive(Debug, Clone)]
struct Before {
    state: State,
    revoked_at: Option<Timestamp>,
    version: Version,
    /// Campaigns are still to withdraw it.
    pending: bool,
}

struct World {
    home: Home,
    now: i64,
    copy: Vec<(&'static str, Option<Vec<u8>>)>,
    campaigns: Vec<CampaignId>,
}

fn copied(dir: &Path) -> StoreSettings {
    StoreSettings {
        withdrawn_copy: Some(dir.join("elsewhere.jsonl")),
        ..settings(dir)
    }
}

impl World {
    async fn begin() -> Self {
        let mut home = Home::new();
        home.store = None;
        let (store, opened) =
            Store::open_inline(&copied(home.dir.path()), home.dir.path(), at(0)).unwrap();
        (home.store, home.opened) = (Some(store), opened);
        let mut world = Self {
            home,
            now: 100,
            copy: Vec::new(),
            campaigns: Vec::new(),
        };
        world.declare_all().await;
        let kept = Spec {
            origin: Origin::Cli,
            ..spec("kept")
        };
        world.home.declare(vec![kept], at(0)).await.unwrap();
        for (at, text) in NAMES.iter().enumerate() {
            let num = get(&world.home, text).await.num;
            let id = format!("8:acs:{at}");
            commit(&world.home, issued(num, 50, Some(&id)), 60).await;
        }
        world.take_copy();
        world
    }

    async fn declare_all(&self) {
        let specs: Vec<Spec> = NAMES[..3].iter().map(|text| spec(text)).collect();
        declare(&self.home, &specs, self.now).await;
    }

    fn take_copy(&mut self) {
        let read = |name| (name, fs::read(self.home.dir.path().join(name)).ok());
        self.copy = FILES.map(read).to_vec();
    }

    fn put_back(&mut self) {
        self.home.store = None;
        for (name, bytes) in &self.copy {
            let path = self.home.dir.path().join(name);
            match bytes {
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => drop(fs::remove_file(path)),
            }
        }
    }

    async fn happen(&mut self, event: Event) {
        match event {
            Event::On(row, what) => self.happen_to(row, what).await,
            Event::Campaign(rows, delete) => self.order(rows, delete).await,
            Event::Settle => self.settle().await,
            Event::Cancel => {
                if let Some(id) = self.campaigns.pop() {
                    let cause = Cause::ours("test");
                    self.home
                        .cancel_campaign(id, &cause, at(self.now))
                        .await
                        .unwrap();
                }
            }
            Event::Undeclare(row) => {
                let rest = NAMES[..3].iter().enumerate().filter(|(at, _)| *at != row);
                let specs: Vec<Spec> = rest.map(|(_, text)| spec(text)).collect();
                declare(&self.home, &specs, self.now).await;
                self.declare_all().await;
            }
            Event::Tick(by) => self.now += by,
            Event::Prune => drop(self.home.prune(2, at(self.now)).await.unwrap()),
            Event::Copy => self.take_copy(),
            Event::Disaster(disaster) => self.suffer(disaster).await,
        }
    }

    async fn happen_to(&self, row: usize, what: OnRow) {
        let Some(record) = self.home.record(&name(NAMES[row])).await.unwrap() else {
            return;
        };
        let (home, now, num) = (&self.home, self.now, record.num);
        match what {
            OnRow::Issue => {
                let id = record.id.is_none().then(|| format!("8:acs:{now}-{row}"));
                commit(home, issued(num, now, id.as_deref()), now).await;
            }
            OnRow::Gone => {
                commit(home, said_gone(num, now, "gone 404"), now).await;
                commit(home, said_gone(num, now + 3, "gone 404"), now + 3).await;
            }
            OnRow::Revive => {
                let cause = Cause::ours("test");
                // Refused for all that are not gone.
                home.revive(&record.spec.name, &cause, at(now)).await.ok();
            }
            OnRow::Step(Step::Revoked { then, .. }) => {
                step(home, num, revoked(now, then), now).await;
            }
            OnRow::Step(taken) => drop(step(home, num, taken, now).await),
        }
    }

    async fn order(&mut self, rows: Vec<usize>, delete: bool) {
        let mut nums = BTreeSet::new();
        for row in rows {
            let record = self.home.record(&name(NAMES[row])).await.unwrap();
            nums.extend(
                record
                    .filter(|of| of.state != State::Deleted)
                    .map(|of| of.num),
            );
        }
        let (action, then) = match delete {
            true => (CampaignAction::Delete, None),
            false => (CampaignAction::Revoke, Some(Then::Hold)),
        };
        let target = Target::Items(nums.into_iter().map(Wanted::Row).collect());
        let cause = Cause {
            actor: "uid 0 (root)".to_owned(),
            reason: None,
        };
        let new = NewCampaign::new(action, then, target, cause);
        let id = self.home.create_campaign(new, at(self.now)).await.unwrap();
        self.campaigns.push(id);
    }

    /// The first item of the last campaign is done.
    async fn settle(&self) {
        let Some(id) = self.campaigns.last().copied() else {
            return;
        };
        let items = self
            .home
            .campaign_items(id, &resource(), true, 1, &none())
            .await
            .unwrap();
        let campaign = self.home.campaign(id).await.unwrap();
        let (Some(item), Some(campaign)) = (items.first(), campaign) else {
            return;
        };
        let step = match campaign.action {
            CampaignAction::Delete => Step::Deleted { at: at(self.now) },
            _ => revoked(self.now, Then::Hold),
        };
        let steps = vec![StepOn {
            num: item.num,
            step,
            request_id: None,
        }];
        let done = ItemOutcome::Done {
            at: at(self.now),
            request_id: None,
        };
        let (cause, outcomes) = (Cause::ours("test"), vec![(item.num, done)]);
        self.home
            .settle_items(id, steps, &cause, outcomes, at(self.now))
            .await
            .unwrap();
    }

    async fn suffer(&mut self, disaster: Disaster) {
        let lost = matches!(disaster, Disaster::Lost);
        if let Disaster::Kill(row, what) = &disaster {
            self.take_copy();
            self.happen_to(*row, what.clone()).await;
        }
        let before = self.known().await;
        match disaster {
            Disaster::Restart => self.home.store = None,
            Disaster::PutBack => self.put_back(),
            Disaster::Lost => {
                self.home.store = None;
                for name in FILES {
                    fs::remove_file(self.home.dir.path().join(name)).ok();
                }
            }
            Disaster::Kill(..) => {
                self.put_back();
                self.note_promises();
            }
            Disaster::FileLost => {
                self.put_back();
                fs::remove_file(self.home.dir.path().join("withdrawn.jsonl")).ok();
            }
        }
        self.now += 30;
        let settings = copied(self.home.dir.path());
        let (store, opened) =
            Store::open_inline(&settings, self.home.dir.path(), at(self.now)).unwrap();
        (self.home.store, self.home.opened) = (Some(store), opened);
        assert_eq!(self.home.opened.standing, StoreStanding::Own);
        self.declare_all().await;
        self.check(&before, lost).await;
        self.campaigns = self
            .home
            .open_campaigns()
            .await
            .unwrap()
            .iter()
            .map(|of| of.id)
            .collect();
        self.take_copy();
    }

    /// As the commit leaves it that comes before an operation which withdraws; of two there may be two.
    fn note_promises(&self) {
        let conn = rusqlite::Connection::open(self.home.dir.path().join("renewd.db")).unwrap();
        let sql = "UPDATE meta SET value = value + 2 WHERE key = 'withdrawn_bound'";
        conn.execute(sql, []).unwrap();
    }

    async fn known(&self) -> Vec<Option<Before>> {
        let mut known = Vec::new();
        for text in NAMES {
            let record = self.home.record(&name(text)).await.unwrap();
            let Some(record) = record else {
                known.push(None);
                continue;
            };
            known.push(Some(Before {
                state: record.state,
                revoked_at: record.revoked_at,
                version: record.version,
                pending: self.is_pending(text).await,
            }));
        }
        known
    }

    async fn is_pending(&self, text: &'static str) -> bool {
        let asked = self.home.read("test", move |db| {
            let sql = "SELECT 1 FROM campaign_item t JOIN campaign c ON c.num = t.campaign \
                       LEFT JOIN identity i ON i.num = t.num OR i.id = t.id \
                       WHERE i.name = ?1 AND t.state IN ('pending', 'called', 'failed') AND c.phase <> 'cancelled'";
            Ok(db.first(sql, [text], |_| Ok(()))?.is_some())
        });
        asked.await.unwrap()
    }

    async fn check(&self, before: &[Option<Before>], lost: bool) {
        let brought = self.home.opened.brought;
        for (text, before) in NAMES.iter().zip(before) {
            let Some(before) = before else { continue };
            let told = format!("{text} {before:?} {brought:?}");
            let Some(record) = self.home.record(&name(text)).await.unwrap() else {
                assert!(lost && before.state == State::Deleted, "{told}");
                continue;
            };
            let pending = self.is_pending(text).await;
            assert!(
                pending || !before.pending || record.state == State::Deleted,
                "{told} {record:?}: no longer to be withdrawn"
            );
            if !pending {
                let (was, is) = (before.state.wants_token(), record.state.wants_token());
                assert!(
                    was == is && (was || record.state == before.state),
                    "{told} {record:?}"
                );
            }
            assert!(
                record.revoked_at >= before.revoked_at || lost,
                "{told} {record:?}"
            );
            assert_eq!(
                record.due.is_some(),
                record.state.wants_token(),
                "{told} {record:?}"
            );
            if brought.is_some_and(|brought| brought.older) && record.version.0 > 0 {
                assert!(record.version > before.version, "{told} {record:?}");
            }
            let consignment = self.home.consignment(record.num).await.unwrap().unwrap();
            let document = &consignment.document;
            let lives = document.expires_at.is_some_and(|end| end > at(self.now));
            let handed_out =
                document.token.is_some() && lives && consignment.awaits_successor().is_none();
            let issued_at = consignment.document.issued_at;
            if let (true, Some(revoked_at)) = (handed_out, before.revoked_at) {
                assert!(
                    issued_at > Some(revoked_at),
                    "{told}: a revoked token is handed out"
                );
            }
            assert!(!handed_out || record.state == State::Active, "{told}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_was_withdrawn_stays_withdrawn(events in proptest::collection::vec(events(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::begin().await;
            for event in events {
                world.happen(event).await;
            }
            world.suffer(Disaster::PutBack).await;
        });
    }
}

/// Opens a store with a second place of what was withdrawn.
fn reopen_with(home: &mut Home, copy: &Path) {
    home.store = None;
    let settings = StoreSettings {
        withdrawn_copy: Some(copy.to_owned()),
        ..settings(home.dir.path())
    };
    let (store, opened) = Store::open_inline(&settings, home.dir.path(), at(0)).unwrap();
    (home.store, home.opened) = (Some(store), opened);
}

#[tokio::test]
async fn a_second_place_that_fails_is_told_and_is_whole_again_with_the_next_withdrawal() {
    let (mut home, num) = active().await;
    let place = home.dir.path().join("place");
    let copy = place.join("withdrawn.jsonl");
    reopen_with(&mut home, &copy);
    assert!(home.copy_trouble().is_some(), "its folder is missing");
    step(&home, num, Step::Withhold, 20).await;
    assert!(home.copy_trouble().is_some());
    fs::create_dir(&place).unwrap();
    step(&home, num, Step::Release, 21).await;
    assert_eq!(home.copy_trouble(), None);
    let file = home.dir.path().join("withdrawn.jsonl");
    assert_eq!(fs::read(&file).unwrap(), fs::read(&copy).unwrap());
    step(&home, num, Step::Withhold, 22).await;
    assert_eq!(fs::read(&file).unwrap(), fs::read(&copy).unwrap());
}

#[tokio::test]
async fn a_second_place_that_another_store_wrote_is_kept() {
    let (mut other, num) = active().await;
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("withdrawn.jsonl");
    reopen_with(&mut other, &path);
    step(&other, num, Step::Withhold, 20).await;
    let of_other = fs::read(&path).unwrap();
    let (mut home, num) = active().await;
    reopen_with(&mut home, &path);
    assert_eq!(home.opened.standing, StoreStanding::Own);
    assert_eq!(get(&home, "bot").await.num, num);
    assert_eq!(
        get(&home, "bot").await.state,
        State::Active,
        "it is not of this store"
    );
    assert_eq!(
        fs::read(path.with_extension("jsonl.other")).unwrap(),
        of_other
    );
}

#[tokio::test]
async fn a_file_of_another_store_waits_for_a_person() {
    let (other, num) = active().await;
    step(&other, num, Step::Withhold, 20).await;
    let (mut home, _) = active().await;
    home.store = None;
    let file = "withdrawn.jsonl";
    fs::copy(other.dir.path().join(file), home.dir.path().join(file)).unwrap();
    home.reopen();
    assert!(
        matches!(&home.opened.standing, StoreStanding::Restored { why } if why.contains("another store"))
    );
}

#[tokio::test]
async fn a_row_that_cannot_be_read_keeps_its_line_when_the_file_is_folded() {
    let (mut home, num) = active().await;
    step(&home, num, Step::Withhold, 20).await;
    sql(&home, "UPDATE identity SET state = 'garbage'").await;
    // Missing lines make a start write the file anew.
    let file = home.dir.path().join("withdrawn.jsonl");
    home.store = None;
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}{{\"half")).unwrap();
    home.reopen();
    for n in 0..60 {
        home.declare(
            vec![Spec {
                origin: Origin::Cli,
                ..spec(&format!("n{n}"))
            }],
            at(30),
        )
        .await
        .unwrap();
        let other = get(&home, &format!("n{n}")).await.num;
        step(&home, other, Step::Withhold, 31).await;
    }
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("\"bot\""))
        .collect();
    assert!(
        lines
            .last()
            .is_some_and(|line| line.contains("\"held\":true")),
        "{text}"
    );
}
