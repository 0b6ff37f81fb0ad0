//! A daemon in simulated time: a store, a service and the loops between them, in a folder
//! that outlives restarts.

use std::{path::PathBuf, time::Duration};

use renewd::{
    clock::Clock,
    config::{
        CreatePolicy, CredentialSettings, KeySettings, Limits, LoadedSecret, ResourceSettings,
        SecretRef, StorePlace, StoreSettings,
    },
    model::{
        Declaration, Name, Notice, OnRemoval, Origin, Record, RenewerView, Scope, Secret, SinkAt,
        Spec, Timestamp,
    },
    schedule::{Explanation, Moment, why},
    simulation::{Daemon, DaemonParts},
    store::{AuditQuery, Opened, Store},
};

use crate::dispatchers::harness::changes;

use super::{entra::Giver, service::Service};

const DAY: Duration = Duration::from_hours(24);

/// How a world begins.
pub(super) struct Setting {
    pub(super) seed: u64,
    pub(super) specs: Vec<Spec>,
    pub(super) resource: ResourceSettings,
    pub(super) sinks: Vec<SinkAt>,
    /// Who gives bearers, where the resource has no access keys.
    pub(super) giver: Option<Giver>,
}

impl Setting {
    /// So many identities without an id, all alike.
    pub(super) fn of(count: usize) -> Self {
        Self {
            seed: 7,
            specs: (0..count).map(|n| spec(&format!("bot-{n:04}"))).collect(),
            resource: resource(),
            sinks: Vec::new(),
            giver: None,
        }
    }

    /// The same, all due within a minute, whatever the load: their windows hold no whole one.
    pub(super) fn abreast(count: usize) -> Self {
        let mut setting = Self::of(count);
        let declared = setting.specs.iter_mut().map(|spec| &mut spec.declared);
        declared.for_each(|declared| declared.spread = 0.0006);
        setting
    }
}

pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) service: Service,
    pub(super) setting: Setting,
    dir: tempfile::TempDir,
    starts: u64,
    up: Option<Daemon>,
}

impl World {
    pub(super) async fn start(setting: Setting) -> Self {
        Self::start_at(setting, "2026-11-22T12:00:00Z".parse().unwrap()).await
    }

    /// A world whose time begins then.
    pub(super) async fn start_at(setting: Setting, at: Timestamp) -> Self {
        let clock = Clock::simulated(at);
        let mut world = Self {
            service: Service::new(&clock),
            clock,
            setting,
            dir: tempfile::Builder::new()
                .prefix("renewd-life-")
                .tempdir()
                .unwrap(),
            starts: 0,
            up: None,
        };
        world.up().await;
        world
    }

    /// Starts the loops on what the folder holds.
    pub(super) async fn up(&mut self) {
        let settings = StoreSettings {
            place: StorePlace::File(self.path("renewd.db")),
            seal_key: None,
            keep_renewals: DAY * 400,
            keep_other: DAY * 400,
            owner: renewd::config::Owner::default(),
            save_before_migration: true,
            node: None,
            withdrawn_copy: None,
        };
        let parts = DaemonParts {
            store: &settings,
            state_dir: self.dir.path(),
            resource: &self.setting.resource,
            specs: &self.setting.specs,
            sinks: &self.setting.sinks,
            clock: &self.clock,
            transport: match &self.setting.giver {
                Some(giver) => giver.transport(self.service.transport()),
                None => self.service.transport(),
            },
            seed: self.setting.seed + self.starts,
        };
        self.up = Some(Daemon::start(parts).await.unwrap());
        self.starts += 1;
    }

    /// Starts what watches over access keys as well, with what a start of the daemon takes in of them.
    pub(super) async fn watch_keys(&mut self) {
        let up = self.up.as_mut().unwrap();
        let (name, minters) = (&self.setting.resource.name, up.deps.client.minters());
        let taken = up.store.take_keys(name, minters, self.clock.now()).await;
        taken.unwrap();
        up.watch_keys();
    }

    /// Ends the loops as SIGTERM does.
    pub(super) async fn down(&mut self) -> Result<(), String> {
        let stopped = self.up.take().unwrap().stop().await;
        stopped.map_err(|(_, why)| why)
    }

    /// Ends them as `kill -9` does.
    pub(super) async fn kill(&mut self) {
        self.up.take().unwrap().kill().await;
    }

