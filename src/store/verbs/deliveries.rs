//! The verbs for deliveries.
//!
//! Verbs of the dispatchers: what is pending, what arrived, notices.
//!
//! Verbs about files that lie outside: where they are, and which are to be taken back.
//!
//! Verbs of operators who look after deliveries.
//!
//! Verbs of the audit trail, and of cleaning up.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::PathBuf,
    sync::Arc,
};

use super::Answer;
use crate::{
    model::{
        AuditEntry, Name, Notice, NoticeKind, Num, Placed, ResourceName, SinkName, StoreStanding,
        Timestamp,
    },
    store::{
        AuditQuery, Cause, Delivery, Disabled, Each, Listed, Member, OpenError, Pruned, Resealing,
        Rows, Settled, Store, StoreError, Stray, backup, columns, error::Fault, seal,
    },
};

impl Store {
    /// What a sink has to deliver now, but for rows in flight (`skip`), the longest waiting first.
    pub async fn pending(
        &self,
        sink: &SinkName,
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<Delivery>> {
        let (sink, skip) = (sink.clone(), skip.clone());
        self.read("look for pending deliveries", move |db| {
            db.pending(sink.as_str(), now, limit, &skip)
        })
        .await
    }

    /// The earliest next attempt of a sink, but for rows in `skip`; it may have passed.
    pub async fn next_pending(
        &self,
        sink: &SinkName,
        skip: &BTreeSet<Num>,
    ) -> Answer<Option<Timestamp>> {
        let (sink, skip) = (sink.clone(), skip.clone());
        self.read("look for the next delivery", move |db| {
            db.next_pending(sink.as_str(), &skip)
        })
        .await
    }

    /// Notes how attempts at deliveries ended. Each is answered; one that the store refuses keeps no other
    /// back.
    pub async fn settle(&self, settled: impl Into<Arc<Vec<Settled>>>) -> Answer<Each<()>> {
        let settled = settled.into();
        self.write("note deliveries", move |txn| {
            txn.each("note a delivery", &settled, |txn, settled| {
                txn.settle(settled)?;
                Ok(vec![(); settled.len()])
            })
        })
        .await
    }

    /// Lets a sink deliver a version only once these others have.
    pub async fn set_after(&self, sink: &SinkName, earlier: &[SinkName]) -> Answer<()> {
        let (sink, earlier) = (sink.clone(), earlier.to_vec());
        self.write("note the order of sinks", move |txn| {
            txn.set_after(sink.as_str(), &earlier)
        })
        .await
    }

    /// Makes everything that is pending for a sink due now: its breaker has closed.
    pub async fn hasten(&self, sink: &SinkName, now: Timestamp) -> Answer<()> {
        let sink = sink.clone();
        self.write("hasten deliveries", move |txn| {
            txn.hasten(sink.as_str(), now)
        })
        .await
    }

    /// Wants the newest version of a row delivered once more, to one sink or to all.
    pub async fn redeliver(&self, num: Num, sink: Option<SinkName>, now: Timestamp) -> Answer<()> {
        self.write("deliver again", move |txn| {
            txn.redeliver(num, sink.as_ref().map(SinkName::as_str), now)
        })
        .await
    }

    /// The deliveries of one row.
    pub async fn deliveries_of(&self, num: Num) -> Answer<Vec<Delivery>> {
        self.read("list deliveries", move |db| db.deliveries_of(num))
            .await
    }

    /// A page of a sink's deliveries that have something to hold, pending or not, in the order of
    /// their rows; for restoring files at start.
    pub async fn delivered_page(
        &self,
        sink: &SinkName,
        after: Num,
        limit: usize,
    ) -> Answer<Vec<Delivery>> {
        let sink = sink.clone();
        self.read("list deliveries", move |db| {
            db.delivery_page(sink.as_str(), after, limit)
        })
        .await
    }

    /// Why a sink is disabled, if it is.
    pub async fn sink_disabled(&self, sink: &SinkName) -> Answer<Option<Disabled>> {
        let sink = sink.clone();
        self.read("look a sink up", move |db| db.sink_disabled(sink.as_str()))
            .await
    }

    /// Disables a sink, over restarts, and raises the notice of it for every other sink.
    pub async fn disable_sink(
        &self,
        sink: &SinkName,
        disabled: Disabled,
        now: Timestamp,
    ) -> Answer<()> {
        let sink = sink.clone();
        self.write("disable a sink", move |txn| {
            txn.disable_sink(sink.as_str(), &disabled, now)
        })
        .await
    }

    /// Enables a sink; everything that is pending for it is due now.
    pub async fn enable_sink(&self, sink: &SinkName, now: Timestamp) -> Answer<()> {
        let sink = sink.clone();
        self.write("enable a sink", move |txn| {
            txn.enable_sink(sink.as_str(), now)
        })
        .await
    }

    /// Raises notices.
    pub async fn raise(&self, notices: Vec<Notice>) -> Answer<()> {
        self.write("raise a notice", move |txn| txn.raise(&notices))
            .await
    }

    /// Raises a notice of what begins or ends, unless that is what was told last under its key.
    /// Whether it was raised.
    pub async fn announce(&self, notice: Notice) -> Answer<bool> {
        self.write("raise a notice", move |txn| txn.announce(&notice))
            .await
    }

    /// What was told and is not told to be over, by key.
    pub async fn open_notices(&self) -> Answer<BTreeMap<String, NoticeKind>> {
        self.read("look for what was told", |db| db.open_notices())
            .await
    }

    /// How often what is not over was told under a key.
    pub async fn times_told(&self, key: String) -> Answer<u32> {
        self.read("look for what was told", move |db| db.times_told(&key))
            .await
    }

    /// What was told under a key and is not told to be over.
    pub async fn open_notice(&self, key: String) -> Answer<Option<NoticeKind>> {
        self.read("look for what was told", move |db| db.open_notice(&key))
            .await
    }

    /// Notices after a number, in order.
    pub async fn notices(&self, after: u64, limit: usize) -> Answer<Vec<(u64, Notice)>> {
        self.read("list notices", move |db| db.notices(after, limit))
            .await
    }

    /// Notices after a number that a sink is to be told of: all but that of its own end.
    pub async fn notices_for(
        &self,
        sink: &SinkName,
        after: u64,
        limit: usize,
    ) -> Answer<Vec<(u64, Notice)>> {
        let sink = sink.clone();
        self.read("list notices", move |db| {
            db.notices_for(sink.as_str(), after, limit)
        })
        .await
    }

    /// The trouble of a resource that was announced and whose end was not: unreachable, or its keys
    /// rejected.
    pub async fn announced_trouble(&self, resource: &ResourceName) -> Answer<Option<NoticeKind>> {
        let resource = resource.clone();
        self.read("look for an outage", move |db| {
            db.announced_trouble(resource.as_str())
        })
        .await
    }

    /// The newest notices, newest first.
    pub async fn latest_notices(&self, limit: usize) -> Answer<Vec<(u64, Notice)>> {
        self.read("list notices", move |db| db.latest_notices(limit))
            .await
    }

    /// The number of the last notice that a sink has passed on.
    pub async fn notice_cursor(&self, sink: &SinkName) -> Answer<u64> {
        let sink = sink.clone();
        self.read("read a cursor", move |db| db.notice_cursor(sink.as_str()))
            .await
    }

    /// Moves it; never backwards.
    pub async fn advance_cursor(&self, sink: &SinkName, seq: u64) -> Answer<()> {
        let sink = sink.clone();
        self.write("move a cursor", move |txn| {
            txn.advance_cursor(sink.as_str(), seq)
        })
        .await
    }
}

impl Store {
    /// Notes where a sink's bundle lies, or that it has none.
    pub async fn place_bundle(&self, sink: &SinkName, placed: Option<Placed>) -> Answer<()> {
        let sink = sink.clone();
        self.write("note a bundle's file", move |txn| {
            txn.place_bundle(&sink, placed.as_ref())
        })
        .await
    }

