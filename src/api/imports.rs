//! Identities that are added, one or in batches: checked against what there is, sorted into identities and ids, and
//! taken over in one transaction; by the daemon, or by the command line while none runs. And a person's
//! word that identities that wait may be created.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{
    admin::Admin,
    body::Body,
    connection::{ClientError, DaemonClient},
    endpoint::{EndpointAnswer, Json, endpoints},
    handle::Api,
    problem::{Problem, ProblemType},
    wire::NewIdentity,
};
use crate::{
    config::Renewal,
    model::{Entry, Name, Origin, RefusedRow, ResourceName, SinkName, Spec, Timestamp},
    store::{ImportLine, Imported as Taken, Reconciled, Refusal, Store, StoreError},
};

endpoints! {
    /// Checks identities and ids, or takes them over.
    TakeOver: POST "/v1/import", Import => ImportAnswer;
    /// Lets identities be created that wait.
    Create: POST "/v1/create", CreateMissing => CreationsAllowed;
}

/// How long a list may take to be written.
const WRITING: Duration = Duration::from_mins(15);

/// `POST /v1/import`: a line with scopes is an identity to be kept, one without gives an id back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Only say what would be done and what is wrong; nothing is changed.
    #[serde(default)]
    pub check: bool,
    /// The lines, each name once.
    pub lines: Vec<ImportRow>,
}

/// A line and its number in the file that it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ImportRow {
    /// From 1.
    pub number: u64,
    pub entry: Entry,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ImportAnswer {
    pub added: u64,
    /// Identities of which something changed.
    pub changed: u64,
    /// Identities and ids that are as they were.
    pub unchanged: u64,
    /// Identities that got their id back.
    pub adopted: u64,
    /// Ids that are kept for when their names are declared.
    pub remembered: u64,
    /// Identities that are still without an id and wait for a person's word before they are created,
    /// because the store had been lost.
    #[serde(default)]
    pub missing: u64,
    #[serde(default)]
    pub missing_names: Vec<Name>,
    /// Lines that were not taken.
    pub refused: Vec<RefusedRow>,
}

/// `POST /v1/create`: a person's word that identities that wait may be created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateMissing {
    #[serde(default)]
    pub names: Vec<Name>,
    #[serde(default)]
    pub all_missing: bool,
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CreationsAllowed {
    /// How many may be created.
    pub allowed: u64,
    /// Names that do not wait, and why.
    pub refused: Vec<RefusedRow>,
}

impl ImportAnswer {
    /// Adds what the next batch did.
    pub fn absorb(&mut self, next: Self) {
        self.added += next.added;
        self.changed += next.changed;
        self.unchanged += next.unchanged;
        self.adopted += next.adopted;
        self.remembered += next.remembered;
        (self.missing, self.missing_names) = (next.missing, next.missing_names);
        self.refused.extend(next.refused);
    }
}

/// What an added identity may refer to, and what it takes where it says nothing.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The resources that there are.
    pub resources: BTreeSet<ResourceName>,
    /// The sinks that there are.
    pub sinks: BTreeSet<SinkName>,
    /// `[renewal]`.
    pub renewal: Renewal,
}

impl NewIdentity {
    /// What is added, with the defaults of the configuration filled in.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn spec(self, within: &Surroundings) -> Result<Spec, String> {
        let entry = Entry {
            resource: self.resource,
            id: self.id,
            scopes: Some(self.scopes),
            lifetime_seconds: self.lifetime_seconds,
            labels: self.labels,
            readers: Some(self.readers),
            sinks: Some(self.sinks),
            on_removal: Some(self.on_removal),
            ..Entry::named(self.name)
        };
        within.spec(entry)
    }
}

impl Surroundings {
    /// What an entry with scopes adds, with the defaults of the configuration filled in.
    fn spec(&self, entry: Entry) -> Result<Spec, String> {
        let (name, resource) = (entry.name.clone(), entry.resource.clone());
        let mut declared = self.renewal.declaration().said(entry);
        if let Some(unknown) = declared
            .sinks
            .iter()
            .find(|sink| !self.sinks.contains(*sink))
        {
            return Err(format!("there is no sink {unknown}"));
        }
        declared.scopes.sort_unstable();
        declared.scopes.dedup();
        if declared.scopes.is_empty() {
            return Err("scopes is empty".to_owned());
        }
        let seconds = declared.lifetime.as_secs();
        if !(3600..=86_400).contains(&seconds) || !seconds.is_multiple_of(60) {
            return Err(
                "the lifetime must be whole minutes, 3600 to 86400 seconds (1 h to 24 h)"
                    .to_owned(),
            );
        }
        let resource = self.resource(resource)?;
        if declared.renew_at - declared.spread < EARLIEST {
            return Err(format!(
                "renew_at {} less spread {} leaves less than {EARLIEST} of a token's life",
                declared.renew_at, declared.spread
            ));
        }
        Ok(Spec {
            name,
            resource,
            declared,
            origin: Origin::Cli,
        })
    }

    /// The resource that is named, or the only one.
    pub(super) fn resource(&self, named: Option<ResourceName>) -> Result<ResourceName, String> {
        let only = || {
            self.resources
                .first()
                .filter(|_| self.resources.len() == 1)
                .cloned()
        };
        let chosen = match named {
            Some(name) => self.resources.contains(&name).then_some(name),
            None => only(),
        };
        chosen.ok_or_else(|| {
            let known: Vec<&str> = self.resources.iter().map(ResourceName::as_str).collect();
            format!("the resource must be one of {}", known.join(", "))
        })
    }
}

/// Renewed earlier than this, a token would hardly be used.
const EARLIEST: f64 = 0.0499;

