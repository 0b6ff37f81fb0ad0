//! The files beside the store on each machine of a cluster: they follow what any of them writes, and give back what
//! the database has lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{nodes::join, *};

/// Two machines on one database, each with files of its own; either may be away.
pub(super) struct Pair {
    dir: TempDir,
    nodes: [Option<Store>; 2],
}

const NAMES: [&str; 2] = ["web-1", "web-2"];

impl Pair {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nodes = NAMES.map(|name| Some(join(dir.path(), name).0));
        Self { dir, nodes }
    }

    pub(super) fn node(&self, n: usize) -> &Store {
        self.nodes[n].as_ref().unwrap()
    }

    fn file(&self, n: usize, name: &str) -> PathBuf {
        self.dir.path().join(NAMES[n]).join(name)
    }

    /// Where a machine has its files, and how it opens the store.
    pub(super) fn place(&self, n: usize) -> (StoreSettings, PathBuf) {
        let own = self.dir.path().join(NAMES[n]);
        (super::nodes::settings_of(self.dir.path(), NAMES[n]), own)
    }

    fn text(&self, n: usize, name: &str) -> String {
        fs::read_to_string(self.file(n, name)).unwrap_or_default()
    }

    pub(super) fn leave(&mut self, n: usize) {
        self.nodes[n] = None;
    }

    pub(super) fn back(&mut self, n: usize) -> Opened {
        let (store, opened) = join(self.dir.path(), NAMES[n]);
        self.nodes[n] = Some(store);
        opened
    }

    /// A copy of the database, as a standby that is behind has it.
    pub(super) fn copy(&self) -> PathBuf {
        let copy = self.dir.path().join("standby.db");
        fs::remove_file(&copy).ok();
        let from = rusqlite::Connection::open(self.dir.path().join("renewd.db")).unwrap();
        let path = copy.to_string_lossy().into_owned();
        from.execute("VACUUM INTO ?1", [path]).unwrap();
        copy
    }

    /// The standby takes over, under the machines' hands.
    pub(super) fn fail_over(&self) {
        let standby = rusqlite::Connection::open(self.dir.path().join("standby.db")).unwrap();
        let mut to = rusqlite::Connection::open(self.dir.path().join("renewd.db")).unwrap();
        let copying = rusqlite::backup::Backup::new(&standby, &mut to).unwrap();
        copying
            .run_to_completion(1000, Duration::ZERO, None)
            .unwrap();
    }

    pub(super) async fn follow(&self, n: usize, secs: i64) -> Option<BroughtUp> {
        self.node(n).follow_files(at(secs)).await.unwrap().brought
    }
}

/// The last word of a file on each name: what stands there, without the number of its entry.
fn last_words(text: &str) -> BTreeMap<String, serde_json::Value> {
    let mut last = BTreeMap::new();
    for line in text.lines() {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        let fields = line.as_object_mut().unwrap();
        for numbered in ["n", "left", "version"] {
            fields.remove(numbered);
        }
        let is_dropped = fields.get("dropped").is_some();
        let Some(name) = fields.get("name").and_then(|name| name.as_str()) else {
            continue;
        };
        let name = name.to_owned();
        match is_dropped {
            true => _ = last.remove(&name),
            false => _ = last.insert(name, line),
        }
    }
    last
}

/// Those of whom something is withdrawn; what is nothing any more need not be said.
fn worth(words: &BTreeMap<String, serde_json::Value>) -> BTreeMap<String, serde_json::Value> {
    let says =
        |line: &serde_json::Value| line.get("held").is_some() || line.get("revoked_at").is_some();
    let said = words.iter().filter(|(_, line)| says(line));
    said.map(|(name, line)| (name.clone(), line.clone()))
        .collect()
}

async fn hold(store: &Store, who: &str, secs: i64) -> Version {
    let num = get(store, who).await.num;
    step(store, num, Step::Withhold, secs).await
}