    pub(super) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
        if let Some(up) = &self.up {
            assert_eq!(up.ended(), None, "it ended by itself");
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.up.as_ref().unwrap().store
    }

    pub(super) fn opened(&self) -> &Opened {
        &self.up.as_ref().unwrap().opened
    }

    pub(super) fn view(&self) -> RenewerView {
        self.up.as_ref().unwrap().view.borrow().clone()
    }

    /// How often the renewer decided in this time.
    pub(super) async fn rounds(&self, time: Duration) -> usize {
        changes(self.up.as_ref().unwrap().view.clone(), time).await
    }

    /// How often it was decided about campaigns in this time.
    pub(super) async fn campaign_rounds(&self, time: Duration) -> usize {
        changes(self.up.as_ref().unwrap().campaigns.clone(), time).await
    }

    /// What `renewd why` tells of an identity.
    pub(super) async fn why(&self, name: &str) -> Explanation {
        let record = self.record(name).await;
        let moment = Moment {
            wall: self.clock.now(),
            steady: self.clock.steady(),
        };
        let permits = &self.up.as_ref().unwrap().deps.permits;
        why(&record, &self.view(), &mut permits.gate(), moment)
    }

    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside)
    }

    pub(super) async fn records(&self) -> Vec<Record> {
        let mut all: Vec<Record> = Vec::new();
        loop {
            let after = all.last().map(|record| record.spec.name.clone());
            let page = self.store().list(after.as_ref(), 500).await.unwrap();
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    pub(super) async fn record(&self, name: &str) -> Record {
        let name: Name = name.parse().unwrap();
        self.store().record(&name).await.unwrap().unwrap()
    }

    /// Every notice so far, in order.
    pub(super) async fn notices(&self) -> Vec<Notice> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let page = self.store().notices(after, 500).await.unwrap();
            match page.last() {
                Some((seq, _)) => after = *seq,
                None => return all,
            }
            all.extend(page.into_iter().map(|(_, notice)| notice));
        }
    }

    /// The kinds of all notices but those of creations.
    pub(super) async fn news(&self) -> Vec<String> {
        let notices = self.notices().await;
        let kinds = notices.iter().map(|notice| notice.kind.to_string());
        kinds.filter(|kind| kind != "identity.created").collect()
    }

    /// Everything that happened, as text.
    pub(super) async fn log(&self) -> String {
        use std::fmt::Write;
        let mut log = String::new();
        for notice in self.notices().await {
            writeln!(log, "{notice:?}").unwrap();
        }
        let trail = self.store().audit_trail(AuditQuery::default()).await;
        for entry in trail.unwrap() {
            writeln!(log, "{entry:?}").unwrap();
        }
        for record in self.records().await {
            writeln!(log, "{record:?}").unwrap();
        }
        for call in self.service.calls() {
            writeln!(log, "{call:?}").unwrap();
        }
        log
    }
}

pub(super) fn spec(name: &str) -> Spec {
    Spec {
        name: name.parse().unwrap(),
        resource: "contoso".parse().unwrap(),
        origin: Origin::File,
        declared: Declaration {
            id: None,
            scopes: vec![Scope::Chat],
            lifetime: DAY,
            renew_at: 0.5,
            spread: 0.02,
            labels: std::collections::BTreeMap::default(),
            readers: Vec::new(),
            sinks: Vec::new(),
            on_removal: OnRemoval::Hold,
        },
    }
}

/// One access key.
pub(super) fn access_key(connection_string: String) -> CredentialSettings {
    CredentialSettings::Keys(KeySettings {
        connection_string: LoadedSecret {
            from: SecretRef::Env("CS".to_owned()),
            secret: Secret::new(connection_string),
        },
        secondary_connection_string: None,
    })
}

pub(super) fn resource() -> ResourceSettings {
    let secret = "endpoint=https://contoso.example/;accesskey=c2VjcmV0LWtleQ==";
    ResourceSettings {
        name: "contoso".parse().unwrap(),
        credential: access_key(secret.to_owned()),
        ca_file: None,
        proxy: None,
        api_version: "2023-10-01".to_owned(),
        create: CreatePolicy::Auto,
        limits: Limits::default(),
        max_in_flight: 32,
    }
}
