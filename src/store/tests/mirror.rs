//! A node's mirror: whatever happens, in whatever order, it holds what the database said when the two last agreed, and
//! serves nothing that is known to be dead or withdrawn.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use proptest::prelude::*;

use super::{
    histories::{Event, OnRow, World, events},
    *,
};
use crate::store::{
    db::Db,
    mirror::{ChangedRows, Mirror},
    seal::Seal,
};

const CLUSTER: &str = "production";

/// What consumers would be served: the version and the token of everybody who has one that may be served.
type Served = BTreeMap<String, (Version, String)>;

/// The mirror of a node, and whose it is.
struct Node {
    dir: TempDir,
    seal: Arc<Seal>,
    mirror: Option<Arc<Mirror>>,
}

impl Node {
    async fn beside(store: &Store) -> Self {
        let mut node = Self {
            dir: tempfile::tempdir().unwrap(),
            seal: store.read("test", |db| Ok(db.seal.clone())).await.unwrap(),
            mirror: None,
        };
        node.reopen(CLUSTER);
        node
    }

    /// Opens it once more, as the daemon of this cluster does.
    fn reopen(&mut self, cluster: &str) {
        self.mirror = None;
        let mirror = Mirror::open(self.dir.path(), (cluster, None), self.seal.clone(), false);
        self.mirror = Some(Arc::new(mirror));
    }

    fn mirror(&self) -> Arc<Mirror> {
        self.mirror.clone().unwrap()
    }

    async fn follow(&self, store: &Store, changes: ChangedRows, secs: i64) {
        let mirror = self.mirror();
        let followed = store.read("test", move |db| {
            mirror.follow(db, |_, _| Ok(changes), at(secs))
        });
        followed.await.unwrap();
    }

    /// Takes over what was withdrawn here.
    async fn take(&self, store: &Store, nums: BTreeSet<Num>) {
        let mirror = self.mirror();
        let taken = store.read("test", move |db| {
            mirror.take(db, &nums);
            Ok(())
        });
        taken.await.unwrap();
    }

