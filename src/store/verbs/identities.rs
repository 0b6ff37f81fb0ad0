//! The verbs for identities.
//!
//! Verbs that say which identities there should be.
//!
//! Verbs of the engine: what is due, what became of it, what may be orphaned.
//!
//! Verbs that look: records, tokens, counters.
//!
//! Verbs of those who watch: what consumers should hold, many in one read.
//!
//! Verbs of scheduled work.
//!
//! Verbs of identities that sources list.
//!
//! Verbs of access: who took tokens, and who says that it uses which version.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Answer;
use crate::{
    model::{
        Applied, Change, Counts, CreationsWaiting, GoneHeld, IdentityId, JobName, Name, Notice,
        Num, OnRemoval, Operation, Reader, Record, ResourceName, Served, SinkName, SourceName,
        Spec, Timestamp, TokenDocument, Version,
    },
    store::{
        Acknowledgement, Cause, Consignment, Digest, Each, Ended, FailingAlone, Holder, IdLine,
        ImportLine, Imported, JobRun, JobSchedule, Led, NewRun, Orphan, Posting, ReadsQuery,
        Reconciled, Refusal, SourceChange, SourceEnd, SourceFacts, StepOn, Store, TokenReads,
        Withheld, Work, db::Db, error::Outcome,
    },
};

impl Store {
    /// Makes the rows what the files declare, in one transaction; costs what they declare, and writes
    /// nothing when nothing changed. `sinks` are all that are configured.
    pub async fn reconcile(
        &self,
        specs: &[Spec],
        sinks: &[SinkName],
        now: Timestamp,
    ) -> Answer<Reconciled> {
        // Nothing is written where nothing changed: not even that something may be withdrawn.
        let withdraws = !self.plan_reconcile(specs, sinks).await?.is_unchanged();
        let (specs, sinks) = (specs.to_vec(), sinks.to_vec());
        self.queue("take the declared identities over", withdraws, move |txn| {
            txn.reconcile(&specs, &sinks, now)
        })
        .await
    }

    /// What [`Store::reconcile`] would do.
    pub async fn plan_reconcile(&self, specs: &[Spec], sinks: &[SinkName]) -> Answer<Reconciled> {
        let (specs, sinks) = (specs.to_vec(), sinks.to_vec());
        self.read("compare the declared identities", move |db| {
            Ok(db.plan_reconcile(&specs, &sinks)?.told())
        })
        .await
    }

    /// Adds identities, or changes them, without touching others; for those kept in the store alone.
    pub async fn declare(&self, specs: Vec<Spec>, now: Timestamp) -> Answer<Reconciled> {
        self.withdraw("add identities", move |txn| txn.declare(&specs, now))
            .await
    }

    /// Removes identities, as `how` says or as each one's own `on_removal`.
    pub async fn remove(
        &self,
        names: Vec<Name>,
        how: Option<OnRemoval>,
        now: Timestamp,
    ) -> Answer<Reconciled> {
        self.withdraw("remove identities", move |txn| txn.remove(&names, how, now))
            .await
    }

    /// Takes a batch over in one transaction: ids given back first, then identities to keep.
    pub async fn take_batch(
        &self,
        mut specs: Vec<Spec>,
        mut ids: Vec<ImportLine>,
        now: Timestamp,
    ) -> Answer<(Reconciled, Imported)> {
        self.withdraw("import identities", move |txn| {
            txn.leave_to_others(&mut specs, &mut ids)?;
            let mut imported = txn.import(&ids, now)?;
            let declared = txn.declare(&specs, now)?;
            imported.missing = txn.creations_waiting()?;
            Ok((declared, imported))
        })
        .await
    }

    /// What [`Store::take_batch`] would do.
    pub async fn plan_import(
        &self,
        mut specs: Vec<Spec>,
        mut ids: Vec<ImportLine>,
    ) -> Answer<(Reconciled, Imported)> {
        self.read("check an import", move |db| {
            db.leave_to_others(&mut specs, &mut ids)?;
            Ok((db.plan_declare(&specs)?, db.plan_ids(&ids)?))
        })
        .await
    }

