//! Reads the configuration again: all or nothing, and it says what changed. What that means (which keys need a
//! restart, which parts start, stop or are replaced) is decided without touching anything.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::{RunError, Supervisor, check, supervisor::Built};
use crate::{
    api::client::wire::Reloaded,
    config::{
        self, ClusterSettings, ConfigProblem, Problems, ResourceSettings, Settings, SinkSettings,
        Source,
    },
    schedule::Declared,
    store::StoreError,
    systemd::Notifier,
};

/// Whoever asked for it over the socket gets the effect, or every problem as text.
pub(super) type ReloadAnswer = oneshot::Sender<Result<Reloaded, String>>;

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// The configuration has mistakes.
    #[error("{}", config::render(&.0.0, false))]
    Config(Problems),
    /// The store may not be used, so there is nothing to reload into.
    #[error("{0}; the configuration is read when that is said")]
    Unusable(String),
    /// Keys changed that a running daemon cannot follow.
    #[error("these keys need a restart, so nothing was changed: {0}")]
    NeedsRestart(String),
    /// Something could not be built or written.
    #[error(transparent)]
    Failed(#[from] RunError),
}

impl ReloadError {
    /// Enough of it for a line of the status.
    fn first_line(&self) -> String {
        let whole = self.to_string();
        whole.lines().next().unwrap_or_default().to_owned()
    }
}

/// Reloads, tells the service manager, the log and whoever asked.
pub(super) async fn reload(
    supervisor: &mut Supervisor,
    source: &Source,
    notifier: &Notifier,
    answer: Option<ReloadAnswer>,
) {
    if let Err(error) = notifier.reloading() {
        tracing::warn!(%error, "cannot tell the service manager of the reload");
    }
    let result = take_over(supervisor, source).await;
    supervisor.reloaded(result.as_ref().err().map(ReloadError::first_line));
    let status = match &result {
        Ok(Reloaded { effect, .. }) => {
            tracing::info!(effect, "configuration reloaded");
            format!("reloaded: {effect}")
        }
        Err(refused) => {
            tracing::error!("the configuration was not taken over, the old one stays:\n{refused}");
            "the last reload was refused; the journal says why".to_owned()
        }
    };
    if let Err(error) = notifier.ready(&status) {
        tracing::warn!(%error, "cannot tell the service manager of the reload");
    }
    if let Some(answer) = answer {
        // Whoever asked may have gone in the meantime.
        answer
            .send(result.map_err(|refused| refused.to_string()))
            .ok();
    }
}

async fn take_over(supervisor: &mut Supervisor, source: &Source) -> Result<Reloaded, ReloadError> {
    if let Some(why) = supervisor.opened.standing.refusal() {
        return Err(ReloadError::Unusable(why));
    }
    if let Some(away) = supervisor.store.away() {
        return Err(ReloadError::Unusable(away.because));
    }
    let (new, odd) = load(source).map_err(ReloadError::Config)?;
    let keys = needs_restart(supervisor.settings(), &new);
    if !keys.is_empty() {
        return Err(ReloadError::NeedsRestart(keys.join(", ")));
    }
    let other_ca = supervisor.other_ca(&new);
    let resources = resources(supervisor.settings(), &new, &other_ca.0);
    let sinks = sinks(supervisor.settings(), &new, &other_ca.1);
    let built = Built::new(
        &supervisor.clock,
        &new.daemon.instance,
        &resources.start,
        &sinks.start,
    )?;
    supervisor.expect(&built);
    let (mut effect, refused, narrow) = taken(supervisor, &new, &built).await?;
    supervisor.stop(&resources.stop, &sinks.stop).await;
    if supervisor.leads() {
        supervisor.end_notices_elsewhere(&new).await?;
    }
    for (kind, started) in [
        ("resource", resources.start.len()),
        ("sink", sinks.start.len()),
    ] {
        if started > 0 {
            effect += &format!(
                ", {started} {kind}{} restarted",
                if started == 1 { "" } else { "s" }
            );
        }
    }
    let other_jobs = supervisor.settings().jobs != new.jobs;
    supervisor.adopt(&new);
    supervisor.restart_sources(&new.sources).await;
    let built = supervisor.of_here(built);
    supervisor.start(built);
    if other_jobs && supervisor.leads() {
        supervisor.start_jobs().await;
        effect += &format!(", {} jobs scheduled", new.jobs.len());
    }
    let warnings = odd
        .iter()
        .map(|problem| config::render(std::slice::from_ref(problem), false));
    Ok(Reloaded {
        effect,
        warnings: warnings.chain(refused).chain(narrow).collect(),
    })
}