    /// Where a sink's bundle lies.
    pub async fn bundle_of(&self, sink: &SinkName) -> Answer<Option<Placed>> {
        let sink = sink.clone();
        self.read("look a bundle up", move |db| db.bundle_of(&sink))
            .await
    }

    /// A sink keeps a file per identity now: the bundle that it kept before becomes a stray.
    pub async fn leave_bundle(&self, sink: &SinkName) -> Answer<()> {
        let sink = sink.clone();
        self.write("let go of a bundle's file", move |txn| {
            txn.leave_bundle(&sink)
        })
        .await
    }

    /// Files that nobody speaks of any more and that are to be looked at now.
    pub async fn strays(&self, now: Timestamp, limit: usize) -> Answer<Vec<Stray>> {
        self.read("look for files left behind", move |db| {
            db.strays(now, limit)
        })
        .await
    }

    /// Whether such a file is somebody's again; `by` are the sinks that would put one there.
    pub async fn is_claimed(
        &self,
        path: PathBuf,
        by: Vec<SinkName>,
        name: Option<Name>,
    ) -> Answer<bool> {
        self.read("look for a file's owner", move |db| {
            db.is_claimed(&path, &by, name.as_ref())
        })
        .await
    }

    /// Forgets strays, or puts them off until an instant.
    pub async fn settle_strays(&self, strays: Vec<(i64, Option<Timestamp>)>) -> Answer<()> {
        self.write("note files taken back", move |txn| {
            txn.settle_strays(&strays)
        })
        .await
    }

