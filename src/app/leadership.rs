//! What of the daemon runs only where this machine leads, and what on each machine of a cluster: started when the
//! lease is taken, stopped when it is lost. Where nobody shares the store, everything runs from the start.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::watch;

use super::{
    RunError, Supervisor,
    check::stored_room,
    membership::{Heeding, Membership, OldChanges, OwnSinks, Probe, digest},
    supervisor::{Built, PART_GRACE},
    upkeep::{FileFollower, Resealer, Retention, StoreExaminer},
};
use crate::{
    cluster::{Charge, LateCalls, LeaseKeeper, LeaseKeeperDeps},
    config::{Settings, SinkSettings, SourceSettings, is_home},
    engine::StrayFiles,
    model::Role,
};

/// What failed to start when the lease was taken is tried again after this.
const TRIED_AGAIN: Duration = Duration::from_secs(2);
const LEADERS_TASKS: [&str; 5] = ["retention", "seal-key", "examiner", "late-calls", "changes"];

impl Supervisor {
    /// Joins the cluster, where the configuration says that there is one.
    pub(super) fn join(&mut self, settings: &Settings) {
        let Some(cluster) = settings
            .cluster
            .as_ref()
            .filter(|_| self.membership.is_none())
        else {
            return;
        };
        let (lacks, told) = watch::channel(0);
        let (digest, said) = watch::channel(digest(settings, &self.store));
        let keeper = LeaseKeeper::new(LeaseKeeperDeps {
            settings: cluster.clone(),
            store: self.store.plain(),
            clock: self.clock.clone(),
            digest: said,
            socket: settings.daemon.socket.display().to_string(),
            lacks: told,
        });
        let membership = Membership::new(keeper.handle(), digest);
        membership.adopt(settings, &self.store, self.hosts(settings));
        let probe = Probe {
            store: self.store.plain(),
            hosts: membership.hosts.subscribe(),
            in_vain: membership.in_vain.subscribe(),
            lacks,
            failed: BTreeMap::new(),
            unwritten: 0,
        };
        let sinks = OwnSinks {
            store: self.store.plain(),
            clock: self.clock.clone(),
            sinks: membership.sinks.subscribe(),
        };
        let heeding = Heeding(self.store.plain(), self.clock.clone());
        self.loops.spawn("cluster", |stop| keeper.run(stop));
        self.loops.repeat("acs-reached", probe);
        self.loops.repeat("others", heeding);
        self.loops.repeat("own-sinks", sinks);
        self.membership = Some(membership);
        self.charge = Charge::follower();
        self.publish();
    }

    /// Whether this machine leads, as far as its parts know.
    pub(super) fn leads(&self) -> bool {
        matches!(self.charge.role, Role::Leads { .. })
    }

    /// What of what was built runs here now.
    pub(super) fn of_here(&self, built: Built) -> Built {
        let leads = self.leads();
        built.retain(|_| leads, |sink| self.runs(sink))
    }

    /// Whether a sink is served here now.
    pub(super) fn runs(&self, sink: &SinkSettings) -> bool {
        match (&self.settings().cluster, sink.nodes()) {
            (Some(cluster), Some(nodes)) => is_home(nodes, &cluster.node),
            _ => self.leads(),
        }
    }

    /// The sources that are read here now.
    pub(super) fn sources_here(&self, sources: &[SourceSettings]) -> Vec<SourceSettings> {
        let reads = |source: &&SourceSettings| match &self.settings().cluster {
            Some(cluster) if !source.nodes.is_empty() => is_home(&source.nodes, &cluster.node),
            _ => self.leads(),
        };
        sources.iter().filter(reads).cloned().collect()
    }