/// Takes over what is declared: the effect in words, what of it is not taken, and where there is too little room.
async fn taken(
    supervisor: &mut Supervisor,
    new: &Settings,
    built: &Built,
) -> Result<(String, Vec<String>, Vec<String>), ReloadError> {
    if supervisor.leads() {
        let (effect, refused) = declare(supervisor, new, built).await?;
        let narrow = narrow(supervisor, new).await.map_err(RunError::from)?;
        return Ok((effect, refused, narrow));
    }
    // Whoever leads takes over the identities, by its own configuration.
    let (sinks, now) = (new.sinks_at(), supervisor.clock.now());
    let bound = supervisor.store.bind_sinks(&sinks, now).await;
    bound.map_err(RunError::from)?;
    let effect = "the sinks of this node taken over".to_owned();
    Ok((effect, Vec::new(), Vec::new()))
}

/// Starts the parts anew whose CA file holds something else; what cannot be trusted leaves them as they are.
pub(super) async fn retrust(supervisor: &mut Supervisor) {
    if let Err(error) = begin_anew(supervisor).await {
        tracing::error!(%error, "a file of authorities changed and is not taken over; what it held before is trusted still");
    }
}

async fn begin_anew(supervisor: &mut Supervisor) -> Result<(), RunError> {
    let settings = supervisor.settings().clone();
    let other_ca = supervisor.other_ca(&settings);
    let resources = resources(&settings, &settings, &other_ca.0);
    let sinks = sinks(&settings, &settings, &other_ca.1);
    if resources.start.is_empty() && sinks.start.is_empty() {
        // A reload was sooner.
        return Ok(());
    }
    let built = Built::new(
        &supervisor.clock,
        &settings.daemon.instance,
        &resources.start,
        &sinks.start,
    )?;
    let built = supervisor.of_here(built);
    built
        .heed(&supervisor.store, supervisor.clock.now())
        .await?;
    supervisor.expect(&built);
    supervisor.stop(&resources.stop, &sinks.stop).await;
    tracing::info!(
        resources = resources.stop.join(", "),
        sinks = sinks.stop.join(", "),
        "a file of authorities changed and is taken over"
    );
    supervisor.start(built);
    Ok(())
}

/// Takes over what is declared; the effect in words, and what of it is not taken.
async fn declare(
    supervisor: &mut Supervisor,
    new: &Settings,
    built: &Built,
) -> Result<(String, Vec<String>), ReloadError> {
    let (store, now) = (supervisor.store.clone(), supervisor.clock.now());
    let reconciled = store.reconcile(&new.identities, &new.sinks_at(), now).await;
    let reconciled = reconciled.map_err(RunError::from)?;
    let mut refused = Vec::new();
    supervisor.took_over(&reconciled.refused).await;
    for refusal in &reconciled.refused {
        refused.push(format!(
            "{} is not taken over: {}\n",
            refusal.name, refusal.reason
        ));
    }
    let mut effect = reconciled.to_string();
    for (resource, tokens) in built.heed(&store, now).await? {
        effect += &format!(
            ", {tokens} token{} of {resource} minted by an access key that is no longer configured: minted anew",
            if tokens == 1 { "" } else { "s" }
        );
    }
    Ok((effect, refused))
}

/// Which resources have too little room for what the store knows, which is logged as well.
async fn narrow(supervisor: &Supervisor, new: &Settings) -> Result<Vec<String>, StoreError> {
    let declared = Declared::of(new);
    let stored = check::stored_room(&supervisor.store, new, &declared).await?;
    let told = stored.into_iter().map(|(resource, odd)| {
        tracing::warn!(%resource, "{odd}");
        format!("{resource}: {odd}")
    });
    Ok(told.collect())
}

/// Loads the configuration and asks every room what it finds in it. What is odd is logged and comes
/// back beside the settings.
pub(super) fn load(source: &Source) -> Result<(Settings, Vec<ConfigProblem>), Problems> {
    let (settings, odd) = read(source)?;
    warn(&odd);
    Ok((settings, odd))
}

/// The same without a word in the log.
pub(super) fn read(source: &Source) -> Result<(Settings, Vec<ConfigProblem>), Problems> {
    let loaded = config::load(source)?;
    let settings = &loaded.settings;
    let odd = check::odd_room(settings);
    let found = loaded
        .places
        .problems(check::check(settings).into_iter().chain(odd));
    let problems: Vec<ConfigProblem> = loaded.warnings.into_iter().chain(found).collect();
    if config::Places::any_error(&problems) {
        return Err(Problems(problems));
    }
    Ok((loaded.settings.of_this_node(), problems))
}

/// Logs what is odd in a configuration.
pub(super) fn warn(odd: &[ConfigProblem]) {
    if !odd.is_empty() {
        let odd = config::render(odd, false);
        tracing::warn!("the configuration is odd:\n{odd}");
    }
}

/// The keys that differ and cannot be changed while the daemon runs, by name.
pub(super) fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let differing = restart_keys(old, new).into_iter();
    differing
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
}