#[tokio::test]
async fn what_one_machine_writes_is_in_the_files_of_the_other_as_soon_as_it_looks() {
    let pair = Pair::new();
    declare(pair.node(0), &[with_id("bot", "8:acs:bot")], 0).await;
    hold(pair.node(0), "bot", 5).await;
    let ours = ["identities.jsonl", "withdrawn.jsonl"].map(|file| pair.text(0, file));
    assert!(ours.iter().all(|text| text.contains("bot")), "{ours:?}");
    assert!(pair.node(1).files_are_behind().await.unwrap());
    assert_eq!(pair.follow(1, 6).await, None);
    assert!(!pair.node(1).files_are_behind().await.unwrap());
    let theirs = ["identities.jsonl", "withdrawn.jsonl"].map(|file| pair.text(1, file));
    assert_eq!(
        ours.map(|text| last_words(&text)),
        theirs.map(|text| last_words(&text))
    );
    // Both write in turn, and neither overtakes the other.
    let num = get(pair.node(1), "bot").await.num;
    step(pair.node(1), num, Step::Release, 7).await;
    hold(pair.node(0), "bot", 8).await;
    pair.follow(1, 9).await;
    let ours = last_words(&pair.text(0, "withdrawn.jsonl"));
    assert_eq!(ours, last_words(&pair.text(1, "withdrawn.jsonl")));
    assert_eq!(ours["bot"]["held"], true);
}

#[tokio::test]
async fn a_machine_that_was_away_takes_nothing_back_that_was_given_up_meanwhile() {
    let mut pair = Pair::new();
    declare(pair.node(0), &[with_id("bot", "8:acs:bot")], 0).await;
    pair.follow(1, 1).await;
    hold(pair.node(1), "bot", 2).await;
    pair.leave(1);
    let num = get(pair.node(0), "bot").await.num;
    step(pair.node(0), num, Step::Release, 3).await;
    declare(pair.node(0), &[], 4).await;
    let forget = pair
        .node(0)
        .remove(vec![name("bot")], Some(OnRemoval::Forget), at(5));
    forget.await.unwrap();
    let opened = pair.back(1);
    assert_eq!((opened.told(), opened.orphans), (None, 0));
    let seen = pair.node(1).record(&name("bot")).await.unwrap();
    assert_eq!(
        seen.map(|record| record.state),
        pair.node(0)
            .record(&name("bot"))
            .await
            .unwrap()
            .map(|record| record.state)
    );
    let words = |n| last_words(&pair.text(n, "identities.jsonl"));
    assert_eq!(words(0), words(1));
}

#[tokio::test]
async fn what_the_database_lost_is_carried_out_again_once() {
    let pair = Pair::new();
    let specs = [with_id("bot", "8:acs:bot"), with_id("other", "8:acs:other")];
    declare(pair.node(0), &specs, 0).await;
    pair.copy();
    let lost = hold(pair.node(0), "bot", 5).await;
    pair.follow(1, 6).await;
    pair.fail_over();
    assert_eq!(get(pair.node(1), "bot").await.state, State::New);
    assert!(pair.node(1).files_are_behind().await.unwrap());

    // Nothing is written before it is taken up, and then all is as it was.
    let brought = pair.follow(1, 7).await.unwrap();
    assert_eq!(brought.held, 1, "{brought}");
    let held = get(pair.node(1), "bot").await;
    assert_eq!(held.state, State::Held);
    assert!(held.version > lost, "{:?} after {lost:?}", held.version);
    let told = pair.node(0).latest_notices(1).await.unwrap().remove(0).1;
    assert!(
        told.message.contains("lost its last commits"),
        "{}",
        told.message
    );

    // The other one knows of it, and does not do it again: not even once it was given back.
    step(pair.node(1), held.num, Step::Release, 8).await;
    assert_eq!(pair.follow(0, 9).await, None);
    assert_ne!(get(pair.node(0), "bot").await.state, State::Held);
    let words = |n| worth(&last_words(&pair.text(n, "withdrawn.jsonl")));
    assert_eq!(words(0), words(1));
}

