//! Files of one folder that are written together: they share the way to it, what the disk needs to keep them, and one
//! flush of the folder. Each is answered by itself, once it and its name are kept; whatever is odd about one is met
//! when it is written by itself, after the others.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{
    Content, DeliveryOutcome, FileError, Inner, Receipt, SinkDelivery, WriteMode, receipt,
    replace::{self, Folder, Missing, Successor},
};

/// The most that are written together.
const TOGETHER: usize = 16;

/// How a delivery ended, or what it panicked with.
type Ended = thread::Result<Result<Receipt, FileError>>;

/// Deliveries that wait for a thread.
#[derive(Debug, Default)]
pub(super) struct FileQueue(Mutex<QueuedWrites>);

#[derive(Debug, Default)]
struct QueuedWrites {
    last: u64,
    all: Vec<FileWrite>,
}

#[derive(Debug)]
struct FileWrite {
    number: u64,
    delivery: SinkDelivery,
    now: Timestamp,
    folders: Vec<String>,
    file: String,
    ended: oneshot::Sender<Ended>,
}

impl FileQueue {
    /// The one of this number, unless a thread has it, and others of its folder.
    fn take(&self, number: u64) -> Vec<FileWrite> {
        let mut waiting = self.lock();
        let Some(at) = waiting.all.iter().position(|put| put.number == number) else {
            return Vec::new();
        };
        let mut taken = vec![waiting.all.remove(at)];
        let mut room = TOGETHER - 1;
        let beside = |put: &mut FileWrite| {
            let goes = room > 0 && taken.first().is_some_and(|one| one.folders == put.folders);
            room -= usize::from(goes);
            goes
        };
        let others: Vec<FileWrite> = waiting.all.extract_if(.., beside).collect();
        taken.extend(others);
        taken
    }

    fn lock(&self) -> MutexGuard<'_, QueuedWrites> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery that waits, or is on its way; it waits no more when this is dropped.
#[derive(Debug)]
pub(super) struct QueuedFile {
    sink: Arc<Inner>,
    pub(super) number: u64,
    ended: oneshot::Receiver<Ended>,
}

impl QueuedFile {
    pub(super) fn new(sink: &Arc<Inner>, delivery: SinkDelivery, now: Timestamp) -> Self {
        let document = &delivery.document;
        let (folders, file) = sink.path.place(&document.name, &document.resource);
        let (told, ended) = oneshot::channel();
        let mut waiting = sink.queue.lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.all.push(FileWrite {
            number,
            delivery,
            now,
            folders,
            file,
            ended: told,
        });
        drop(waiting);
        let sink = Arc::clone(sink);
        Self {
            sink,
            number,
            ended,
        }
    }

    /// Waits for the thread that writes it.
    pub(super) async fn ended(&mut self) -> Result<Receipt, FileError> {
        match (&mut self.ended).await {
            Ok(Ok(ended)) => ended,
            // A panic goes on where it would have without the thread.
            Ok(Err(panic)) => resume_unwind(panic),
            // The runtime ends, and nobody waits for this.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for QueuedFile {
    fn drop(&mut self) {
        let mut waiting = self.sink.queue.lock();
        waiting.all.retain(|put| put.number != self.number);
    }
}

impl Inner {
    /// Writes the file of this number, and of others that wait for its folder.
    pub(super) fn write_with(&self, number: u64) {
        let mut puts = self.queue.take(number);
        if puts.len() > 1 && self.write == WriteMode::Replace {
            let together = AssertUnwindSafe(|| self.write_together(&mut puts));
            // Who panicked panics again by itself.
            catch_unwind(together).ok();
        }
        for put in puts {
            let alone = AssertUnwindSafe(|| self.put(&put.delivery, put.now));
            // Whoever asked may have gone in the meantime.
            put.ended.send(catch_unwind(alone)).ok();
        }
    }

    /// Writes those of one folder that get a new file as usual, answers them and takes them out.
    fn write_together(&self, puts: &mut Vec<FileWrite>) {
        let way = puts.first().map(|put| put.folders.as_slice());
        let folder = way.and_then(|way| Folder::open(way, Missing::Leave).ok()?);
        let Some(folder) = folder else {
            return;
        };
        let (mut ended, mut is_flushed) = (BTreeMap::new(), false);
        for (at, receipt) in self.replaced(&folder, puts) {
            // The first flush is that of all; where it fails, each says so of its own file.
            let is_kept = is_flushed || receipt.outcome == DeliveryOutcome::Unchanged;
            let kept = match is_kept {
                true => Ok(()),
                false => folder.flush(puts.get(at).map_or("", |put| &put.file)),
            };
            is_flushed |= !is_kept && kept.is_ok();
            ended.insert(at, kept.map(|()| receipt));
        }
        for (at, ended) in ended.into_iter().rev() {
            puts.remove(at).ended.send(Ok(ended)).ok();
        }
    }

    /// Gives these files their successors, all written before the first is flushed; those for which that worked, or
    /// which are as they should be.
    fn replaced(&self, folder: &Folder, puts: &[FileWrite]) -> Vec<(usize, Receipt)> {
        let (mut ended, mut written) = (Vec::new(), Vec::new());
        for (at, put) in puts.iter().enumerate() {
            let content = self.format.one(&put.delivery.document);
            let access = self.access(&put.delivery.readers, put.now);
            let (Ok(Content::Bytes(bytes)), Ok(access)) = (content, access) else {
                continue;
            };
            let receipt = |outcome| receipt(outcome, folder, &put.file, &bytes);
            if replace::holds(folder, &put.file, &bytes, &access) {
                ended.push((at, receipt(DeliveryOutcome::Unchanged)));
            } else if let Ok(successor) = Successor::write(folder, &put.file, &bytes, &access) {
                written.push((at, successor, receipt(DeliveryOutcome::Written)));
            }
        }
        let placed = written.into_iter().filter_map(|(at, successor, receipt)| {
            successor.take_place().is_ok().then_some((at, receipt))
        });
        ended.extend(placed);
        ended
    }
}
