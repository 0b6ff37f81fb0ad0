//! The only room that asks the system who a user or group is.
//!
//! Answers come from the C library, so from whatever `nsswitch.conf` names (files, LDAP, SSSD). A
//! database that does not answer looks like one that does not know: callers try again later.
//! Numbers are taken at their word, known or not, as `chown` does.

use nix::unistd::{Gid, Uid, getgrouplist};

/// A user of this system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The login name; the decimal uid where the system knows no name.
    pub name: String,
    pub uid: u32,
    /// The primary group; `None` where the system does not know the user.
    pub gid: Option<u32>,
}

/// A group of this system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The name; the decimal gid where the system knows no name.
    pub name: String,
    pub gid: u32,
}

/// The user of this name, or of this decimal uid.
pub fn user(name_or_uid: &str) -> Option<User> {
    match nix::unistd::User::from_name(name_or_uid) {
        Ok(Some(user)) => Some(known_user(user)),
        _ => name_or_uid.parse().ok().map(user_of),
    }
}

/// The user with this uid, named by its number where the system knows no name.
pub fn user_of(uid: u32) -> User {
    match nix::unistd::User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => known_user(user),
        _ => User {
            name: uid.to_string(),
            uid,
            gid: None,
        },
    }
}

/// The group of this name, or of this decimal gid.
pub fn group(name_or_gid: &str) -> Option<Group> {
    match nix::unistd::Group::from_name(name_or_gid) {
        Ok(Some(group)) => Some(Group {
            name: group.name,
            gid: group.gid.as_raw(),
        }),
        _ => name_or_gid.parse().ok().map(group_of),
    }
}

/// The group with this gid, named by its number where the system knows no name.
pub fn group_of(gid: u32) -> Group {
    let name = match nix::unistd::Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.name,
        _ => gid.to_string(),
    };
    Group { name, gid }
}

/// Every group that the system's database gives to this uid, the primary one included; sorted. Empty
/// for a uid that it does not know.
pub fn groups_of(uid: u32) -> Vec<u32> {
    let user = user_of(uid);
    let (Some(gid), Ok(name)) = (user.gid, std::ffi::CString::new(user.name)) else {
        return Vec::new();
    };
    let listed = getgrouplist(&name, Gid::from_raw(gid)).unwrap_or_default();
    let mut gids: Vec<u32> = listed.into_iter().map(Gid::as_raw).collect();
    gids.push(gid);
    gids.sort_unstable();
    gids.dedup();
    gids
}

/// The uid that this process acts as.
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn known_user(user: nix::unistd::User) -> User {
    User {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: Some(user.gid.as_raw()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_name_and_by_number() {
        let root = user("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, Some(0)));
        assert_eq!(user("0").unwrap(), root);
        assert_eq!(group("root").unwrap().gid, 0);
        assert!(groups_of(0).contains(&0));
    }

    #[test]
    fn nobody_has_its_own_groups_only() {
        let nobody = user("nobody").unwrap();
        assert_eq!(user_of(nobody.uid).name, "nobody");
        let groups = groups_of(nobody.uid);
        assert!(groups.contains(&nobody.gid.unwrap()));
        assert!(!groups.contains(&0));
    }

    #[test]
    fn an_unknown_name_is_nobody_and_an_unknown_number_is_itself() {
        assert_eq!(user("no-such-user-here"), None);
        assert_eq!(group("no-such-group-here"), None);
        let stranger = user("3999999999").unwrap();
        assert_eq!((stranger.uid, stranger.gid), (3_999_999_999, None));
        assert_eq!(groups_of(3_999_999_999), Vec::<u32>::new());
    }
}