    /// A page of the documents that a sink should keep, in the order of the rows.
    pub async fn members(&self, sink: &SinkName, after: Num, limit: usize) -> Answer<Vec<Member>> {
        let sink = sink.clone();
        self.read("read a sink's tokens", move |db| {
            db.members(&sink, after, limit)
        })
        .await
    }

    /// How many identities have left a sink so far.
    pub async fn losses(&self, sink: &SinkName) -> Answer<i64> {
        let sink = sink.clone();
        self.read("count who left a sink", move |db| db.losses(&sink))
            .await
    }
}

impl Store {
    /// A page of the delivery table after this identity. A page may end within the rows of an identity, unless
    /// one sink was asked for.
    pub async fn delivery_table(
        &self,
        rows: Rows,
        after: Num,
        limit: usize,
    ) -> Answer<Vec<Listed>> {
        self.read("list deliveries", move |db| {
            db.delivery_table(&rows, after, limit)
        })
        .await
    }

    /// Makes what is pending among these due now. How many there are.
    pub async fn retry_deliveries(&self, rows: Rows, now: Timestamp) -> Answer<usize> {
        self.write("try deliveries now", move |txn| txn.retry(&rows, now))
            .await
    }

    /// Wants the current version of these delivered once more. How many there are.
    pub async fn replay_deliveries(&self, rows: Rows, now: Timestamp) -> Answer<usize> {
        self.write("deliver again", move |txn| txn.replay(&rows, now))
            .await
    }
}

fn refused(error: &OpenError) -> Fault {
    Fault::Refused(error.to_string())
}

impl Store {
    /// Adds entries to the audit trail.
    pub async fn audit(&self, entries: Vec<AuditEntry>) -> Answer<()> {
        self.write("write the audit trail", move |txn| {
            entries.iter().try_for_each(|entry| txn.audit(entry))
        })
        .await
    }

    /// The audit trail, newest first.
    pub async fn audit_trail(&self, query: AuditQuery) -> Answer<Vec<AuditEntry>> {
        self.read("read the audit trail", move |db| db.audit_trail(&query))
            .await
    }

    /// Goes on with a store of which it is not known what was withdrawn; how many tokens of unknown
    /// standing are renewed now.
    pub async fn accept(&self, cause: &Cause, now: Timestamp) -> Answer<u64> {
        let cause = cause.clone();
        self.withdraw("accept the store", move |txn| txn.accept(&cause, now))
            .await
    }

    /// Takes a store over that belonged to another machine; whether it may be used then.
    pub async fn adopt(&self, cause: &Cause, now: Timestamp) -> Answer<StoreStanding> {
        let (here, cause) = (self.here().clone(), cause.clone());
        self.write("adopt the store", move |txn| txn.adopt(&here, &cause, now))
            .await
    }

    /// Notes a person's word that the store knows nothing of what was withdrawn since an instant.
    pub async fn distrust(&self, since: Timestamp, cause: &Cause, now: Timestamp) -> Answer<()> {
        let cause = cause.clone();
        self.write("distrust the store", move |txn| {
            txn.distrust(since, &cause, now)
        })
        .await
    }

    /// Begins to replace the seal key, or goes on; how far it is.
    pub async fn begin_reseal(&self, cause: &Cause, now: Timestamp) -> Answer<Resealing> {
        let (state_dir, cause) = (self.state_dir().to_owned(), cause.clone());
        let before = self.resealing().await?;
        if let Some(why) = before.by_hand {
            let why = format!("the last replacement is not over: {why}");
            return Err(StoreError::new("replace the seal key", Fault::Refused(why)));
        }
        self.write("replace the seal key", move |txn| {
            if txn.resealing()?.successor.is_some() {
                return Ok(());
            }
            // Its file is on the disk before anything is sealed with it.
            let id = seal::next_or_new(&state_dir).map_err(|error| refused(&error))?;
            txn.begin_reseal(&id, &cause, now)
        })
        .await?;
        self.0.reseal.notify_one();
        self.resealing().await
    }