/// A batch whose lines make sense by themselves, and those that do not.
#[derive(Debug, Default)]
pub struct Batch {
    specs: Vec<Spec>,
    ids: Vec<ImportLine>,
    refused: Vec<RefusedRow>,
    numbers: BTreeMap<Name, u64>,
}

impl Batch {
    /// Sorts lines; what they leave out is taken from the configuration.
    pub fn of(lines: Vec<ImportRow>, within: &Surroundings) -> Self {
        let mut batch = Self::default();
        for ImportRow { number, entry } in lines {
            let name = entry.name.clone();
            if batch.numbers.insert(name.clone(), number).is_some() {
                // Of two lines of a map the later one counts.
                batch.specs.retain(|spec| spec.name != name);
                batch.ids.retain(|line| line.name != name);
            }
            if let Err(reason) = batch.take(entry, within) {
                batch.refused.push(RefusedRow {
                    number,
                    name: Some(name),
                    reason,
                });
            }
        }
        batch
    }

    fn take(&mut self, entry: Entry, within: &Surroundings) -> Result<(), String> {
        if entry.scopes.is_some() {
            self.specs.push(within.spec(entry)?);
            return Ok(());
        }
        let id = entry
            .id
            .ok_or("it says neither scopes, for an identity to keep, nor an id to give back")?;
        self.ids.push(ImportLine {
            name: entry.name,
            resource: within.resource(entry.resource)?,
            id,
            created_at: entry.created_at,
        });
        Ok(())
    }

    /// What would be done and refused; nothing is changed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn check(mut self, store: &Store) -> Result<ImportAnswer, StoreError> {
        let (specs, ids) = self.parts();
        let (declared, imported) = store.plan_import(specs, ids).await?;
        Ok(self.told(declared, imported))
    }

    /// Takes the batch over, all that can be, in one transaction.
    ///
    /// # Errors
    /// When the store cannot be written; then nothing of it was taken.
    pub async fn apply(
        mut self,
        store: &Store,
        now: Timestamp,
    ) -> Result<ImportAnswer, StoreError> {
        let (specs, ids) = self.parts();
        let (declared, imported) = store.take_batch(specs, ids, now).await?;
        Ok(self.told(declared, imported))
    }

    fn parts(&mut self) -> (Vec<Spec>, Vec<ImportLine>) {
        (
            std::mem::take(&mut self.specs),
            std::mem::take(&mut self.ids),
        )
    }

    fn told(mut self, declared: Reconciled, imported: Taken) -> ImportAnswer {
        self.refuse(declared.refused);
        self.refuse(imported.refused);
        let missing = imported.missing;
        ImportAnswer {
            missing: missing.iter().map(|waiting| waiting.count).sum(),
            missing_names: missing
                .into_iter()
                .flat_map(|waiting| waiting.names)
                .collect(),
            added: declared.create as u64,
            changed: (declared.update + declared.reissue + declared.release) as u64,
            unchanged: (declared.unchanged + imported.unchanged) as u64,
            adopted: imported.adopted as u64,
            remembered: imported.remembered as u64,
            refused: self.refused,
        }
    }

    fn refuse(&mut self, refusals: Vec<Refusal>) {
        for refusal in refusals {
            self.refused.push(RefusedRow {
                number: self.numbers.get(&refusal.name).copied().unwrap_or(0),
                name: Some(refusal.name),
                reason: refusal.reason,
            });
        }
    }
}

/// What an added identity may refer to.
pub(super) async fn surroundings(api: &Api) -> Result<Surroundings, Problem> {
    let shared_state = api.shared_state();
    // Another machine may have sinks that are not configured here.
    let others = api.store.sinks_of_cluster().await?;
    let others = others.iter().map(|sink| sink.name().clone());
    Ok(Surroundings {
        resources: shared_state.resources().cloned().collect(),
        sinks: shared_state.sinks.iter().cloned().chain(others).collect(),
        renewal: shared_state.renewal,
    })
}

/// Checks a batch, or takes it over; each batch is one entry of the audit trail.
pub(super) async fn import(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<Import>,
) -> EndpointAnswer<TakeOver> {
    let batch = Batch::of(asked.lines, &surroundings(&api).await?);
    if asked.check {
        return Ok(Json(batch.check(&api.store).await?));
    }
    let done = batch.apply(&api.store, api.clock.now()).await?;
    if done.added + done.changed + done.adopted + done.remembered > 0 {
        let result = format!(
            "{} added, {} changed, {} ids given back, {} ids remembered",
            done.added, done.changed, done.adopted, done.remembered
        );
        admin.audit(&api, "import", None, None, &result).await?;
    }
    Ok(Json(done))
}

/// Lets identities be created that wait for it; each is an entry of the audit trail.
pub(super) async fn create(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<CreateMissing>,
) -> EndpointAnswer<Create> {
    if asked.all_missing != asked.names.is_empty() {
        let why = "say either names or all_missing";
        return Err(Problem::new(ProblemType::Invalid, why.to_owned()));
    }
    let cause = admin.cause(&api, asked.reason).await;
    let names = (!asked.all_missing).then_some(asked.names);
    let word = api.store.create_by_word(names, &cause, api.clock.now());
    let (allowed, refused) = word.await?;
    Ok(Json(CreationsAllowed {
        allowed,
        refused: refused.into_iter().map(Into::into).collect(),
    }))
}

impl DaemonClient {
    /// Checks identities and ids, or takes them over.
    pub async fn import(&self, import: &Import) -> Result<ImportAnswer, ClientError> {
        let call = self.call(TakeOver, &[]).body(import);
        call.within(WRITING).send().await
    }

    /// A person's word that identities that wait may be created.
    pub async fn create_missing(
        &self,
        asked: &CreateMissing,
    ) -> Result<CreationsAllowed, ClientError> {
        self.call(Create, &[]).body(asked).send().await
    }
}
