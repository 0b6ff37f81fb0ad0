//! Who may read a file: its mode, and a POSIX ACL with an entry for each reader.
//!
//! The ACL is set as the extended attribute that the kernel keeps it in, version 2: a header and one
//! entry of 8 bytes per subject, little-endian (`linux/posix_acl_xattr.h`). The owner of a file may
//! set it without any privilege, whereas giving a file away needs one.
//!
//! The ACL names readers by number. Asking the system for one costs, with a directory service behind it even a
//! network call, so an answer is remembered for a minute.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, BorrowedFd},
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use rustix::{
    fs::{
        Gid, Mode, Stat, Uid, XattrFlags, fchmod, fchown, fgetxattr, fremovexattr, fsetxattr, fstat,
    },
    io::Errno,
};

use super::FileError;
use crate::{accounts, model::Reader};

/// The attribute that holds a file's ACL.
const ATTRIBUTE: &str = "system.posix_acl_access";
/// Bits of a mode that say who may do what.
const PERMISSIONS: u32 = 0o7777;
/// What a reader may do.
const READ: u32 = 0o4;
/// What shows a token, or lets somebody put another in its place.
const READ_AND_WRITE: u32 = 0o6;
/// The kernel allows no attribute to be larger.
const LARGEST: usize = 64 << 10;
/// The id in entries that name nobody.
const NO_ID: u32 = u32::MAX;

/// The subjects of an ACL, in the order in which the kernel wants them.
#[derive(Clone, Copy)]
#[repr(u16)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    OwningGroup = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

/// Users and groups by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) users: BTreeSet<u32>,
    pub(super) groups: BTreeSet<u32>,
}

/// The access that a file should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    /// As `stat` shows it: with an ACL, the group's bits are its mask.
    mode: u32,
    /// The attribute; `None` where the mode says it all.
    acl: Option<Vec<u8>>,
    owner: u32,
    /// Its group, where that matters.
    group: Option<u32>,
}

/// Why a file does not have the access that it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessRefused {
    /// The mode or the ACL.
    Access(Errno),
    /// To give it away.
    Ownership(Errno),
}

impl Access {
    /// The bits of `mode`, and the right to read for everyone in `granted`. Of a file that is given
    /// away we stay a reader, so as to see whether it still is as it should be.
    pub(super) fn new(
        mode: u32,
        mut granted: Granted,
        owner: Option<u32>,
        gid: Option<u32>,
    ) -> Self {
        let mode = mode & PERMISSIONS;
        let own = crate::accounts::own_uid();
        let owner_id = owner.unwrap_or(own);
        if owner_id != own && own != 0 {
            granted.users.insert(own);
        }
        if granted == Granted::default() {
            return Self {
                mode,
                acl: None,
                owner: owner_id,
                group: gid,
            };
        }
        let (owner, group, other) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
        let mask = group | READ;
        let mut acl = 2u32.to_le_bytes().to_vec();
        let mut entry = |tag: Tag, permissions: u32, id: u32| {
            acl.extend((tag as u16).to_le_bytes());
            acl.extend(permissions.to_le_bytes().into_iter().take(2));
            acl.extend(id.to_le_bytes());
        };
        entry(Tag::Owner, owner, NO_ID);
        granted
            .users
            .iter()
            .for_each(|uid| entry(Tag::User, READ, *uid));
        entry(Tag::OwningGroup, group, NO_ID);
        granted
            .groups
            .iter()
            .for_each(|gid| entry(Tag::Group, READ, *gid));
        entry(Tag::Mask, mask, NO_ID);
        entry(Tag::Other, other, NO_ID);
        Self {
            mode: mode & !0o070 | mask << 3,
            acl: Some(acl),
            owner: owner_id,
            group: gid,
        }
    }

    /// Gives a file this access. An ACL that it inherited from its folder goes. It is given away
    /// last: what is not ours we could not change any more.
    pub(super) fn grant(&self, file: impl AsFd) -> Result<(), AccessRefused> {
        let file = file.as_fd();
        self.grant_reading(file).map_err(AccessRefused::Access)?;
        let stat = fstat(file).map_err(AccessRefused::Ownership)?;
        let owner = (stat.st_uid != self.owner).then(|| Uid::from_raw(self.owner));
        let group = self.group.filter(|gid| stat.st_gid != *gid);
        if owner.is_none() && group.is_none() {
            return Ok(());
        }
        fchown(file, owner, group.map(Gid::from_raw)).map_err(AccessRefused::Ownership)
    }

    fn grant_reading(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        if let Some(acl) = &self.acl {
            fchmod(file, Mode::from_raw_mode(self.mode & !0o070))?;
            return fsetxattr(file, ATTRIBUTE, acl, XattrFlags::empty());
        }
        match fremovexattr(file, ATTRIBUTE) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
        fchmod(file, Mode::from_raw_mode(self.mode))
    }

    /// Whether a file has exactly this access, in a folder where new files get one of `groups`.
    pub(super) fn is_on(&self, file: impl AsFd, stat: &Stat, groups: [u32; 2]) -> bool {
        let is_owned = stat.st_uid == self.owner && self.fits_group(stat.st_gid, groups);
        if !is_owned || stat.st_mode & PERMISSIONS != self.mode {
            return false;
        }
        // One byte more than wanted, so that a longer attribute does not look like ours.
        let mut found = vec![0; self.acl.as_ref().map_or(0, Vec::len) + 1];
        match (&self.acl, fgetxattr(file, ATTRIBUTE, &mut found[..])) {
            (Some(wanted), Ok(length)) => found.get(..length) == Some(wanted.as_slice()),
            (None, Err(Errno::NODATA | Errno::OPNOTSUPP)) => true,
            _ => false,
        }
    }