fn restart_keys(old: &Settings, new: &Settings) -> [(&'static str, bool); 14] {
    let (was, is) = (&old.daemon, &new.daemon);
    let seal = |settings: &Settings| settings.store.seal_key.clone();
    let cluster = |settings: &Settings| settings.cluster.clone();
    let (was_in, is_in) = (cluster(old), cluster(new));
    let differs =
        |of: fn(&ClusterSettings) -> String| was_in.as_ref().map(of) != is_in.as_ref().map(of);
    let file = |settings: &Settings| settings.store.place.file().map(ToOwned::to_owned);
    let database = |settings: &Settings| settings.store.place.database().cloned();
    let authority = |settings: &Settings| database(settings)?.ca_file;
    let address = |settings: &Settings| {
        let mut database = database(settings)?;
        database.ca_file = None;
        // It is read again whenever a connection is made.
        database.password = None;
        Some(database)
    };
    [
        ("daemon.state_dir", was.state_dir != is.state_dir),
        ("daemon.listen", was.listen != is.listen),
        ("daemon.socket", was.socket != is.socket),
        ("daemon.instance", was.instance != is.instance),
        ("store.path", file(old) != file(new)),
        ("store.url", address(old) != address(new)),
        ("store.ca_file", authority(old) != authority(new)),
        (
            "store.withdrawn_copy",
            old.store.withdrawn_copy != new.store.withdrawn_copy,
        ),
        ("store.seal_key", seal(old) != seal(new)),
        (
            "store.retention.renewals",
            old.store.keep_renewals != new.store.keep_renewals,
        ),
        (
            "store.retention.other",
            old.store.keep_other != new.store.keep_other,
        ),
        ("cluster.name", differs(|cluster| cluster.name.to_string())),
        ("cluster.node", differs(|cluster| cluster.node.to_string())),
        (
            "cluster.nodes",
            differs(|cluster| format!("{:?}", cluster.nodes)),
        ),
    ]
}

/// How a kind of parts changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delta<T> {
    /// Names of parts to stop: gone, or to be replaced.
    pub(super) stop: Vec<String>,
    /// Parts to start: new, or changed.
    pub(super) start: Vec<T>,
}

/// How the resources change; those of `other_ca` do because their CA file holds something else.
pub(super) fn resources(
    old: &Settings,
    new: &Settings,
    other_ca: &BTreeSet<String>,
) -> Delta<ResourceSettings> {
    let name = |resource: &ResourceSettings| resource.name.to_string();
    delta(&old.resources, &new.resources, name, other_ca)
}

/// How the sinks change; those of `other_ca` do because their CA file holds something else.
pub(super) fn sinks(
    old: &Settings,
    new: &Settings,
    other_ca: &BTreeSet<String>,
) -> Delta<SinkSettings> {
    let name = |sink: &SinkSettings| sink.name().to_string();
    delta(&old.sinks, &new.sinks, name, other_ca)
}