    /// Waits until this machine leads or follows otherwise than its parts do.
    pub(super) fn charged(&self) -> impl Future<Output = ()> + use<> {
        let handle = self
            .membership
            .as_ref()
            .map(|one| one.handle.charge.clone());
        let role = self.charge.role.clone();
        async move {
            let Some(mut charge) = handle else {
                return std::future::pending().await;
            };
            let other = |charge: &Charge| match (&charge.role, &role) {
                (Role::Follows { .. }, Role::Follows { .. }) => false,
                (now, before) => now != before,
            };
            if charge.wait_for(other).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Starts and stops what runs under the lease, as it was taken or lost. What cannot be started is tried again.
    pub(super) async fn attend(&mut self) {
        let Some(membership) = &self.membership else {
            return;
        };
        let charge = membership.handle.charge.borrow().clone();
        if self.leads() {
            self.follow().await;
        }
        let Role::Leads { epoch } = charge.role else {
            return;
        };
        self.charge = charge;
        let begun = self.lead(epoch).await;
        if let Some(membership) = &self.membership {
            membership.tried_to_lead(begun.as_ref().err());
        }
        if let Err(error) = begun {
            tracing::warn!(epoch, %error, "this node cannot begin to lead; it is tried again, or another node leads");
            self.follow().await;
            tokio::time::sleep(TRIED_AGAIN).await;
        }
    }

    /// Begins what only a leader does.
    async fn lead(&mut self, epoch: u64) -> Result<(), RunError> {
        self.at_work(true);
        let now = self.clock.now();
        // Nothing is built on a database that has lost what this machine's files say.
        let followed = self.store.follow_files(now).await?;
        if let Some(brought) = followed.brought {
            tracing::warn!("{brought}");
        }
        if let Some(why) = followed.unwritten {
            tracing::error!(
                "this node leads although its files beside the store cannot be written ({why}); it revokes nothing before they can be"
            );
        }
        self.store = self.store.leading(epoch);
        let orphans = self.store.take_over_left(now).await?;
        if orphans > 0 {
            tracing::warn!(
                orphans,
                "creations were under way when the last leader ended; identities may exist at ACS that nobody knows"
            );
        }
        let settings = Settings {
            identities: self.identities.to_vec(),
            ..self.settings().clone()
        };
        let sinks = settings.sinks.iter().filter(|sink| sink.nodes().is_none());
        let sinks: Vec<SinkSettings> = sinks.cloned().collect();
        let built = Built::new(
            &self.clock,
            &settings.daemon.instance,
            &settings.resources,
            &sinks,
        )?;
        self.begin_leading(built, &settings).await
    }

    /// Takes over what is declared, and starts what only a leader runs.
    pub(super) async fn begin_leading(
        &mut self,
        built: Built,
        settings: &Settings,
    ) -> Result<(), RunError> {
        self.reconcile(settings).await?;
        for (resource, odd) in stored_room(&self.store, settings, self.declared()).await? {
            tracing::warn!(%resource, "{odd}");
        }
        let heeded = built.heed(&self.store, self.clock.now()).await?;
        for (resource, tokens) in heeded {
            tracing::warn!(%resource, tokens, "tokens were minted by an access key that is no longer configured: they are minted anew");
        }
        self.store.end_unsealed(self.clock.now()).await?;
        self.restart_sources(&settings.sources).await;
        self.start(built);
        self.start_jobs().await;
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let loops = &mut self.loops;
        loops.repeat("retention", Retention::new(store.clone(), clock.clone()));
        loops.repeat("seal-key", Resealer::new(store.clone(), clock.clone()));
        loops.repeat("examiner", StoreExaminer::new(store.clone(), clock.clone()));
        if store.is_shared() {
            loops.repeat("changes", OldChanges(store.clone()));
            loops.repeat("late-calls", LateCalls::new(store, clock));
        }
        Ok(())
    }

    async fn reconcile(&mut self, settings: &Settings) -> Result<(), RunError> {
        let (sinks, now) = (settings.sinks_at(), self.clock.now());
        let reconciled = self.store.reconcile(&settings.identities, &sinks, now);
        let reconciled = reconciled.await?;
        tracing::info!(effect = %reconciled, "declared identities taken over");
        self.took_over(&reconciled.refused).await;
        self.end_notices_elsewhere(settings).await
    }

    /// Starts what takes files back that nobody speaks of any more, and what brings the files beside the store up to it.
    pub(super) fn begin_everywhere(&mut self) {
        let stray_files = StrayFiles::new(self.store.plain(), self.clock.clone(), self.files());
        self.loops.repeat("withdrawals", stray_files);
        if self.store.is_shared() {
            let follower = FileFollower::new(self.store.plain(), self.clock.clone());
            self.loops.repeat("files", follower);
        }
    }

    /// Ends what only a leader does. What was obtained and cannot be noted is told, and ends nothing else.
    async fn follow(&mut self) {
        let settings = self.settings().clone();
        let resources: Vec<String> = settings
            .resources
            .iter()
            .map(|one| one.name.to_string())
            .collect();
        let webhooks = settings.sinks.iter().filter(|sink| sink.nodes().is_none());
        let webhooks: Vec<String> = webhooks.map(|sink| sink.name().to_string()).collect();
        self.let_go(&resources, &webhooks).await;
        let leaders = |name: &str| LEADERS_TASKS.contains(&name);
        self.loops.let_go_all(PART_GRACE, leaders).await;
        self.stop_jobs().await;
        self.charge = Charge::follower();
        self.store = self.store.plain();
        self.restart_sources(&settings.sources).await;
        self.publish();
        self.at_work(false);
    }

    /// Tells the keeper whether anything works under its lease.
    pub(super) fn at_work(&self, at_work: bool) {
        if let Some(membership) = &self.membership {
            membership.handle.at_work.send_replace(at_work);
        }
    }
}