    /// Whether a file may belong to this group. Where none is asked for and the group may read, it is
    /// one that a new file would get: not that of an earlier configuration.
    fn fits_group(&self, gid: u32, groups: [u32; 2]) -> bool {
        match self.group {
            Some(wanted) => wanted == gid,
            None => self.mode & 0o060 == 0 || groups.contains(&gid),
        }
    }

    /// Whether somebody may read or write the file now who may not under this access: whoever has it
    /// open goes on. Ourselves and root aside. What cannot be read counts as so.
    pub(super) fn takes_from(&self, file: impl AsFd, stat: &Stat, groups: [u32; 2]) -> bool {
        if !self.fits_group(stat.st_gid, groups) && stat.st_mode & 0o060 != 0 {
            return true;
        }
        let mut found = vec![0; LARGEST];
        let acl = match fgetxattr(file, ATTRIBUTE, &mut found[..]) {
            Ok(length) => found.get(..length),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => None,
            Err(_) => return true,
        };
        let now = rights(acl, stat.st_mode, stat.st_uid, stat.st_gid);
        let gid = self.group.unwrap_or(stat.st_gid);
        let then = rights(self.acl.as_deref(), self.mode, self.owner, gid);
        let own = Subject::User(crate::accounts::own_uid());
        now.iter().any(|(who, may)| {
            let left = then.get(who).copied().unwrap_or_default();
            may & !left != 0 && *who != own && *who != Subject::User(0)
        })
    }
}

/// Somebody who may read or write a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    User(u32),
    Group(u32),
    Others,
}

/// Who may read or write a file by its ACL, or by its mode where it has none.
fn rights(acl: Option<&[u8]>, mode: u32, uid: u32, gid: u32) -> BTreeMap<Subject, u32> {
    let mut rights: BTreeMap<Subject, u32> = BTreeMap::new();
    let mut add =
        |who, permissions: u32| *rights.entry(who).or_default() |= permissions & READ_AND_WRITE;
    add(Subject::User(uid), mode >> 6);
    add(Subject::Others, mode);
    // With an ACL the group's bits are its mask.
    let mask = mode >> 3 & 7;
    let entries = acl.and_then(|acl| acl.get(4..)).unwrap_or_default();
    if acl.is_none() {
        add(Subject::Group(gid), mask);
    }
    for entry in entries.as_chunks::<8>().0 {
        let [tag_low, tag_high, low, high, id @ ..] = *entry;
        let permissions = u32::from(u16::from_le_bytes([low, high])) & mask;
        let id = u32::from_le_bytes(id);
        match u16::from_le_bytes([tag_low, tag_high]) {
            tag if tag == Tag::User as u16 => add(Subject::User(id), permissions),
            tag if tag == Tag::OwningGroup as u16 => add(Subject::Group(gid), permissions),
            tag if tag == Tag::Group as u16 => add(Subject::Group(id), permissions),
            _ => {}
        }
    }
    rights
}

/// How long an answer is believed.
const BELIEVED: SignedDuration = SignedDuration::from_secs(60);

/// The readers that were asked for lately: their number, and when it was learnt.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<BTreeMap<Reader, (u32, Timestamp)>>);

impl Readers {
    /// The numbers of these readers.
    pub(super) fn resolve(&self, readers: &[Reader], now: Timestamp) -> Result<Granted, FileError> {
        let mut granted = Granted::default();
        for reader in readers {
            let id = self.number(reader, now)?;
            match reader {
                Reader::User(_) => granted.users.insert(id),
                Reader::Group(_) => granted.groups.insert(id),
            };
        }
        Ok(granted)
    }

    /// The number of one.
    pub(super) fn number(&self, reader: &Reader, now: Timestamp) -> Result<u32, FileError> {
        if let Some((id, learnt)) = self.lock().get(reader)
            && now.duration_since(*learnt).abs() < BELIEVED
        {
            return Ok(*id);
        }
        // Not under the lock: an answer may take seconds.
        let id = look_up(reader).ok_or_else(|| FileError::UnknownReader(reader.clone()))?;
        self.lock().insert(reader.clone(), (id, now));
        Ok(id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Reader, (u32, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look_up(reader: &Reader) -> Option<u32> {
    match reader {
        Reader::User(name) => accounts::user(name).map(|user| user.uid),
        Reader::Group(name) => accounts::group(name).map(|group| group.gid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_readers_the_mode_says_it_all() {
        let access = Access::new(0o600, Granted::default(), None, None);
        assert_eq!((access.mode, access.acl), (0o600, None));
    }

    #[test]
    fn entries_come_in_the_kernels_order() {
        let access = Access::new(
            0o600,
            Granted {
                users: [1001, 7].into(),
                groups: [20].into(),
            },
            None,
            None,
        );
        assert_eq!(access.mode, 0o640, "the mask shows in the group's place");
        let acl = access.acl.unwrap();
        assert_eq!(acl[..4], [2, 0, 0, 0]);
        let entries: Vec<(u16, u16, u32)> = acl[4..]
            .chunks(8)
            .map(|e| {
                (
                    u16::from_le_bytes([e[0], e[1]]),
                    u16::from_le_bytes([e[2], e[3]]),
                    u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
                )
            })
            .collect();
        assert_eq!(
            entries,
            [
                (0x01, 6, NO_ID),
                (0x02, 4, 7),
                (0x02, 4, 1001),
                (0x04, 0, NO_ID),
                (0x08, 4, 20),
                (0x10, 4, NO_ID),
                (0x20, 0, NO_ID),
            ]
        );
    }
}