    /// A person's word: these identities, which wait because the store had been lost, are created, or all
    /// that wait. How many, and who does not wait.
    pub async fn create_by_word(
        &self,
        names: Option<Vec<Name>>,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<(u64, Vec<Refusal>)> {
        let cause = cause.clone();
        self.write("let identities be created", move |txn| {
            txn.create_by_word(names.as_deref(), &cause, now)
        })
        .await
    }

    /// Takes names and ids over, such as lines of `identities.jsonl`.
    pub async fn import(&self, lines: Vec<ImportLine>, now: Timestamp) -> Answer<Imported> {
        self.write("import ids", move |txn| txn.import(&lines, now))
            .await
    }
}

impl Store {
    /// The rows of a resource that are due, but for those in flight (`skip`): rows without a good
    /// token first, then the earliest expiry. Rows that wait for their creation are a queue of their
    /// own (`work`). A row that cannot be read is passed over.
    pub async fn due(
        &self,
        resource: &ResourceName,
        work: Work,
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<Record>> {
        self.due_in(resource, (work, false), now, limit, skip).await
    }

    /// The same of those that fail by themselves, or of those that do not.
    pub async fn due_in(
        &self,
        resource: &ResourceName,
        line: (Work, bool),
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<Record>> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.read("look for due identities", move |db| {
            db.due(resource.as_str(), line, now, limit, &skip)
        })
        .await
    }

    /// The earliest due time of a resource, but for those in `skip`; it may have passed.
    pub async fn next_due(
        &self,
        resource: &ResourceName,
        work: Work,
        skip: &BTreeSet<Num>,
    ) -> Answer<Option<Timestamp>> {
        self.next_due_in(resource, (work, false), skip).await
    }

    /// The same of those that fail by themselves, or of those that do not.
    pub async fn next_due_in(
        &self,
        resource: &ResourceName,
        line: (Work, bool),
        skip: &BTreeSet<Num>,
    ) -> Answer<Option<Timestamp>> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.read("look for the next due time", move |db| {
            db.next_due(resource.as_str(), line, &skip)
        })
        .await
    }

    /// Rows of a resource that failed and whose next attempt lies ahead.
    pub async fn failing(
        &self,
        resource: &ResourceName,
        now: Timestamp,
        limit: usize,
    ) -> Answer<Vec<Record>> {
        let resource = resource.clone();
        self.read("look for failing identities", move |db| {
            db.failing(resource.as_str(), now, limit)
        })
        .await
    }

    /// Commits a batch of decisions; one answer each, in order. A token that comes too late
    /// ([`Applied::Stale`]) is listed as an orphan until it expires.
    pub async fn commit(&self, changes: Vec<Change>, now: Timestamp) -> Answer<Vec<Applied>> {
        let withdraws = changes.iter().any(is_gone);
        self.queue("commit results", withdraws, move |txn| {
            txn.commit(&changes, now)
        })
        .await
    }

    /// Notes decisions together with what people are told of them: who sees the one sees the other, whenever
    /// the process ends. Each posting is answered; one that the store refuses keeps no other back.
    pub async fn post(
        &self,
        postings: Arc<Vec<Posting>>,
        now: Timestamp,
    ) -> Answer<Each<Option<Applied>>> {
        let withdraws = postings.iter().any(
            |posting| matches!(posting, Posting::Decided(decided) if is_gone(&decided.change)),
        );
        self.queue("commit results", withdraws, move |txn| {
            txn.post(&postings, now)
        })
        .await
    }

    /// Keeps ids of identities that were just made in the map beside the store alone: the last resort for
    /// what the database does not take. The next start gives them back to their names.
    pub async fn keep_ids(&self, ids: Vec<(Num, IdentityId)>) -> Answer<()> {
        self.write("keep ids", move |txn| {
            ids.iter().try_for_each(|(num, id)| txn.note_id(*num, id))
        })
        .await
    }

