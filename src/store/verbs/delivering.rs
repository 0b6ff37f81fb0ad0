//! Verbs of the couriers: what is pending, what arrived, notices.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Answer;
use crate::{
    model::{Notice, NoticeKind, Num, ResourceName, SinkName, Timestamp},
    store::{Delivery, Disabled, Each, Settled, Store},
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
