//! Who is at the other end of the socket, and what they may do.
//!
//! The kernel says which user connected (`SO_PEERCRED`, fixed at `connect`); the system's user
//! database says which groups that user is in. Both decide, and nothing that the caller sends.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{accounts, model::Reader};

/// The user that connected, as the kernel saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
}

impl Peer {
    /// The block of uids that it belongs to. A user may be given thousands of uids (subuid(5)), and they lie together;
    /// users of the system are in the first block.
    pub(super) fn block(self) -> u32 {
        self.uid >> 16
    }
}

/// A caller with every group that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub uid: u32,
    pub gids: BTreeSet<u32>,
    /// What the system calls the user.
    pub name: String,
    /// Every way in which a list of readers names the user or one of the groups.
    pub names: Vec<Reader>,
}

/// How far a caller is known before it has asked for anything; by it seats are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CallerStanding {
    /// Root, or the daemon's own user.
    Trusted,
    /// May read some identity, or control.
    Reader,
    /// May do nothing, as far as the names of its user and groups tell.
    Stranger,
    /// The system is being asked.
    Unknown,
}

/// The turns of all requests of one user: so many are worked on at once, and so many refusals are given.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    work: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

/// A refusal takes so long.
const IN_VAIN: Duration = Duration::from_millis(20);
/// Refusals of one user at once.
const REFUSALS: usize = 4;

impl Turns {
    /// So many at once.
    pub(super) fn of(most: usize) -> Self {
        Self {
            work: Arc::new(Semaphore::new(most)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
        }
    }

    /// Waits for the next turn, where turns are taken; it lasts until dropped.
    pub(super) async fn next(turns: Option<&Self>) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&turns?.work).acquire_owned().await.ok()
    }

    /// Waits before a refusal: who asks in vain, on however many connections, asks seldom and keeps nobody busy.
    pub(super) async fn refuse(&self) {
        let _turn = self.refusals.acquire().await;
        tokio::time::sleep(IN_VAIN).await;
    }
}

/// A user or group of this system, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Principal {
    User(u32),
    Group(u32),
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    None,
    /// Fetch this identity's token.
    Read,
    Control,
}

/// What `caller` may do where `readers` may read: root, the daemon's own user and admins control.
pub(super) fn right(
    caller: &Caller,
    own_uid: u32,
    admins: &[Principal],
    readers: &[Principal],
) -> Right {
    let among = |list: &[Principal]| list.iter().any(|one| caller.is(*one));
    if caller.uid == 0 || caller.uid == own_uid || among(admins) {
        Right::Control
    } else if among(readers) {
        Right::Read
    } else {
        Right::None
    }
}

impl Caller {
    /// Asks the system who the peer is; that may hang.
    pub(super) fn ask(peer: Peer) -> Self {
        let name = accounts::user_of(peer.uid).name;
        let gids: BTreeSet<u32> = accounts::groups_of(peer.uid)
            .into_iter()
            .chain([peer.gid])
            .collect();
        let users = [name.clone(), peer.uid.to_string()].map(Reader::User);
        let groups = gids
            .iter()
            .flat_map(|gid| [accounts::group_of(*gid).name, gid.to_string()].map(Reader::Group));
        Self {
            uid: peer.uid,
            names: users.into_iter().chain(groups).collect(),
            gids,
            name,
        }
    }

    fn is(&self, principal: Principal) -> bool {
        match principal {
            Principal::User(uid) => self.uid == uid,
            Principal::Group(gid) => self.gids.contains(&gid),
        }
    }
}

impl Principal {
    /// Whom a name means, if the system knows it.
    pub(super) fn of(reader: &Reader) -> Option<Self> {
        match reader {
            Reader::User(name) => accounts::user(name).map(|user| Self::User(user.uid)),
            Reader::Group(name) => accounts::group(name).map(|group| Self::Group(group.gid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 990;

    fn caller(uid: u32, gids: &[u32]) -> Caller {
        Caller {
            uid,
            gids: gids.iter().copied().collect(),
            name: String::new(),
            names: Vec::new(),
        }
    }

    #[test]
    fn root_and_the_daemon_control_even_where_nobody_is_named() {
        for uid in [0, OWN] {
            assert_eq!(right(&caller(uid, &[]), OWN, &[], &[]), Right::Control);
        }
        assert_eq!(
            right(&caller(1000, &[0, OWN]), OWN, &[], &[]),
            Right::None,
            "a group is no user"
        );
    }

    #[test]
    fn readers_read_and_admins_control() {
        let admins = [Principal::Group(27)];
        let readers = [Principal::User(1000), Principal::Group(50)];
        for (who, may) in [
            (caller(1000, &[1000]), Right::Read),
            (caller(1001, &[1001, 50]), Right::Read),
            (caller(1002, &[1002, 27]), Right::Control),
            (caller(1000, &[1000, 27]), Right::Control),
            (caller(1003, &[1003, 1000]), Right::None),
            (caller(50, &[99]), Right::None),
        ] {
            assert_eq!(right(&who, OWN, &admins, &readers), may, "{who:?}");
        }
    }

    #[test]
    fn an_unknown_name_means_nobody_and_a_caller_is_known_by_every_name() {
        let of = |text: &str| Principal::of(&Reader::from(text.to_owned()));
        assert_eq!(of("no-such-user-here"), None);
        let nobody = accounts::user("nobody").unwrap();
        assert_eq!(of("nobody"), Some(Principal::User(nobody.uid)));
        let caller = Caller::ask(Peer {
            uid: nobody.uid,
            gid: 0,
        });
        let group = accounts::group_of(nobody.gid.unwrap()).name;
        for name in ["nobody", "group:root", "group:0", &format!("group:{group}")] {
            assert!(
                caller.names.contains(&Reader::from(name.to_owned())),
                "{name}"
            );
        }
        assert_eq!(caller.name, "nobody");
    }
}