#[tokio::test]
async fn tokens_that_were_lost_and_of_which_the_files_say_nothing_are_taken_up_as_well() {
    let pair = Pair::new();
    declare(pair.node(0), &[with_id("bot", "8:acs:bot")], 0).await;
    let num = get(pair.node(0), "bot").await.num;
    commit(pair.node(0), issued(num, 10, None), 11).await;
    pair.follow(1, 12).await;
    pair.copy();
    let said = pair.text(0, "withdrawn.jsonl");
    let lost = version(commit(pair.node(0), issued(num, 13, None), 13).await);
    pair.node(1).heed_others(at(14)).await.unwrap();
    assert_eq!(pair.text(0, "withdrawn.jsonl"), said);
    pair.fail_over();
    for node in [0, 1] {
        assert!(pair.node(node).files_are_behind().await.unwrap());
        let refused = pair.node(node).commit(vec![issued(num, 15, None)], at(15));
        assert!(refused.await.is_err(), "nothing is built on what is left");
    }
    assert!(pair.follow(1, 16).await.is_some());
    pair.follow(0, 17).await;
    let next = version(commit(pair.node(0), issued(num, 18, None), 18).await);
    assert!(next > lost, "{next:?}, {lost:?}");
}

#[tokio::test]
async fn what_was_lost_while_the_database_went_on_is_noticed_all_the_same() {
    let mut pair = Pair::new();
    let specs = [with_id("bot", "8:acs:bot"), with_id("other", "8:acs:other")];
    declare(pair.node(0), &specs, 0).await;
    pair.follow(1, 1).await;
    pair.copy();
    pair.leave(1);
    hold(pair.node(0), "bot", 5).await;
    pair.leave(0);
    pair.fail_over();
    // The one that does not know of it goes on under the same number.
    pair.back(1);
    hold(pair.node(1), "other", 6).await;
    let opened = pair.back(0);
    assert_eq!(opened.brought.unwrap().held, 1);
    pair.follow(1, 7).await;
    for (who, n) in [("bot", 0), ("bot", 1), ("other", 0), ("other", 1)] {
        assert_eq!(get(pair.node(n), who).await.state, State::Held, "{who}");
    }
}

/// How many histories are looked at, and how long each is.
const SEEDS: u64 = 40;
const MOVES: usize = 40;

#[tokio::test]
async fn whatever_happens_the_files_of_both_machines_say_what_the_database_says() {
    let first = std::env::var("RENEWD_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = first.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        History::new(seed).run().await;
    }
}

struct History {
    seed: u64,
    rng: ChaCha8Rng,
    pair: Pair,
    secs: i64,
    /// The highest version of each name that was ever seen.
    versions: BTreeMap<String, Version>,
    has_copy: bool,
}

