//! The threads behind an open store: one that writes, those that read, and where several machines share the store one
//! that says that this one lives. Under simulated time, and for short commands, there are none: whoever asks carries it
//! out.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    db::Db,
    error::{OpenError, Outcome, StoreError},
    open,
    writer::{BoxedAnswer, Operation, Writer, lost},
};
use crate::{
    config::{StorePlace, StoreSettings},
    sql::{self, Connection},
};

/// Operations that may wait for the writer before callers wait too.
const QUEUE: usize = 1024;
/// Connections that read, each on a thread of its own.
const READERS: usize = 2;
/// Threads of an open store: the readers' and the writer's.
pub const THREADS: usize = READERS + 1;

/// A read, answering by itself.
type Read = Box<dyn FnOnce(&Db) + Send>;
/// What a read does.
pub(super) type ReadWork = Box<dyn FnOnce(&Db) -> Outcome<BoxedAnswer> + Send>;

/// Who carries operations out.
pub(super) enum Threads {
    Running {
        writer: mpsc::Sender<Operation>,
        readers: mpsc::Sender<Read>,
        /// What a machine says of itself, where several share the store.
        pulse: Option<mpsc::Sender<Read>>,
        threads: Vec<JoinHandle<()>>,
    },
    /// Whoever asks carries it out.
    Inline(Box<Mutex<Writer>>),
}

impl Threads {
    /// Connects the readers and starts all threads.
    pub(super) fn start(writer: Writer, settings: &StoreSettings) -> Result<Self, OpenError> {
        let (readers, read_queue) = mpsc::channel(QUEUE);
        let read_queue = Arc::new(Mutex::new(read_queue));
        let mut threads = Vec::new();
        for n in 0..READERS {
            let db = connected(
                &writer,
                settings,
                &format!("read {n}"),
                Connection::reader_of,
            )?;
            let queue = read_queue.clone();
            let serve = move || serve_reads(&db, &queue);
            threads.push(spawned(settings, &format!("store-read-{n}"), serve)?);
        }
        let mut pulse = None;
        if settings.node.is_some() {
            let (sender, queue) = mpsc::channel(QUEUE);
            let db = connected(&writer, settings, "lease", |path| {
                Connection::writer_of(path, true)
            })?;
            let serve = move || serve_reads(&db, &Mutex::new(queue));
            threads.push(spawned(settings, "store-pulse", serve)?);
            pulse = Some(sender);
        }
        let (sender, queue) = mpsc::channel(QUEUE);
        let serve = move || writer.serve(queue);
        threads.push(spawned(settings, "store-write", serve)?);
        Ok(Self::Running {
            writer: sender,
            readers,
            pulse,
            threads,
        })
    }

    pub(super) fn inline(writer: Writer) -> Self {
        Self::Inline(Box::new(Mutex::new(writer)))
    }

    /// Hands an operation to the writer.
    pub(super) async fn write(&self, operation: Operation) -> Result<(), StoreError> {
        match self {
            Self::Inline(writer) => writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .apply(vec![operation]),
            Self::Running { writer, .. } => {
                let doing = operation.doing;
                let sent = writer.send(operation).await;
                sent.map_err(|_| StoreError::Closed { doing })?;
            }
        }
        Ok(())
    }

    /// Has a read done on a connection of the readers.
    pub(super) async fn read(
        &self,
        doing: &'static str,
        work: ReadWork,
    ) -> Result<BoxedAnswer, StoreError> {
        match self {
            Self::Inline(writer) => in_place(writer, doing, work),
            Self::Running { readers, .. } => asked(readers, doing, work).await,
        }
    }

    /// Has something short done on the connection of this machine's lease.
    pub(super) async fn pulse(
        &self,
        doing: &'static str,
        work: ReadWork,
    ) -> Result<BoxedAnswer, StoreError> {
        match self {
            Self::Inline(writer) => in_place(writer, doing, work),
            Self::Running { pulse: None, .. } => Err(StoreError::Closed { doing }),
            Self::Running {
                pulse: Some(pulse), ..
            } => asked(pulse, doing, work).await,
        }
    }

    #[cfg(feature = "simulation")]
    pub(super) fn keep_to_itself(&self) {
        if let Self::Inline(writer) = self {
            let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.db.conn.keep_to_itself();
        }
    }

    /// Waits until everything queued is committed.
    pub(super) fn end(self) {
        match self {
            Self::Running {
                writer,
                readers,
                pulse,
                threads,
            } => {
                drop((writer, readers, pulse));
                for thread in threads {
                    if thread.join().is_err() {
                        tracing::error!("a thread of the store panicked");
                    }
                }
            }
            Self::Inline(writer) => writer
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .close(),
        }
    }
}

/// A connection beside the writer's: to the file as `to_file` says, or to the database under this name.
fn connected(
    writer: &Writer,
    settings: &StoreSettings,
    name: &str,
    to_file: impl Fn(&Path) -> sql::Result<Connection>,
) -> Result<Db, OpenError> {
    let Db { seal, aside, .. } = &writer.db;
    let conn = match &settings.place {
        StorePlace::File(path) => to_file(path).map_err(|e| unopened(settings, &e))?,
        StorePlace::Database(_) => {
            let beside = writer.db.conn.beside(open::application(settings, name));
            beside.map_err(|e| open::explained(&settings.place.called(), &e))?
        }
    };
    let shared = (seal.clone(), aside.clone());
    Ok(Db::on(conn, shared, settings.node.clone()))
}

fn spawned(
    settings: &StoreSettings,
    name: &str,
    serve: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let named = thread::Builder::new().name(name.to_owned());
    named.spawn(serve).map_err(|e| unopened(settings, &e))
}

fn unopened(settings: &StoreSettings, error: &dyn fmt::Display) -> OpenError {
    OpenError::Other {
        path: settings.place.called(),
        reason: error.to_string(),
    }
}

fn in_place(
    writer: &Mutex<Writer>,
    doing: &'static str,
    work: ReadWork,
) -> Result<BoxedAnswer, StoreError> {
    let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    work(&writer.db).map_err(|fault| StoreError::new(doing, fault))
}

/// Has a read done by whoever serves this queue.
async fn asked(
    queue: &mpsc::Sender<Read>,
    doing: &'static str,
    work: ReadWork,
) -> Result<BoxedAnswer, StoreError> {
    let (reply, answer) = oneshot::channel();
    let read: Read = Box::new(move |db| {
        let looked = work(db).map_err(|fault| StoreError::new(doing, fault));
        // Whoever asked may have gone in the meantime.
        reply.send(looked).ok();
    });
    let sent = queue.send(read).await;
    sent.map_err(|_| StoreError::Closed { doing })?;
    answer.await.unwrap_or_else(|_| Err(lost(doing)))
}

fn serve_reads(db: &Db, queue: &Mutex<mpsc::Receiver<Read>>) {
    loop {
        let next = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some(read) = next else { return };
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(db)));
        if caught.is_err() {
            tracing::error!("a read of the store panicked");
        }
    }
}
