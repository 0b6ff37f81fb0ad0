//! Who is at the other end of the socket, and what they may do.
//!
//! The kernel says which user connected (`SO_PEERCRED`, fixed at `connect`); the system's user
//! database says which groups that user is in. Both decide, and nothing that the caller sends.

use std::collections::BTreeSet;

use crate::{accounts, model::Reader};

/// The user that connected, as the kernel saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its uid.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

/// A caller with every group that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub uid: u32,
    pub gids: BTreeSet<u32>,
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
    /// Nothing.
    None,
    /// Fetch this identity's token.
    Read,
    /// Everything.
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
    fn is(&self, principal: Principal) -> bool {
        match principal {
            Principal::User(uid) => self.uid == uid,
            Principal::Group(gid) => self.gids.contains(&gid),
        }
    }
}

/// Asks the system about the peer and the lists, then decides. It may take as long as a directory
/// server takes, so it runs where blocking is allowed; root and the daemon's own user need no asking.
pub(super) async fn decide(peer: Peer, admins: Vec<Reader>, readers: Vec<Reader>) -> Right {
    let own_uid = accounts::own_uid();
    let asked = move || {
        let caller = Caller {
            uid: peer.uid,
            gids: accounts::groups_of(peer.uid)
                .into_iter()
                .chain([peer.gid])
                .collect(),
        };
        right(
            &caller,
            own_uid,
            &principals(&admins),
            &principals(&readers),
        )
    };
    if peer.uid == 0 || peer.uid == own_uid {
        return Right::Control;
    }
    tokio::task::spawn_blocking(asked)
        .await
        .unwrap_or(Right::None)
}

/// How the audit trail names a peer: `uid 1000 (anna)`.
pub(super) async fn actor(peer: Peer) -> String {
    let name = tokio::task::spawn_blocking(move || accounts::user_of(peer.uid).name).await;
    match name {
        Ok(name) if name != peer.uid.to_string() => format!("uid {} ({name})", peer.uid),
        _ => format!("uid {}", peer.uid),
    }
}

/// Names that the system does not know grant nothing.
fn principals(readers: &[Reader]) -> Vec<Principal> {
    readers
        .iter()
        .filter_map(|reader| match reader {
            Reader::User(name) => accounts::user(name).map(|user| Principal::User(user.uid)),
            Reader::Group(name) => accounts::group(name).map(|group| Principal::Group(group.gid)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 990;

    fn caller(uid: u32, gids: &[u32]) -> Caller {
        Caller {
            uid,
            gids: gids.iter().copied().collect(),
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

    #[tokio::test]
    async fn an_unknown_name_grants_nothing_and_a_known_one_does() {
        let nobody = accounts::user("nobody").unwrap();
        let peer = Peer {
            uid: nobody.uid,
            gid: nobody.gid.unwrap(),
        };
        let list = |text: &str| vec![Reader::from(text.to_owned())];
        assert_eq!(
            decide(peer, list("no-such-user-here"), vec![]).await,
            Right::None
        );
        assert_eq!(decide(peer, vec![], list("nobody")).await, Right::Read);
        assert_eq!(decide(peer, list("nobody"), vec![]).await, Right::Control);
        assert_eq!(actor(peer).await, format!("uid {} (nobody)", peer.uid));
    }
}