    /// Waits until somebody wants the seal key replaced.
    pub async fn reseal_wanted(&self) {
        self.0.reseal.notified().await;
    }

    /// Has the key seal that takes over; the id of the one before, where one takes over.
    pub async fn take_successor(&self) -> Answer<Option<String>> {
        let before = self.resealing().await?;
        let Some(successor) = before.successor else {
            return Ok(None);
        };
        let state_dir = self.state_dir().to_owned();
        self.write("take the new seal key", move |txn| {
            txn.seal.succeed(
                &*seal::successor(&state_dir, &successor).map_err(|error| refused(&error))?,
            );
            Ok(Some(before.key))
        })
        .await
    }

    /// Seals the next rows with the key that takes over; whether the store belongs to it now.
    pub async fn reseal(&self, rows: usize, now: Timestamp) -> Answer<bool> {
        self.write("seal tokens anew", move |txn| txn.reseal(rows, now))
            .await
    }

    /// Gives the key that has taken over its place; where the old one is kept, or what is left to be done.
    pub async fn settle_reseal(&self, before: &str) -> Answer<String> {
        let (settings, state_dir) = (self.settings().clone(), self.state_dir().to_owned());
        self.write("put the new seal key in its place", move |_| {
            seal::settle(&settings, &state_dir).map_err(|error| refused(&error))
        })
        .await?;
        let by_hand = self.resealing().await?.by_hand;
        Ok(by_hand.unwrap_or_else(|| self.former_key(before)))
    }

    /// Where the key file is that was replaced.
    pub fn former_key(&self, id: &str) -> String {
        format!(
            "the old key is kept as {} for backups made before; delete it when none of them is left",
            seal::kept(self.state_dir(), id).display()
        )
    }

    /// What the former key sealed opens no more: nobody reads it any more.
    pub async fn forget_former_key(&self) -> Answer<()> {
        self.write("forget the former seal key", |txn| {
            txn.seal.forget_former();
            Ok(())
        })
        .await
    }

    /// How far the replacement of the seal key is.
    pub async fn resealing(&self) -> Answer<Resealing> {
        let (settings, state_dir) = (self.settings().clone(), self.state_dir().to_owned());
        self.read("look at the seal key", move |db| {
            let resealing = db.resealing()?;
            let by_hand = match &resealing.successor {
                None => seal::by_hand(&settings, &state_dir, &resealing.key),
                Some(_) => None,
            };
            Ok(Resealing {
                by_hand,
                ..resealing
            })
        })
        .await
    }

    /// Writes a backup and hands the file over; the database's own may have been deleted meanwhile. With
    /// `last` it says of itself that nothing was withdrawn since.
    pub async fn backup(&self, last: bool, now: Timestamp) -> Answer<File> {
        let state_dir = self.state_dir().to_owned();
        self.read("make a backup", move |db| {
            if db.resealing()?.successor.is_some() {
                return Err(Fault::Refused(
                    "the seal key is being replaced, and a backup holds tokens of one key: make it again in a minute, \
                     see `renewd key reseal`"
                        .to_owned(),
                ));
            }
            backup::lend(&db.conn, &state_dir, (now, last))
                .map_err(|error| Fault::Refused(error.to_string()))
        })
        .await
    }

    /// Notes that a backup has reached its place; a store that ends with it is never opened again,
    /// unless a person takes it back.
    pub async fn backed_up(&self, made_at: Timestamp, retire: bool) -> Answer<()> {
        self.write("note the backup", move |txn| {
            columns::set_meta(&txn.conn, backup::BACKED_UP, columns::micros(made_at))?;
            if retire {
                columns::set_meta(&txn.conn, backup::RETIRED, columns::micros(made_at))?;
            }
            Ok(())
        })
        .await
    }

    /// When the last backup was made that reached its place.
    pub async fn last_backup(&self) -> Answer<Option<Timestamp>> {
        self.read("look for the last backup", |db| {
            let at = columns::meta(&db.conn, backup::BACKED_UP)?;
            Ok(at.map(columns::instant))
        })
        .await
    }

    /// Drops what is past its time, at most `batch` rows of each kind; called every minute or so, and
    /// again while [`Pruned::is_full`]. The id map is written anew if it is behind.
    pub async fn prune(&self, batch: usize, now: Timestamp) -> Answer<Pruned> {
        let keep = self.keep();
        self.write("clean up", move |txn| txn.prune(keep, batch, now))
            .await
    }
}
