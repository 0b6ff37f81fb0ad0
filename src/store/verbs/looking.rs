//! Verbs that look: records, tokens, counters.

use std::collections::BTreeMap;

use super::Answer;
use crate::{
    model::{
        Counts, CreationsWaiting, IdentityId, Name, Num, Record, ResourceName, Served, SinkName,
        Timestamp, TokenDocument,
    },
    store::{Consignment, Ended, FailingAlone, IdLine, Led, Store, Withheld},
};

impl Store {
    /// An identity by name.
    pub async fn record(&self, name: &Name) -> Answer<Option<Record>> {
        let name = name.clone();
        self.read("look an identity up", move |db| db.record(name.as_str()))
            .await
    }

    /// What each of these names leads to, by the same work whether it leads anywhere.
    pub async fn led_to(&self, names: Vec<Name>) -> Answer<Vec<Led>> {
        self.read("look identities up", move |db| db.led_to(&names))
            .await
    }

    /// Identities by name; those that do not exist or cannot be read are left out.
    pub async fn records(&self, names: &[Name]) -> Answer<Vec<Record>> {
        let names = names.to_vec();
        self.read("look identities up", move |db| db.records(&names))
            .await
    }

    /// An identity by its row.
    pub async fn record_of(&self, num: Num) -> Answer<Option<Record>> {
        self.read("look an identity up", move |db| Ok(db.record_of(num)?))
            .await
    }

    /// A page of identities in the order of their names.
    pub async fn list(&self, after: Option<&Name>, limit: usize) -> Answer<Vec<Record>> {
        let after = after.map_or(String::new(), ToString::to_string);
        self.read("list identities", move |db| db.list(&after, limit))
            .await
    }

    /// Those that need a person first: late or failing, the nearest to their end first.
    pub async fn troubled(&self, now: Timestamp, limit: usize) -> Answer<Vec<Record>> {
        self.read("list late identities", move |db| db.troubled(now, limit))
            .await
    }

    /// How many are late, by resource; found by index, not by scanning.
    pub async fn late(&self, now: Timestamp) -> Answer<BTreeMap<ResourceName, u64>> {
        self.read("count late identities", move |db| db.late(now))
            .await
    }

    /// Those that fail by themselves while others succeed, by resource; of each at most so many are named.
    pub async fn failing_alone(
        &self,
        limit: usize,
    ) -> Answer<BTreeMap<ResourceName, FailingAlone>> {
        self.read("look for failing identities", move |db| {
            db.failing_alone(limit)
        })
        .await
    }

    /// The earliest end of a current token, by resource; reads an index through.
    pub async fn earliest_expiry(&self) -> Answer<BTreeMap<ResourceName, Timestamp>> {
        self.read("look for the earliest expiry", |db| db.earliest_expiry())
            .await
    }

    /// Who holds a live token at an instant of the service's clock, by the version that each sink
    /// confirmed last.
    pub async fn served(&self, now: Timestamp) -> Answer<Served> {
        self.read("count consumers", move |db| db.served(now)).await
    }

    /// What is withdrawn and waits for a sink since this instant or longer.
    pub async fn withheld(&self, since: Timestamp, named: usize) -> Answer<Vec<Withheld>> {
        self.read("look for what is withdrawn and not delivered", move |db| {
            db.withheld(since, named)
        })
        .await
    }

    /// How many consumers hold a token that may be dead, by sink and by the socket alone; looks through
    /// what they hold, where any key is in doubt.
    pub async fn doubtful_held(&self, now: Timestamp) -> Answer<(BTreeMap<SinkName, u64>, u64)> {
        self.read("count doubtful tokens", move |db| db.doubtful_held(now))
            .await
    }

    /// Tokens of a resource that ended, at an instant of the service's clock.
    pub async fn ended_tokens(&self, resource: &ResourceName, now: Timestamp) -> Answer<Ended> {
        let resource = resource.clone();
        self.read("look for tokens that ended", move |db| {
            db.ended_tokens(resource.as_str(), now)
        })
        .await
    }

    /// When the next token ends that only the socket hands out; reads an index through.
    pub async fn next_end_by_socket(&self, now: Timestamp) -> Answer<Option<Timestamp>> {
        self.read("look for the next end", move |db| {
            db.next_end_by_socket(now)
        })
        .await
    }

    /// Some of those who hold no live token, by sink, or `socket`.
    pub async fn lacking(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Answer<BTreeMap<String, Vec<Name>>> {
        self.read("list consumers without a token", move |db| {
            db.lacking(now, limit)
        })
        .await
    }

    /// Since when the oldest overdue renewal of each resource is overdue; looks at all that are.
    pub async fn overdue_since(&self, now: Timestamp) -> Answer<BTreeMap<ResourceName, Timestamp>> {
        self.read("look for the oldest overdue renewal", move |db| {
            db.overdue_since(now)
        })
        .await
    }

    /// Consumers that hold a live token of this access key, by sink; reads the deliveries through.
    pub async fn holding_key(
        &self,
        key: String,
        now: Timestamp,
    ) -> Answer<BTreeMap<SinkName, u64>> {
        self.read("count tokens of a key", move |db| db.holding_key(&key, now))
            .await
    }

    /// The counters.
    pub async fn counts(&self) -> Answer<Counts> {
        self.read("read the counters", |db| db.counts()).await
    }

    /// What a consumer of this row should hold, with the token.
    pub async fn document(&self, num: Num) -> Answer<Option<TokenDocument>> {
        Ok(self.consignment(num).await?.map(|found| found.document))
    }

    /// What a consumer of this name should hold, with the token.
    pub async fn document_by_name(&self, name: &Name) -> Answer<Option<TokenDocument>> {
        let name = name.clone();
        self.read("read a token", move |db| {
            match db.num_of(name.as_str())? {
                Some(num) => Ok(db.consignment(num)?.map(|found| found.document)),
                None => Ok(None),
            }
        })
        .await
    }

    /// The document and the readers of a row, in one read.
    pub async fn consignment(&self, num: Num) -> Answer<Option<Consignment>> {
        self.read("read a token", move |db| db.consignment(num))
            .await
    }

    /// The id that a name has or had, by its row or by the id map; not of deleted ones.
    pub async fn known_id(&self, name: &Name) -> Answer<Option<IdentityId>> {
        let name = name.clone();
        self.read("look an id up", move |db| db.known_id(name.as_str()))
            .await
    }

    /// A page of names whose id only the id map knows.
    pub async fn remembered(&self, after: Option<&Name>, limit: usize) -> Answer<Vec<IdLine>> {
        let after = after.map_or(String::new(), ToString::to_string);
        self.read("list remembered ids", move |db| {
            db.remembered(&after, limit)
        })
        .await
    }

    /// Who waits for a person's word before it is created, because the store had been lost.
    pub async fn creations_waiting(&self) -> Answer<Vec<CreationsWaiting>> {
        self.read("look for creations that wait", |db| db.creations_waiting())
            .await
    }
}
