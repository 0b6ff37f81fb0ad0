//! Readers by number. Asking the system costs, with a directory service behind it even a network
//! call, so an answer is remembered for a minute.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use super::{FileError, access::Granted};
use crate::{accounts, model::Reader};

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