    /// Takes steps of bulk operations; answers with each row's version after it, and with
    /// [`Version`] 0 for a row that is no more.
    pub async fn step(
        &self,
        steps: Vec<StepOn>,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<Vec<Version>> {
        let cause = cause.clone();
        self.withdraw("take a step", move |txn| txn.step(&steps, &cause, now))
            .await
    }

    /// Notes the calls that count or may be sent, and until when; before they are sent. It takes the place
    /// of what was noted of this operation before.
    pub async fn reserve(
        &self,
        resource: &ResourceName,
        operation: Operation,
        window: Vec<(u32, Timestamp)>,
    ) -> Answer<()> {
        let resource = resource.clone();
        self.write("note calls", move |txn| {
            txn.reserve(resource.as_str(), operation, &window)
        })
        .await
    }

    /// What was noted last of each operation; some of it may count no more.
    pub async fn reservations(
        &self,
        resource: &ResourceName,
    ) -> Answer<Vec<(Operation, u32, Timestamp)>> {
        let resource = resource.clone();
        self.read("read noted calls", move |db| {
            db.reservations(resource.as_str())
        })
        .await
    }

    /// Whether a batch of results could be written; asked after a failure, before ACS is called again.
    pub async fn probe(&self) -> Answer<()> {
        self.write("write", |txn| txn.probe()).await
    }

    /// Notes that these rows are about to be created at ACS; before the calls. Settled by
    /// [`Change::Issued`] with an id, or by [`Store::creation_failed`]; by a crash they become orphans.
    pub async fn intend_creations(&self, nums: Vec<Num>, now: Timestamp) -> Answer<()> {
        self.write("note a creation", move |txn| {
            txn.intend_creations(&nums, now)
        })
        .await
    }

    /// A creation gave no id; `maybe_created`: its answer was lost, so an identity may exist.
    pub async fn creation_failed(
        &self,
        num: Num,
        maybe_created: bool,
        request_id: Option<String>,
    ) -> Answer<()> {
        self.write("note a failed creation", move |txn| {
            txn.creation_failed(num, maybe_created, request_id.as_deref())
        })
        .await
    }

    /// A page of what may exist at ACS without a record.
    pub async fn orphans(&self, after: Num, limit: usize) -> Answer<Vec<Orphan>> {
        self.read("list orphans", move |db| db.orphans(after, limit))
            .await
    }

    /// Orphans by their numbers; those that are not on the list are left out.
    pub async fn orphans_by_num(&self, nums: Vec<Num>) -> Answer<Vec<Orphan>> {
        self.read("list orphans", move |db| db.orphans_by_num(&nums))
            .await
    }

    /// Takes orphans off the list.
    pub async fn dismiss_orphans(&self, nums: Vec<Num>) -> Answer<()> {
        self.write("dismiss orphans", move |txn| txn.dismiss_orphans(&nums))
            .await
    }

    /// Where ACS says of too many identities that they are gone; a person decides.
    pub async fn held_gone(&self) -> Answer<Vec<GoneHeld>> {
        self.read("look for what is said to be gone", |db| db.held_gone())
            .await
    }

    /// A person's word that what ACS says is gone is; answers with whom that withdraws.
    pub async fn confirm_gone(
        &self,
        resource: &ResourceName,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<Vec<Name>> {
        let (resource, cause) = (resource.clone(), cause.clone());
        self.withdraw("withdraw what is gone", move |txn| {
            txn.confirm_gone(resource.as_str(), &cause, now)
        })
        .await
    }

    /// A person's word that one that is gone is known again, under the same id: it becomes due.
    pub async fn revive(&self, name: &Name, cause: &Cause, now: Timestamp) -> Answer<Version> {
        let (name, cause) = (name.clone(), cause.clone());
        self.withdraw("revive an identity", move |txn| {
            txn.revive(&name, &cause, now)
        })
        .await
    }
}

/// Whether a change may withdraw what a consumer holds.
fn is_gone(change: &Change) -> bool {
    matches!(change, Change::Gone { .. })
}

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

/// A row and what its consumers should hold, both of one version.
#[derive(Debug, Clone)]
pub struct Holding {
    /// The row.
    pub record: Record,
    /// What a consumer should hold, with the token.
    pub document: TokenDocument,
}

impl Store {
    /// Holdings by name; those that do not exist or cannot be read are left out.
    pub async fn holdings(&self, names: Vec<Name>) -> Answer<Vec<Holding>> {
        self.read("read tokens", move |db| {
            let _same_state = db.conn.unchecked_transaction()?;
            let found = db.records(&names)?;
            db.held(found)
        })
        .await
    }

    /// A page of holdings in the order of their names.
    pub async fn holdings_page(&self, after: Option<&Name>, limit: usize) -> Answer<Vec<Holding>> {
        let after = after.map_or(String::new(), ToString::to_string);
        self.read("read tokens", move |db| {
            let _same_state = db.conn.unchecked_transaction()?;
            let found = db.list(&after, limit)?;
            db.held(found)
        })
        .await
    }
}

impl Db {
    fn held(&self, records: Vec<Record>) -> Outcome<Vec<Holding>> {
        let mut holdings = Vec::with_capacity(records.len());
        for record in records {
            if let Some(found) = self.consignment(record.num)? {
                let document = found.document;
                holdings.push(Holding { record, document });
            }
        }
        Ok(holdings)
    }
}

impl Store {
    /// Up to when the instants of these jobs are decided, in their order. A job that is new, or whose
    /// pattern or zone changed, starts now.
    pub async fn job_states(
        &self,
        jobs: Vec<JobSchedule>,
        now: Timestamp,
    ) -> Answer<Vec<Timestamp>> {
        self.write("take the jobs over", move |txn| txn.job_states(&jobs, now))
            .await
    }

    /// Decides runs and makes their campaigns, in one transaction: so each instant starts at most one
    /// campaign, over crashes too. A run whose job has a campaign that is not over is left out. Each is
    /// answered; one that the store refuses keeps no other back.
    pub async fn run_jobs(&self, runs: Vec<NewRun>, now: Timestamp) -> Answer<Each<JobRun>> {
        self.withdraw("start jobs", move |txn| txn.run_jobs(&runs, now))
            .await
    }

    /// The runs of a job, or of all jobs, newest first.
    pub async fn job_runs(&self, job: Option<&JobName>, limit: usize) -> Answer<Vec<JobRun>> {
        let job = job.map(ToString::to_string);
        self.read("list the runs of jobs", move |db| {
            db.job_runs(job.as_deref(), limit)
        })
        .await
    }

    /// The last run of each job that ever ran.
    pub async fn last_runs(&self) -> Answer<Vec<JobRun>> {
        self.read("list the last runs of jobs", |db| db.last_runs())
            .await
    }
}

impl Store {
    /// Names of a source's last list, each with a digest of its row, in the order of names: at most so many,
    /// after one.
    pub async fn source_rows(
        &self,
        source: &SourceName,
        after: Option<Name>,
        most: usize,
    ) -> Answer<Vec<(Name, Digest)>> {
        let source = source.clone();
        self.read("read a source's last list", move |db| {
            db.source_rows(&source, after.as_ref(), most)
        })
        .await
    }

    /// How many names of a source's last list were taken over.
    pub async fn source_count(&self, source: &SourceName) -> Answer<u64> {
        let source = source.clone();
        self.read("count a source's last list", move |db| {
            db.source_count(&source)
        })
        .await
    }

    /// Those of these names whose id nobody here has or had.
    pub async fn strange_ids(&self, rows: Vec<(Name, IdentityId)>) -> Answer<Vec<Name>> {
        self.read("look up the ids of a list", move |db| db.strange_ids(&rows))
            .await
    }

    /// What is known of every source.
    pub async fn sources(&self) -> Answer<Vec<SourceFacts>> {
        self.read("list sources", |db| db.sources()).await
    }

    /// Takes part of a list over, in one transaction: rows that differ, names that are gone.
    pub async fn take_source(
        &self,
        source: &SourceName,
        change: SourceChange,
        now: Timestamp,
    ) -> Answer<Reconciled> {
        let source = source.clone();
        self.withdraw("take a source's list over", move |txn| {
            txn.take_source(&source, &change, now)
        })
        .await
    }

    /// Notes how a look at a source ended, and raises the notice where that is news: a lapse that
    /// begins, or one that ends. Whether it was.
    pub async fn end_look(
        &self,
        source: &SourceName,
        end: SourceEnd,
        notice: Notice,
        now: Timestamp,
    ) -> Answer<bool> {
        let source = source.clone();
        self.write("note how a source is", move |txn| {
            txn.end_look(&source, &end, &notice, now)
        })
        .await
    }

    /// Forgets a source that lists nothing any more.
    pub async fn forget_source(&self, source: &SourceName) -> Answer<()> {
        let source = source.clone();
        self.write("forget a source", move |txn| txn.forget_source(&source))
            .await
    }
}

impl Store {
    /// Notes which version a consumer uses; false where the identity never had it, as far as is remembered.
    /// Of each user the latest 64 consumers of an identity are kept.
    pub async fn acknowledge(&self, ack: Acknowledgement, now: Timestamp) -> Answer<bool> {
        self.write("note an acknowledgement", move |txn| {
            txn.acknowledge(&ack, now)
        })
        .await
    }

    /// Whether any of these users and groups may read any identity.
    pub async fn may_any_read(&self, readers: Vec<Reader>) -> Answer<bool> {
        self.read("look for readers", move |db| db.may_any_read(&readers))
            .await
    }

    /// Consumers of an identity, or of all, in the order of names; those that use an old version
    /// alone, if so wished.
    pub async fn holders(
        &self,
        num: Option<Num>,
        only_old: bool,
        limit: usize,
    ) -> Answer<Vec<Holder>> {
        self.read("list consumers", move |db| db.holders(num, only_old, limit))
            .await
    }

    /// Adds to the counts of tokens that were taken. Each is answered; one that the store refuses keeps no
    /// other back.
    pub async fn note_reads(&self, reads: Vec<TokenReads>) -> Answer<Each<()>> {
        self.write("count token reads", move |txn| {
            txn.each("count a token read", &reads, |txn, reads| {
                txn.note_reads(reads)?;
                Ok(vec![(); reads.len()])
            })
        })
        .await
    }

    /// The counts of tokens that were taken, the latest hour first.
    pub async fn token_reads(&self, query: ReadsQuery) -> Answer<Vec<TokenReads>> {
        self.read("list token reads", move |db| db.token_reads(&query))
            .await
    }
}