/// Parts whose settings changed, and those that begin `again` although theirs did not.
fn delta<T: Clone + PartialEq>(
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> String,
    again: &BTreeSet<String>,
) -> Delta<T> {
    let known: BTreeMap<String, &T> = old.iter().map(|part| (name(part), part)).collect();
    let wanted: BTreeMap<String, &T> = new.iter().map(|part| (name(part), part)).collect();
    Delta {
        stop: known
            .iter()
            .filter(|(name, part)| wanted.get(*name) != Some(part) || again.contains(*name))
            .map(|(name, _)| name.clone())
            .collect(),
        start: wanted
            .iter()
            .filter(|(name, part)| known.get(*name) != Some(part) || again.contains(*name))
            .map(|(_, part)| (*part).clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        clock::Clock,
        config::{self, Environment, Source},
        store::Store,
        telemetry::Metrics,
    };

    const STRING: &str = "endpoint=https://a.b/;accesskey=YQ==";

    /// A daemon without identities, so that it has nothing to call, and its configuration.
    struct World {
        folder: tempfile::TempDir,
        supervisor: Supervisor,
    }

    impl World {
        fn start(parts: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let source = source(&folder, parts);
            let (settings, _) = read(&source).unwrap();
            let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
            let opened =
                Store::open_inline(&settings.store, &settings.daemon.state_dir, clock.now());
            let (resources, sinks) = (&settings.resources, &settings.sinks);
            let built = Built::new(&clock, "h", resources, sinks).unwrap();
            let mut supervisor = Supervisor::new(clock, opened.unwrap(), Metrics::new(), &settings);
            supervisor.start(built);
            Self { folder, supervisor }
        }

        /// What whoever asks for a reload is told.
        async fn reload(&mut self, parts: &str) -> Result<String, String> {
            let source = source(&self.folder, parts);
            let (answer, told) = oneshot::channel();
            let notifier = Notifier::silent();
            reload(&mut self.supervisor, &source, &notifier, Some(answer)).await;
            told.await.unwrap().map(|reloaded| reloaded.effect)
        }

        /// The resources and sinks that run.
        fn parts(&self) -> (Vec<String>, Vec<String>) {
            let shared_state = self.supervisor.shared_state();
            let shared_state = shared_state.borrow();
            let resources = shared_state.renewers.keys().map(ToString::to_string);
            let sinks = shared_state.dispatchers.keys().map(ToString::to_string);
            (resources.collect(), sinks.collect())
        }

        /// Why the last reload was refused, as it is published.
        fn refused(&self) -> Option<String> {
            let shared_state = self.supervisor.shared_state();
            let refused = shared_state.borrow().reload_refused.clone();
            refused.map(|amiss| amiss.what)
        }
    }

    fn source(folder: &tempfile::TempDir, parts: &str) -> Source {
        let dir = folder.path().display();
        let path: PathBuf = folder.path().join("renewd.toml");
        let text = format!(
            "[daemon]\nstate_dir = \"{dir}\"\nsocket = \"{dir}/s\"\n[store]\npath = \"{dir}/renewd.db\"\n{}",
            parts.replace("DIR", &dir.to_string())
        );
        std::fs::write(&path, text).unwrap();
        let environment = Environment::given([("A", STRING)], "h", true);
        Source { path, environment }
    }

    fn resource(name: &str) -> String {
        format!("[[resource]]\nname = \"{name}\"\nconnection_string = {{ env = \"A\" }}\n")
    }

    const SINK: &str = "[[sink.file]]\nname = \"files\"\npath = \"DIR/{name}.token\"\n";

    #[tokio::test(start_paused = true)]
    async fn a_reload_starts_and_stops_what_changed_and_nothing_else() {
        let mut world = World::start(&(resource("a") + SINK));
        let lasting = world.supervisor.shared_state().borrow().renewers.clone();
        let effect = world.reload(&(resource("a") + &resource("b") + SINK)).await;
        assert!(
            effect.as_ref().unwrap().contains("1 resource restarted"),
            "{effect:?}"
        );
        assert_eq!(world.parts().0, ["a", "b"]);
        let now = world.supervisor.shared_state().borrow().renewers.clone();
        let a: &crate::model::ResourceName = &"a".parse().unwrap();
        assert!(now[a].same_channel(&lasting[a]), "it was not started anew");
        world.reload(&resource("b")).await.unwrap();
        assert_eq!(world.parts(), (vec!["b".to_owned()], Vec::new()));
        assert!(lasting[a].has_changed().is_err(), "its renewer has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_that_is_refused_changes_nothing_and_is_told_until_one_succeeds() {
        let before = resource("a") + SINK;
        let mut world = World::start(&before);
        for (parts, told) in [
            (resource("a") + "[[sink.file]]\n", "name"),
            (before.clone() + "nonsense", "this is not TOML"),
            (
                resource("a") + &resource("b") + "[store.retention]\nrenewals = \"9d\"\n",
                "need a restart",
            ),
        ] {
            let why = world.reload(&parts).await.unwrap_err();
            assert!(why.contains(told), "{told}: {why}");
            assert!(world.refused().is_some());
            assert_eq!(world.parts().0, ["a"]);
            assert_eq!(world.parts().1, ["files"]);
        }
        world.reload(&before).await.unwrap();
        assert_eq!(world.refused(), None);
    }

    #[test]
    fn the_keys_that_need_a_restart_are_those_that_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("renewd.toml");
        let text = "[[resource]]\nname = \"a\"\nconnection_string = { env = \"A\" }\n";
        std::fs::write(&path, text).unwrap();
        let environment =
            Environment::given([("A", "endpoint=https://a.b/;accesskey=YQ==")], "h", true);
        let settings = config::load(&Source { path, environment })
            .unwrap()
            .settings;
        let ours = restart_keys(&settings, &settings).map(|(key, _)| key.to_owned());
        let said = config::restart_keys();
        assert_eq!(BTreeSet::from(ours), said.into_iter().collect());
        assert!(needs_restart(&settings, &settings).is_empty());
    }

    #[test]
    fn what_did_not_change_goes_on_running() {
        let name = |part: &(&str, u8)| part.0.to_owned();
        let delta = delta(
            &[("a", 1), ("b", 1), ("c", 1), ("e", 1)],
            &[("a", 1), ("b", 2), ("d", 1), ("e", 1)],
            name,
            &BTreeSet::from(["e".to_owned()]),
        );
        assert_eq!(delta.stop, ["b", "c", "e"]);
        assert_eq!(delta.start, [("b", 2), ("d", 1), ("e", 1)]);
    }
}
