//! A session with PostgreSQL: one connection, used by one thread at a time, on a runtime of its own.
//!
//! Every statement has a deadline. A connection that is dead (closed, silent, read only by now) ends the transaction
//! that is open on it, and the next one begins on a host that takes writes. After an error a transaction takes
//! nothing but what takes it back.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError, Weak},
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use rusqlite::ToSql;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::AbortHandle,
    time::{error::Elapsed, timeout},
};
use tokio_postgres::{Client, RowStream, Statement, error::SqlState};

use super::{
    Result, SqlError,
    connect::{Away, Connected, MARK, Remote, Server, is_marked, race},
    error::{is_about_statements, is_dead, is_of_another_session, is_worth_again},
    pipeline::Pipeline,
    text::{Control, Extent, controls, translated},
    wire::{Parameter, Unfit},
};

/// Statements that stay prepared; more are texts that were put together.
const PREPARED: usize = 512;
/// Rows that are taken in at once where the whole answer is wanted.
const CHUNK: usize = 256;
/// The first page of an answer of which only so much is wanted, and the largest one.
const FIRST_PAGE: usize = 16;
const LAST_PAGE: usize = 4096;
/// So many statements are sent without waiting for an answer.
const PIPELINED: usize = 256;
/// After no host took writes, nobody waits for them again for so long.
const REST: Duration = Duration::from_millis(500);
/// How long a connection has to say goodbye.
const GOODBYE: Duration = Duration::from_millis(2);

type Db<T> = std::result::Result<T, tokio_postgres::Error>;

/// How the transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Open,
    /// A statement failed: it takes nothing more.
    Failed,
    /// It ended with its connection; whoever works on it does not go on without it.
    Gone,
}

/// A connection that lives, as far as is known.
struct Link {
    client: Arc<Client>,
    server: Server,
    driver: AbortHandle,
    /// What the session calls itself, so that each transaction is known to be on it.
    mark: String,
    /// How many servers had fallen silent when it was made: with more, this one may be silent too.
    silences: u64,
    prepared: HashMap<(String, Extent), Statement>,
}

pub(crate) struct Session {
    remote: Remote,
    /// Taken when it ends.
    runtime: Option<Runtime>,
    link: RefCell<Option<Link>>,
    phase: Cell<Phase>,
    changed: Cell<u64>,
    /// What was sent in the transaction that is open.
    pipeline: RefCell<Pipeline>,
    /// Whether the last transaction ended by itself for a reason outside of it.
    ended_again: Cell<bool>,
    /// The answer that is being looked at.
    open: RefCell<Weak<Mutex<Answer>>>,
    /// Why no host took writes, and when that was.
    away: RefCell<Option<(Away, Instant)>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("remote", &self.remote.to_string())
            .field("phase", &self.phase.get())
            .finish_non_exhaustive()
    }
}

/// Rows as they come. The server waits until they are taken in.
struct Answer {
    stream: Option<Pin<Box<RowStream>>>,
    /// What was taken in before its turn, because another statement had to run.
    early: VecDeque<tokio_postgres::Row>,
}