    fn served(&self, secs: i64) -> Served {
        let served = self.mirror().read(|db| Ok(served(db, secs)));
        served
            .map(|(served, _)| served.unwrap())
            .unwrap_or_default()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Who has a token in this database that lives and was not revoked.
fn served(db: &Db, secs: i64) -> Served {
    let records = db.list("", 100).unwrap();
    let held = db.held(records).unwrap();
    let live = held.into_iter().filter_map(|holding| {
        let lives = holding.document.expires_at > Some(at(secs)) && !holding.record.revoked;
        let token = holding.document.token.filter(|_| lives)?;
        let told = (holding.record.version, token.expose().to_owned());
        Some((holding.record.spec.name.to_string(), told))
    });
    live.collect()
}

async fn served_by(store: &Store, secs: i64) -> Served {
    let found = store.read("test", move |db| Ok(served(db, secs)));
    found.await.unwrap()
}

/// Everything that is copied, as text: rows of identities and deliveries, and who may read.
fn content(db: &Db) -> Vec<String> {
    let mut all = Vec::new();
    for sql in [
        "SELECT quote(num) || quote(name) || quote(resource) || quote(state) || quote(id) || quote(version) || \
         quote(expires_at) || quote(token) || quote(wish) || quote(good_until) || quote(revoked_at) FROM identity ORDER BY num",
        "SELECT quote(identity) || quote(sink) || quote(wanted) FROM delivery ORDER BY identity, sink",
        "SELECT quote(num) || quote(name) || quote(configured) FROM sink ORDER BY num",
        "SELECT quote(name) || quote(n) FROM reader ORDER BY name",
        "SELECT quote(num) || quote(name) FROM resource ORDER BY num",
    ] {
        all.extend(db.every(sql, [], |row| row.get::<_, String>(0)).unwrap());
    }
    all
}

async fn is_the_same(node: &Node, store: &Store) {
    let theirs = store.read("test", |db| Ok(content(db))).await.unwrap();
    let ours = node.mirror().read(|db| Ok(content(db)));
    assert_eq!(ours.unwrap().0.unwrap(), theirs);
}

#[tokio::test]
async fn a_token_is_served_until_it_ends_and_only_once_the_two_agreed() {
    let (home, num) = active().await;
    let mut node = Node::beside(&home).await;
    assert_eq!(node.served(20), Served::new());
    node.follow(&home, ChangedRows::Unknown, 20).await;
    is_the_same(&node, &home).await;
    assert_eq!(node.served(20), served_by(&home, 20).await);
    assert_eq!(node.served(20)["bot"].1, format!("canary-{num}-10"));
    node.reopen(CLUSTER);
    assert_eq!(node.mirror().agreed(), Some(at(20)));
    assert_eq!(node.served(86_000).len(), 1);
    assert_eq!(node.served(86_411), Served::new());
    // Once it has ended, no clock brings it back.
    node.mirror().forget_dead(at(86_411));
    assert_eq!(node.served(20), Served::new());
    node.follow(&home, ChangedRows::These(none()), 21).await;
    assert_eq!(node.served(21).len(), 1, "the database knows it still");
}

#[tokio::test]
async fn what_is_withdrawn_over_this_node_is_taken_over_before_it_agrees_again() {
    let (home, num) = active().await;
    let node = Node::beside(&home).await;
    node.follow(&home, ChangedRows::Unknown, 20).await;
    step(&home, num, Step::Withhold, 30).await;
    assert_eq!(node.served(30).len(), 1, "nobody told it");
    node.take(&home, [num].into()).await;
    assert_eq!(node.served(30), Served::new());
    assert_eq!(node.mirror().agreed(), Some(at(20)));
    let state = node
        .mirror()
        .read(|db| Ok(db.record("bot")?.unwrap().state));
    assert_eq!(state.unwrap().0.unwrap(), State::Held);
}

#[tokio::test]
async fn a_mirror_of_others_or_damaged_is_set_aside_and_never_served() {
    let (home, _) = active().await;
    let mut node = Node::beside(&home).await;
    let whole = async |node: &mut Node| {
        node.reopen(CLUSTER);
        node.follow(&home, ChangedRows::Unknown, 20).await;
        assert_eq!(node.served(20).len(), 1);
        assert_eq!(node.mirror().trouble(), None);
    };
    let is_aside = |node: &Node, why: &str| {
        assert_eq!(node.served(20), Served::new(), "{why}");
        assert_eq!(node.mirror().agreed(), None, "{why}");
        let told = node.mirror().trouble().unwrap();
        assert!(told.contains(why), "{told}");
        assert!(node.file("mirror.db.aside").exists(), "{why}");
    };

    whole(&mut node).await;
    node.reopen("staging");
    is_aside(&node, "of the cluster production");

    whole(&mut node).await;
    let own = std::mem::replace(&mut node.seal, Arc::new(Seal::new(&[7; 32])));
    node.reopen(CLUSTER);
    is_aside(&node, "sealed with");
    node.seal = own;

    whole(&mut node).await;
    node.mirror = None;
    let path = node.file("mirror.db");
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[half..half + 8192].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    node.reopen(CLUSTER);
    is_aside(&node, "damaged");

    whole(&mut node).await;
    node.mirror = None;
    fs::write(&path, b"no database at all").unwrap();
    node.reopen(CLUSTER);
    is_aside(&node, "");

    whole(&mut node).await;
    node.mirror = None;
    let conn = rusqlite::Connection::open(&path).unwrap();
    let newer = super::super::schema::NEWEST + 1;
    conn.pragma_update(None, "user_version", newer).unwrap();
    drop(conn);
    node.reopen(CLUSTER);
    is_aside(&node, "a newer renewd");
    whole(&mut node).await;
}

#[tokio::test]
async fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let (home, _) = active().await;
    let node = Node::beside(&home).await;
    node.follow(&home, ChangedRows::Unknown, 20).await;
    let mode = fs::metadata(node.file("mirror.db")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[tokio::test]
async fn another_store_of_the_same_name_takes_the_place_of_what_was_copied() {
    let (home, _) = active().await;
    let node = Node::beside(&home).await;
    node.follow(&home, ChangedRows::Unknown, 20).await;
    let other = Home::new();
    declare(&other, &[with_id("ada", "8:acs:ada")], 0).await;
    node.follow(&other, ChangedRows::These(none()), 21).await;
    let names = node.mirror().read(|db| {
        let records = db.list("", 100)?;
        Ok(records
            .into_iter()
            .map(|one| one.spec.name.to_string())
            .collect::<Vec<_>>())
    });
    assert_eq!(names.unwrap().0.unwrap(), ["ada"]);
    is_the_same(&node, &other).await;
}

#[tokio::test]
async fn nothing_is_served_of_a_store_that_waits_for_a_person() {
    let (home, _) = active().await;
    let mut node = Node::beside(&home).await;
    node.follow(&home, ChangedRows::Unknown, 20).await;
    home.distrust(at(15), &Cause::ours("a test"), at(21))
        .await
        .unwrap();
    node.follow(&home, ChangedRows::These(none()), 22).await;
    assert_eq!(node.served(22), Served::new());
    node.reopen(CLUSTER);
    assert_eq!(node.served(22), Served::new());
}

/// What happens to a mirror between two events of its store.
#[derive(Debug, Clone)]
enum Beside {
    /// It follows; what changed is known, or not.
    Follow {
        known: bool,
    },
    /// The database goes away after so many statements.
    Cut(usize),
    /// The daemon is killed and starts again.
    Kill,
    /// The file is damaged while nobody looks.
    Damage(usize),
    Nothing,
}

fn beside() -> impl Strategy<Value = Beside> {
    prop_oneof![
        4 => any::<bool>().prop_map(|known| Beside::Follow { known }),
        2 => (0..12_usize).prop_map(Beside::Cut),
        2 => Just(Beside::Kill),
        1 => any::<usize>().prop_map(Beside::Damage),
        5 => Just(Beside::Nothing),
    ]
}

/// A node beside a world, and what the database said when the two last agreed.
struct Pair {
    world: World,
    node: Node,
    /// Everybody ever known: what changed is among them.
    nums: BTreeSet<Num>,
    /// Who held which token when they last agreed, and whose token was known as dead or withdrawn since.
    agreed: Served,
}

impl Pair {
    async fn happen(&mut self, event: Event) {
        // What a person withdraws over this node is in its mirror before the answer.
        let withdrawn = match &event {
            Event::On(row, OnRow::Step(_)) => Some(*row),
            _ => None,
        };
        let restarted = matches!(event, Event::Restart);
        self.world.happen(event).await;
        if restarted {
            self.node.seal = seal_of(&self.world.home).await;
            self.node.reopen(CLUSTER);
        }
        for record in self.world.home.list(None, 100).await.unwrap() {
            self.nums.insert(record.num);
        }
        if let Some(row) = withdrawn
            && let Some(record) = self.world.record(row).await
        {
            self.node.take(&self.world.home, [record.num].into()).await;
            let theirs = served_by(&self.world.home, self.world.now).await;
            let name = record.spec.name.to_string();
            match theirs.get(&name) {
                Some(told) => _ = self.agreed.insert(name, told.clone()),
                None => _ = self.agreed.remove(&name),
            }
        }
    }

    async fn beside(&mut self, beside: Beside) {
        let now = self.world.now;
        match beside {
            Beside::Follow { known } => {
                // Where nothing changed the small tables are compared now and then.
                let changes = match known && !self.nums.is_empty() {
                    true => ChangedRows::These(self.nums.clone()),
                    false => ChangedRows::Unknown,
                };
                self.node.follow(&self.world.home, changes, now).await;
                self.agreed = served_by(&self.world.home, now).await;
                is_the_same(&self.node, &self.world.home).await;
            }
            Beside::Cut(after) => self.cut(after).await,
            Beside::Kill => self.node.reopen(CLUSTER),
            Beside::Damage(place) => {
                self.node.mirror = None;
                let path = self.node.file("mirror.db");
                if let Ok(mut bytes) = fs::read(&path)
                    && !bytes.is_empty()
                {
                    let place = place % bytes.len();
                    let upto = bytes.len().min(place + 4096);
                    bytes[place..upto].fill(0xa5);
                    fs::write(&path, bytes).unwrap();
                }
                self.node.reopen(CLUSTER);
            }
            Beside::Nothing => {}
        }
    }

    /// Follows a database that goes away in the middle: rows that came over are as they are now.
    async fn cut(&mut self, after: usize) {
        let (mirror, now) = (self.node.mirror(), self.world.now);
        let some: BTreeSet<Num> = self.nums.iter().copied().take(after).collect();
        let cut = self.world.home.read("test", move |db| {
            mirror
                .follow(
                    db,
                    |db, _| {
                        mirror.take(db, &some);
                        Err(crate::store::error::Fault::Refused("cut".to_owned()))
                    },
                    at(now),
                )
                .ok();
            Ok(())
        });
        cut.await.unwrap();
        let (theirs, ours) = (
            served_by(&self.world.home, now).await,
            self.node.served(now),
        );
        let came_over = theirs
            .into_iter()
            .filter(|(name, told)| ours.get(name) == Some(told));
        self.agreed.extend(came_over);
    }

    async fn check(&self) {
        let now = self.world.now;
        let theirs = served_by(&self.world.home, now).await;
        for (name, told) in self.node.served(now) {
            let agreed = self.agreed.get(&name) == Some(&told);
            assert!(
                agreed || theirs.get(&name) == Some(&told),
                "{name}: {told:?}"
            );
        }
    }
}

async fn seal_of(store: &Store) -> Arc<Seal> {
    store.read("test", |db| Ok(db.seal.clone())).await.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn it_serves_what_both_agreed_on_and_nothing_that_is_dead(steps in proptest::collection::vec((events(), beside()), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new(Home::new());
            let node = Node::beside(&world.home).await;
            let mut pair = Pair { world, node, nums: BTreeSet::new(), agreed: Served::new() };
            for (event, beside) in steps {
                pair.happen(event).await;
                pair.beside(beside).await;
                pair.check().await;
            }
            pair.beside(Beside::Follow { known: false }).await;
            is_the_same(&pair.node, &pair.world.home).await;
            assert_eq!(pair.node.served(pair.world.now), pair.agreed);
        });
    }
}