impl History {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            pair: Pair::new(),
            secs: 1,
            versions: BTreeMap::new(),
            has_copy: false,
        }
    }

    async fn run(mut self) {
        for _ in 0..MOVES {
            self.secs += 10;
            self.make_a_move().await;
            for n in [0, 1] {
                if self.pair.nodes[n].is_none() {
                    self.pair.back(n);
                }
            }
        }
        for secs in [1, 2] {
            for n in [0, 1] {
                self.pair.follow(n, self.secs + secs).await;
            }
        }
        self.check().await;
    }

    async fn make_a_move(&mut self) {
        let n = self.rng.random_range(0..2);
        match self.rng.random_range(0..12) {
            0..5 => self.change(n).await,
            5 | 6 => _ = self.pair.follow(n, self.secs).await,
            7 => {
                self.pair.leave(n);
                self.change(1 - n).await;
                self.pair.back(n);
            }
            8 => self.tear(n),
            9 => {
                self.has_copy = true;
                self.pair.copy();
            }
            10 if self.has_copy => self.lose(n).await,
            _ => self.look().await,
        }
    }

    /// One identity comes, is held, given back or let go.
    async fn change(&mut self, n: usize) {
        let who = format!("bot-{}", self.rng.random_range(0..4));
        let (store, secs) = (self.pair.node(n).clone(), self.secs);
        let known = store.record(&name(&who)).await.unwrap();
        let Some(record) = known else {
            let spec = Spec {
                origin: Origin::Cli,
                ..with_id(&who, &format!("8:acs:{who}"))
            };
            // It is refused while the database has lost something: whoever asks asks again.
            if store.declare(vec![spec.clone()], at(secs)).await.is_err() {
                self.pair.follow(n, secs).await;
                store.declare(vec![spec], at(secs)).await.unwrap();
            }
            return;
        };
        let next = match record.state {
            State::Held => Step::Release,
            _ if self.rng.random_range(0..3) == 0 => Step::Revoked {
                at: at(secs),
                then: Then::Reissue,
            },
            _ => Step::Withhold,
        };
        let on = || {
            vec![StepOn {
                num: record.num,
                step: next.clone(),
                request_id: None,
            }]
        };
        if store
            .step(on(), &Cause::ours("because"), at(secs))
            .await
            .is_err()
        {
            self.pair.follow(n, secs).await;
            store
                .step(on(), &Cause::ours("because"), at(secs))
                .await
                .unwrap();
        }
    }

    /// A machine ends in the middle of a line.
    fn tear(&mut self, n: usize) {
        self.pair.leave(n);
        for file in ["identities.jsonl", "withdrawn.jsonl"] {
            let path = self.pair.file(n, file);
            let text = fs::read(&path).unwrap_or_default();
            let cut = self.rng.random_range(0..40).min(text.len());
            fs::write(&path, &text[..text.len() - cut]).unwrap();
        }
        self.pair.back(n);
    }

    /// The standby takes over; what was acknowledged and is in a file stays in force.
    async fn lose(&mut self, n: usize) {
        for n in [0, 1] {
            self.pair.follow(n, self.secs).await;
        }
        self.look().await;
        let held = self.held().await;
        self.pair.fail_over();
        for n in [n, 1 - n] {
            self.pair.follow(n, self.secs + 1).await;
        }
        // A release may be lost: of who is not withheld nothing need be said.
        let now = self.held().await;
        assert!(
            now.is_superset(&held),
            "seed {}: {now:?} of {held:?}",
            self.seed
        );
        self.has_copy = false;
    }

    async fn held(&self) -> BTreeSet<String> {
        let mut held = BTreeSet::new();
        for who in (0..4).map(|n| format!("bot-{n}")) {
            let record = self.pair.node(0).record(&name(&who)).await.unwrap();
            held.extend(
                record
                    .filter(|record| record.state == State::Held)
                    .map(|_| who),
            );
        }
        held
    }

    async fn look(&mut self) {
        for who in (0..4).map(|n| format!("bot-{n}")) {
            let record = self.pair.node(0).record(&name(&who)).await.unwrap();
            // One that was made again has nothing to give out yet.
            let given = record.filter(|record| record.version > Version(0));
            let Some(record) = given else { continue };
            let before = self.versions.insert(who.clone(), record.version);
            let seed = self.seed;
            assert!(
                before.is_none_or(|before| before <= record.version),
                "seed {seed}: {who} fell from {before:?}"
            );
        }
    }

    /// Both files of both machines say what files would say that are written anew.
    async fn check(&self) {
        let said = |file| [0, 1].map(|n| last_words(&self.pair.text(n, file)));
        let before = [said("identities.jsonl"), said("withdrawn.jsonl")];
        for n in [0, 1] {
            for file in ["identities.jsonl", "withdrawn.jsonl"] {
                fs::remove_file(self.pair.file(n, file)).ok();
            }
            // Whoever misses a file writes both anew.
            self.pair.node(n).probe().await.unwrap();
        }
        let after = [said("identities.jsonl"), said("withdrawn.jsonl")];
        let seed = self.seed;
        assert_eq!(before[0], after[0], "seed {seed}");
        for n in [0, 1] {
            assert_eq!(
                worth(&before[1][n]),
                worth(&after[1][n]),
                "seed {seed}, {}",
                NAMES[n]
            );
        }
        assert_eq!(before[0][0], before[0][1], "seed {seed}");
    }
}