impl Session {
    /// Connects to the first host that takes writes.
    pub(crate) fn open(remote: Remote) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| SqlError::Lost(format!("no runtime: {error}")))?;
        let session = Self {
            remote,
            runtime: Some(runtime),
            link: RefCell::default(),
            phase: Cell::new(Phase::Idle),
            changed: Cell::default(),
            pipeline: RefCell::default(),
            ended_again: Cell::default(),
            open: RefCell::default(),
            away: RefCell::default(),
        };
        session.connected()?;
        Ok(session)
    }

    /// Another one to the same database.
    pub(super) fn beside(&self, application: String) -> Result<Self> {
        Self::open(self.remote.beside(application))
    }

    /// The server that it is connected to, where it is.
    pub(crate) fn server(&self) -> Option<Server> {
        let link = self.link.borrow();
        link.as_ref().map(|link| link.server.clone())
    }

    /// Runs one statement; how many rows it changed.
    pub(super) fn execute(&self, sql: &str, values: &[&dyn ToSql]) -> Result<usize> {
        if controls(sql).is_some() {
            return self.batch(sql).map(|()| 0);
        }
        let given = given(values)?;
        let changed = self.attempt(sql, Extent::All, given, |client, statement, given| {
            self.wait(async move { client.execute_raw(&statement, &given).await })
        })?;
        self.changed.set(self.changed.get() + changed);
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    /// Sends one statement of a transaction without waiting for what it comes to. An error of it is told by the next
    /// one that is waited for, or by [`Session::await_sent`].
    pub(super) fn send(&self, sql: &str, values: &[&dyn ToSql]) -> Result<()> {
        if self.phase.get() != Phase::Open {
            return self.execute(sql, values).map(drop);
        }
        let values = given(values)?;
        let client = self.client()?;
        self.settle_open()?;
        let statement = self.prepared(&client, sql, Extent::All)?;
        Self::fits(sql, &statement, &values)?;
        let sent = async move { client.execute_raw(&statement, &values).await };
        let sent = self.pipeline.borrow_mut().send(Box::pin(sent));
        sent.map_err(|error| self.failed(Trouble::Database(error)))?;
        // It may have: nobody knows yet.
        self.changed.set(self.changed.get() + 1);
        let many = self.pipeline.borrow().len() >= PIPELINED;
        if many { self.await_sent() } else { Ok(()) }
    }

    /// Waits until all that was sent is answered.
    pub(super) fn await_sent(&self) -> Result<()> {
        if self.pipeline.borrow().len() == 0 {
            return Ok(());
        }
        self.wait(async { Ok(()) })
            .map_err(|trouble| self.failed(trouble))
    }

    /// The first row, if there is one.
    pub(super) fn first(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
    ) -> Result<Option<tokio_postgres::Row>> {
        let rows = self.rows(sql, Extent::First, given(values)?)?;
        if !is_selection(sql) {
            self.changed.set(self.changed.get() + rows.len() as u64);
        }
        Ok(rows.into_iter().next())
    }

    /// Shows rows in order until `see` has seen enough. Where no more than `expected` are wanted, they come by pages.
    pub(super) fn each(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        expected: Option<usize>,
        mut see: impl FnMut(&tokio_postgres::Row) -> Result<bool>,
    ) -> Result<()> {
        let given = given(values)?;
        if !is_selection(sql) {
            // It may have: how many rows is not known yet.
            self.changed.set(self.changed.get() + 1);
        }
        let expected =
            expected.filter(|expected| *expected <= LAST_PAGE && translated(sql, Extent::Page).cut);
        let Some(expected) = expected else {
            return self.stream(sql, given, &mut see);
        };
        if self.is_in_transaction() {
            return self.pages(sql, &given, expected, &mut see);
        }
        // All pages are of one state.
        self.batch("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")?;
        let shown = self.pages(sql, &given, expected, &mut see);
        shown.and(self.batch("ROLLBACK"))
    }

    fn pages(
        &self,
        sql: &str,
        given: &[Parameter],
        expected: usize,
        see: &mut dyn FnMut(&tokio_postgres::Row) -> Result<bool>,
    ) -> Result<()> {
        let (mut size, mut after) = (expected.max(FIRST_PAGE), 0);
        loop {
            let page = [Parameter::number(size), Parameter::number(after)];
            let rows = self.rows(sql, Extent::Page, [given, &page].concat())?;
            let is_last = rows.len() < size;
            after += rows.len();
            for row in rows {
                if !see(&row)? {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
            size = (size * 2).min(LAST_PAGE);
        }
    }

    fn stream(
        &self,
        sql: &str,
        given: Vec<Parameter>,
        see: &mut dyn FnMut(&tokio_postgres::Row) -> Result<bool>,
    ) -> Result<()> {
        let stream = self.attempt(sql, Extent::All, given, |client, statement, given| {
            self.wait(async move { client.query_raw(&statement, &given).await })
        })?;
        let answer = Arc::new(Mutex::new(Answer {
            stream: Some(Box::pin(stream)),
            early: VecDeque::new(),
        }));
        *self.open.borrow_mut() = Arc::downgrade(&answer);
        loop {
            let rows = self.next_rows(&answer, CHUNK)?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in rows {
                if !see(&row)? {
                    return Ok(());
                }
            }
        }
    }

    /// The next rows of an answer; none at its end.
    fn next_rows(&self, answer: &Mutex<Answer>, most: usize) -> Result<Vec<tokio_postgres::Row>> {
        let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
        if !answer.early.is_empty() {
            return Ok(answer.early.drain(..).collect());
        }
        let Some(stream) = &mut answer.stream else {
            return Ok(Vec::new());
        };
        let taken = self.wait(async {
            let mut rows = Vec::new();
            while rows.len() < most {
                match stream.try_next().await? {
                    Some(row) => rows.push(row),
                    None => return Ok((rows, true)),
                }
            }
            Ok((rows, false))
        });
        match taken {
            Ok((rows, is_over)) => {
                if is_over {
                    answer.stream = None;
                }
                Ok(rows)
            }
            Err(trouble) => {
                answer.stream = None;
                Err(self.failed(trouble))
            }
        }
    }

    /// Takes the rest of an answer in that is being looked at: another statement comes in between.
    fn settle_open(&self) -> Result<()> {
        let open = self.open.take().upgrade();
        let Some(answer) = open else { return Ok(()) };
        loop {
            // Nobody else looks at it meanwhile.
            let had =
                std::mem::take(&mut answer.lock().unwrap_or_else(PoisonError::into_inner).early);
            let rows = self.next_rows(&answer, CHUNK);
            let mut locked = answer.lock().unwrap_or_else(PoisonError::into_inner);
            locked.early = had;
            let rows = rows?;
            if rows.is_empty() {
                return Ok(());
            }
            locked.early.extend(rows);
        }
    }

    fn rows(
        &self,
        sql: &str,
        wanted: Extent,
        given: Vec<Parameter>,
    ) -> Result<Vec<tokio_postgres::Row>> {
        self.attempt(sql, wanted, given, |client, statement, given| {
            self.wait(async move {
                let rows = client.query_raw(&statement, &given).await?;
                rows.try_collect().await
            })
        })
    }

    /// Runs statements without parameters, one after the other.
    pub(super) fn batch(&self, sql: &str) -> Result<()> {
        let controls = controls(sql).unwrap_or_default();
        if controls == [Control::Commits] {
            return self.commit();
        }
        let takes_back = matches!(controls.first(), Some(Control::Ends | Control::TakesBack));
        if controls.first() == Some(&Control::Ends) && !self.is_in_transaction() {
            self.phase.set(Phase::Idle);
            let begins = controls.contains(&Control::Begins);
            return if begins { self.begin() } else { Ok(()) };
        }
        let fresh = controls.first() == Some(&Control::Begins);
        if fresh && self.phase.get() == Phase::Gone {
            self.phase.set(Phase::Idle);
        }
        if takes_back {
            // Whatever became of it is taken back.
            self.pipeline.take();
        }
        if !takes_back || self.phase.get() == Phase::Gone {
            self.usable()?;
        }
        let run = || match fresh {
            true => self.run_begin(sql),
            false => self.run_batch(sql),
        };
        let mut ran = run();
        if fresh && ran.is_err() && self.link.borrow().is_none() {
            // It was dead before: nothing was begun on it.
            ran = run();
        }
        ran?;
        for control in controls {
            self.phase.set(match (control, self.phase.get()) {
                (Control::Begins | Control::TakesBack, _) => Phase::Open,
                (Control::Ends | Control::Commits, _) => Phase::Idle,
                (Control::Marks, phase) => phase,
            });
        }
        Ok(())
    }

    fn run_batch(&self, sql: &str) -> Result<()> {
        let client = self.client()?;
        self.settle_open()?;
        self.wait(async { client.batch_execute(sql).await })
            .map_err(|trouble| self.failed(trouble))
    }

    /// Begins a transaction, and sees that it is on our own session: a pooler may have given it another one, where what we
    /// prepared and set does not hold.
    fn run_begin(&self, sql: &str) -> Result<()> {
        let client = self.client()?;
        self.settle_open()?;
        let asked = format!("{sql}; {MARK}");
        let answers = self.wait(async { client.simple_query(&asked).await });
        let answers = answers.map_err(|trouble| self.failed(trouble))?;
        let link = self.link.borrow();
        let is_ours = link
            .as_ref()
            .is_some_and(|link| is_marked(&answers, &link.mark));
        drop(link);
        if is_ours {
            return Ok(());
        }
        self.die(false);
        Err(SqlError::Away(self.remote.found_pooled()))
    }

    /// Begins a transaction that writes, on a host that takes writes.
    pub(super) fn begin(&self) -> Result<()> {
        self.ended_again.set(false);
        self.batch("BEGIN")
    }

    /// Begins one that only reads: all its statements see the same state.
    pub(super) fn begin_read(&self) -> Result<()> {
        self.batch("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    }

    /// Commits. Where the answer does not come it is unknown what became of it ([`SqlError::Unsure`]).
    pub(super) fn commit(&self) -> Result<()> {
        match self.phase.get() {
            Phase::Open => {}
            Phase::Failed => return Err(SqlError::Aborted),
            Phase::Idle | Phase::Gone => return Err(gone()),
        }
        self.settle_open()?;
        if let Err(error) = self.await_sent() {
            // As after a commit that the server refuses, nothing is open.
            self.batch("ROLLBACK").ok();
            return Err(error);
        }
        let client = self.client()?;
        // A commit that a standby has to confirm must not be given up by the server: it would count as done.
        let sql = "SET LOCAL statement_timeout = 0; COMMIT";
        let committed = self.wait(async { client.batch_execute(sql).await });
        let Err(trouble) = committed else {
            self.phase.set(Phase::Idle);
            return Ok(());
        };
        let is_told = matches!(&trouble, Trouble::Database(error) if is_answer(error));
        let error = self.failed(trouble);
        self.phase.set(Phase::Idle);
        Err(match is_told {
            true => error,
            false => SqlError::Unsure(error.to_string()),
        })
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        matches!(self.phase.get(), Phase::Open | Phase::Failed)
    }

    /// Whether the transaction takes nothing more until it is taken back.
    pub(super) fn is_aborted(&self) -> bool {
        self.phase.get() == Phase::Failed
    }

    /// Whether the last transaction failed for a reason outside of it, so that the same again may do.
    pub(super) fn may_do_again(&self) -> bool {
        self.ended_again.get()
    }

    pub(super) fn changed(&self) -> u64 {
        self.changed.get()
    }

    /// Runs a statement; where no transaction is open and the connection turns out to be dead, once more on a new one.
    fn attempt<T>(
        &self,
        sql: &str,
        wanted: Extent,
        given: Vec<Parameter>,
        run: impl Fn(Arc<Client>, Statement, Vec<Parameter>) -> Tried<T>,
    ) -> Result<T> {
        self.usable()?;
        let once = |given: Vec<Parameter>| {
            let client = self.client()?;
            self.settle_open()?;
            let statement = self.prepared(&client, sql, wanted)?;
            Self::fits(sql, &statement, &given)?;
            run(client, statement, given).map_err(|trouble| self.failed(trouble))
        };
        let is_alone = self.phase.get() == Phase::Idle;
        match once(given.clone()) {
            Err(error) if is_alone && is_selection(sql) && self.has_moved(&error) => once(given),
            ran => ran,
        }
    }

    /// Whether what was known of the connection does not hold any more: it is dead, or what was prepared is.
    fn has_moved(&self, error: &SqlError) -> bool {
        let is_stale = match error {
            SqlError::Refused { code, .. } => is_about_statements(&SqlState::from_code(code)),
            _ => false,
        };
        is_stale || self.link.borrow().is_none()
    }

    /// That the transaction takes statements.
    fn usable(&self) -> Result<()> {
        match self.phase.get() {
            Phase::Failed => Err(SqlError::Aborted),
            Phase::Gone => Err(gone()),
            Phase::Idle | Phase::Open => Ok(()),
        }
    }

    /// That a statement was given as many values as it takes.
    fn fits(sql: &str, statement: &Statement, given: &[Parameter]) -> Result<()> {
        let takes = statement.params().len();
        match given.len() == takes {
            true => Ok(()),
            false => Err(SqlError::Refused {
                code: String::new(),
                message: format!("{} values for {takes} parameters of {sql:?}", given.len()),
            }),
        }
    }

    fn prepared(&self, client: &Client, sql: &str, wanted: Extent) -> Result<Statement> {
        let key = (sql.to_owned(), wanted);
        let link = self.link.borrow();
        let known = link.as_ref().and_then(|link| link.prepared.get(&key));
        if let Some(known) = known {
            return Ok(known.clone());
        }
        drop(link);
        let text = translated(sql, wanted);
        let prepared = self.wait(async { client.prepare(&text.sql).await });
        let prepared = prepared.map_err(|trouble| self.failed(trouble))?;
        if let Some(link) = &mut *self.link.borrow_mut() {
            if link.prepared.len() >= PREPARED {
                link.prepared.clear();
            }
            link.prepared.insert(key, prepared.clone());
        }
        Ok(prepared)
    }

    fn client(&self) -> Result<Arc<Client>> {
        let of_link = |link: &Link| (link.client.clone(), link.silences);
        let link = self.link.borrow().as_ref().map(of_link);
        let is_open = self.is_in_transaction();
        match link {
            Some((client, silences))
                if !client.is_closed() && (is_open || silences == self.remote.silences()) =>
            {
                Ok(client)
            }
            Some(_) if is_open => {
                Err(self.failed(Trouble::Closed("the connection was closed".to_owned())))
            }
            _ => self.connected(),
        }
    }

    /// Connects anew, unless that failed only now.
    fn connected(&self) -> Result<Arc<Client>> {
        let resting = self
            .away
            .borrow()
            .as_ref()
            .and_then(|(away, since)| (since.elapsed() < REST).then(|| away.clone()));
        if let Some(away) = resting {
            return Err(SqlError::Away(away));
        }
        self.phase.set(Phase::Idle);
        self.part();
        let silences = self.remote.silences();
        let raced = self.block(race(&self.remote));
        match raced {
            Ok(Connected {
                client,
                server,
                mark,
                driver,
            }) => {
                let client = Arc::new(client);
                self.away.take();
                tracing::info!(%server, "connected to the database");
                *self.link.borrow_mut() = Some(Link {
                    client: client.clone(),
                    server,
                    driver,
                    mark,
                    silences,
                    prepared: HashMap::new(),
                });
                Ok(client)
            }
            Err(away) => {
                *self.away.borrow_mut() = Some((away.clone(), now()));
                Err(SqlError::Away(away))
            }
        }
    }

    /// What a failure means to the connection and to the transaction.
    fn failed(&self, trouble: Trouble) -> SqlError {
        match trouble {
            Trouble::Silent(why) => {
                self.remote.fell_silent();
                // Whoever waited so long does not wait again at once.
                self.die(false);
                SqlError::Lost(why)
            }
            Trouble::Closed(why) => {
                self.die(false);
                SqlError::Lost(why)
            }
            Trouble::Database(error) => {
                if let Some(unfit) = unfit(&error) {
                    return SqlError::Refused {
                        code: String::new(),
                        message: unfit,
                    };
                }
                let Some(said) = error.as_db_error() else {
                    self.die(true);
                    return SqlError::Lost(words(&error));
                };
                if is_of_another_session(said.code()) {
                    self.die(false);
                    return SqlError::Away(self.remote.found_pooled());
                }
                if is_dead(said.code(), said.parsed_severity()) {
                    self.die(true);
                    return SqlError::Lost(format!("{} ({})", said.message(), said.code().code()));
                }
                self.refused(said.code());
                SqlError::Refused {
                    code: said.code().code().to_owned(),
                    message: said.message().to_owned(),
                }
            }
        }
    }

    /// The server refused a statement.
    fn refused(&self, code: &SqlState) {
        let again = is_worth_again(code);
        if is_about_statements(code)
            && let Some(link) = &mut *self.link.borrow_mut()
        {
            link.prepared.clear();
        }
        if self.is_in_transaction() {
            self.ended_again.set(again);
            self.phase.set(Phase::Failed);
        }
    }

    /// The connection is of no use any more, and its transaction is taken back by the server.
    fn die(&self, again: bool) {
        self.ended_again.set(again && self.is_in_transaction());
        if self.phase.get() != Phase::Idle {
            self.phase.set(Phase::Gone);
        }
        self.pipeline.take();
        if let Some(link) = self.link.take() {
            link.driver.abort();
        }
        self.away.take();
    }

    /// Takes leave of the server, where it is still there.
    fn part(&self) {
        let Some(link) = self.link.take() else { return };
        drop(link);
        // Whoever drives the connection has it say so.
        self.block(async { tokio::time::sleep(GOODBYE).await });
    }

    /// Waits for what the server answers, to what was sent before as well, for each within the deadline.
    fn wait<T: Send>(&self, answer: impl Future<Output = Db<T>> + Send) -> Tried<T> {
        let deadline = self.remote.deadline();
        let sent = self.pipeline.take();
        let within: std::result::Result<Db<T>, Elapsed> = self.block(async {
            let mut answer = pin!(answer);
            // It is sent at once, and its time begins when what was sent before is answered.
            let begun = poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await;
            let earlier = sent.drain(deadline).await?;
            let answer = match begun {
                Poll::Ready(answer) => answer,
                Poll::Pending => timeout(deadline, answer).await?,
            };
            Ok(earlier.and(answer))
        });
        match within {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Trouble::Database(error)),
            Err(_) => Err(Trouble::Silent(format!(
                "no answer within {} s",
                deadline.as_secs_f32()
            ))),
        }
    }

    /// Runs on our own runtime, from wherever it is called.
    #[expect(
        clippy::expect_used,
        reason = "only Drop takes the runtime, and what panics in it is passed on"
    )]
    fn block<T: Send>(&self, what: impl Future<Output = T> + Send) -> T {
        let runtime = self.runtime.as_ref().expect("the session is open");
        match Handle::try_current() {
            Err(_) => runtime.block_on(what),
            // Inside another runtime, such as a test's: that one stands still meanwhile.
            Ok(_) => thread::scope(|scope| {
                let ran = scope.spawn(|| runtime.block_on(what)).join();
                ran.expect("what ran on another thread came to its end")
            }),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.part();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a try at a statement comes to.
type Tried<T> = std::result::Result<T, Trouble>;

/// Why there is no answer.
enum Trouble {
    Database(tokio_postgres::Error),
    /// It did not come in time.
    Silent(String),
    /// The connection was closed before anything was sent.
    Closed(String),
}

fn gone() -> SqlError {
    SqlError::Lost("the transaction ended with its connection".to_owned())
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a rest lasts is a matter of this machine alone"
)]
fn now() -> Instant {
    Instant::now()
}

fn given(values: &[&dyn ToSql]) -> Result<Vec<Parameter>> {
    let each = values.iter().map(|value| Parameter::of(*value));
    Ok(each.collect::<rusqlite::Result<_>>()?)
}

fn is_selection(sql: &str) -> bool {
    let text = sql.trim_start();
    text.get(..6)
        .is_some_and(|word| word.eq_ignore_ascii_case("select"))
}

/// Whether the server said that a commit failed, and goes on to listen.
fn is_answer(error: &tokio_postgres::Error) -> bool {
    let said = error.as_db_error();
    said.is_some_and(|said| !is_dead(said.code(), said.parsed_severity()))
}

/// A parameter that does not fit was never sent.
fn unfit(error: &tokio_postgres::Error) -> Option<String> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<Unfit>().map(ToString::to_string)
}

/// An error with what lies behind it.
fn words(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
