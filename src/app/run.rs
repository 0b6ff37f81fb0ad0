//! The life of the daemon: load, build, start, serve, reload, drain, end.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{
    RunError, Supervisor, doctor,
    external_heartbeat::ExternalHeartbeat,
    reload,
    standby::{joined, keep_mirror, without_database},
    supervisor::{Built, ProcessSignals, Signalled},
    trust_files::TrustFiles,
    upkeep::{Heartbeat, SelfCheck},
};
use crate::{
    api::{Api, Command, Listeners, Permission, client::wire::StoreUsed},
    clock::Clock,
    config::{Settings, Source},
    model::StoreStanding,
    pool,
    store::{Cause, OpenError, Opened, Store},
    systemd::{self, Notifier, Passed},
    telemetry::Metrics,
};

/// The loops that obtain and commit get so long to end; then the dispatchers get the rest of the 10 s.
const DRAIN: Duration = Duration::from_millis(8500);
/// What the dispatchers and the listeners get.
const LAST_DELIVERIES: Duration = Duration::from_millis(1500);
/// How much more time to start is asked for at once, while files are restored.
const MORE_TIME: Duration = Duration::from_secs(30);

/// Runs the daemon until a signal ends it. With `no_backup` the store is not saved before its schema is
/// changed.
///
/// # Errors
/// When it cannot start, or a loop ended that never should.
pub async fn run(source: Source, no_backup: bool) -> Result<(), RunError> {
    systemd::harden()?;
    systemd::make_private();
    let notifier = Arc::new(Notifier::from_env()?);
    let mut signals = ProcessSignals::hear()?;
    let (mut settings, odd) = reload::read(&source).map_err(RunError::Config)?;
    settings.store.save_before_migration &= !no_backup;
    let passed = Passed::from_env()?;
    say_where(&source, &settings, &passed);
    reload::warn(&odd);
    let clock = Clock::system();
    // What cannot be built is said before anything is touched.
    let built = Built::new(
        &clock,
        &settings.daemon.instance,
        &settings.resources,
        &settings.sinks,
    )?;
    let (store, opened) = open_store(&settings, &clock, &notifier).await?;
    let listeners = Listeners::bind(&settings.daemon, (passed.socket, passed.listen)).await?;
    let metrics = Metrics::new();
    let steady = clock.clone();
    store.measure(metrics.clone(), move || steady.steady());
    let mut supervisor = Supervisor::new(clock, (store, opened), metrics, &settings);
    let waiting = match supervisor.store.is_open() {
        true => {
            enter(&mut supervisor, built, &settings).await?;
            None
        }
        false => {
            supervisor.put_files_back(&built).await;
            Some((settings, built))
        }
    };
    let (commands, mut asked) = mpsc::channel(8);
    serve(&mut supervisor, listeners, commands, &notifier);
    let ended = live(
        &mut supervisor,
        &source,
        &notifier,
        &mut signals,
        &mut asked,
        waiting,
    )
    .await;
    let moved = supervisor.store_moved.borrow().clone();
    let drained = end(supervisor, &notifier).await;
    match (ended.and(drained), moved) {
        (Ok(()), Some(moved)) => Err(RunError::StoreMoved { what: moved.what }),
        (ended, _) => ended,
    }
}

/// The first line of the log: who starts, from which configuration, and where it is reached.
fn say_where(source: &Source, settings: &Settings, passed: &Passed) {
    let socket = passed.socket.as_ref().map(|socket| socket.local_addr());
    let socket = socket.and_then(|address| Some(address.ok()?.as_pathname()?.to_owned()));
    let listen = passed.listen.as_ref().map(|listen| listen.local_addr());
    let listen = listen.and_then(Result::ok).or(settings.daemon.listen);
    if let Some(held) = socket
        .as_ref()
        .filter(|held| **held != settings.daemon.socket)
    {
        tracing::warn!(
            configured = %settings.daemon.socket.display(),
            held = %held.display(),
            "renewd.socket holds another socket than the one where commands look: give both one path (systemctl edit \
             renewd.socket), or do without the unit (systemctl mask renewd.socket)"
        );
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        configuration = %source.path.display(),
        socket = %socket.unwrap_or_else(|| settings.daemon.socket.clone()).display(),
        listener = %listen.map_or_else(|| "none".to_owned(), |address| address.to_string()),
        "renewd starts"
    );
}

/// Opens the store. Saving a large one before its schema is changed takes longer than the service
/// manager allows a start, so it is asked for more time meanwhile.
async fn open_store(
    settings: &Settings,
    clock: &Clock,
    notifier: &Notifier,
) -> Result<(Store, Opened), RunError> {
    let (store, state_dir) = (settings.store.clone(), settings.daemon.state_dir.clone());
    let now = clock.now();
    let opening = pool::LOOKS.run(move || Store::open(&store, &state_dir, now));
    tokio::pin!(opening);
    let opened = loop {
        tokio::select! {
            biased;
            opened = &mut opening => break opened,
            () = tokio::time::sleep(MORE_TIME / 2) => notifier.extend_timeout(MORE_TIME)?,
        }
    };
    let opened = opened.unwrap_or_else(|error| {
        Err(OpenError::Other {
            path: settings.store.place.called(),
            reason: error.to_string(),
        })
    });
    let opened = match opened {
        Err(OpenError::Away { reason, lasting }) => {
            let store = without_database(settings, clock, &reason)?;
            let store = store.ok_or(OpenError::Away { reason, lasting })?;
            return Ok((store, Opened::default()));
        }
        opened => opened?,
    };
    keep_mirror(&opened.0, settings);
    tell(&opened.1);
    Ok(opened)
}

/// Tells what was found when the store was opened.
fn tell(opened: &Opened) {
    if let Some(told) = opened.told() {
        tracing::warn!("{told}");
    }
    if opened.broken_id_lines > 0 {
        tracing::warn!(
            lines = opened.broken_id_lines,
            "lines of identities.jsonl cannot be read; the file as it was is kept as identities.jsonl.broken"
        );
    }
    if opened.orphans > 0 {
        tracing::warn!(
            orphans = opened.orphans,
            "creations were under way when the last process ended; identities may exist at ACS that nobody knows"
        );
    }
}

/// Where the store may be used, joins the cluster, if there is one, and begins. Who may not use it must not lead either.
async fn enter(
    supervisor: &mut Supervisor,
    built: Built,
    settings: &Settings,
) -> Result<(), RunError> {
    match supervisor.opened.standing.refusal() {
        None => {
            supervisor.join(settings);
            let built = supervisor.of_here(built);
            begin(supervisor, built, settings).await?;
        }
        Some(why) => tracing::error!("{why}"),
    }
    Ok(())
}

/// Takes over what is declared and starts everything that works with the store; of a cluster what runs on each
/// machine. While the store may not be used, none of it is there.
async fn begin(
    supervisor: &mut Supervisor,
    built: Built,
    settings: &Settings,
) -> Result<(), RunError> {
    if supervisor.leads() {
        supervisor.begin_leading(built, settings).await?;
    } else {
        let (sinks, now) = (settings.sinks_at(), supervisor.clock.now());
        supervisor.store.bind_sinks(&sinks, now).await?;
        supervisor.restart_sources(&settings.sources).await;
        supervisor.start(built);
    }
    supervisor.begin_everywhere();
    Ok(())
}

/// Goes on by a person's word with a store that could not be used: nothing is started before the
/// configuration was read again and everything is built.
async fn use_store(
    supervisor: &mut Supervisor,
    source: &Source,
    permission: Permission,
    cause: &Cause,
) -> Result<Result<StoreUsed, String>, RunError> {
    let (settings, built) = match prepare(supervisor, source) {
        Ok(prepared) => prepared,
        Err(error) => return Ok(Err(format!("the store was not accepted: {error}"))),
    };
    let now = supervisor.clock.now();
    let said = match permission {
        Permission::Accept
            if matches!(supervisor.opened.standing, StoreStanding::Passive { .. }) =>
        {
            return Ok(Err(supervisor
                .opened
                .standing
                .refusal()
                .unwrap_or_default()));
        }
        Permission::Accept => {
            let renewing = supervisor.store.accept(cause, now).await;
            renewing.map(|renewing| (renewing, StoreStanding::Own))
        }
        Permission::Adopt => {
            let standing = supervisor.store.adopt(cause, now).await;
            standing.map(|standing| (0, standing))
        }
    };
    let (renewing, standing) = match said {
        Ok(said) => said,
        Err(error) => return Ok(Err(error.to_string())),
    };
    tracing::warn!(
        by = cause.actor,
        renewing,
        ?permission,
        standing = standing.as_str(),
        "a person let the store be used"
    );
    let still = standing.refusal();
    supervisor.found(standing);
    if still.is_some() {
        return Ok(Ok(StoreUsed { renewing, still }));
    }
    supervisor.adopt(&settings);
    supervisor.join(&settings);
    let built = supervisor.of_here(built);
    begin(supervisor, built, &settings).await?;
    Ok(Ok(StoreUsed {
        renewing,
        still: None,
    }))
}

/// The configuration as it is now, and all parts of it, ready to start.
fn prepare(supervisor: &Supervisor, source: &Source) -> Result<(Settings, Built), RunError> {
    let (settings, _) = reload::load(source).map_err(RunError::Config)?;
    let keys = reload::needs_restart(supervisor.settings(), &settings);
    if !keys.is_empty() {
        return Err(RunError::NeedsRestart(keys.join(", ")));
    }
    let (daemon, sinks) = (&settings.daemon, &settings.sinks);
    let built = Built::new(
        &supervisor.clock,
        &daemon.instance,
        &settings.resources,
        sinks,
    )?;
    Ok((settings, built))
}

/// The loops that are there once, whatever the store.
fn serve(
    supervisor: &mut Supervisor,
    listeners: Listeners,
    commands: mpsc::Sender<Command>,
    notifier: &Arc<Notifier>,
) {
    let changed = commands.clone();
    let api = Api::new(
        supervisor.clock.clone(),
        supervisor.store.clone(),
        supervisor.metrics.clone(),
        supervisor.shared_state(),
        commands,
    );
    let heartbeat = Heartbeat::new(
        Arc::clone(notifier),
        supervisor.clock.clone(),
        api.clone(),
        supervisor.shared_state(),
    );
    let (looking, measured) = (api.clone(), supervisor.metrics.clone());
    let outside = ExternalHeartbeat::new(
        (supervisor.clock.clone(), measured),
        None,
        supervisor.heartbeat(),
        move || {
            let api = looking.clone();
            async move { api.alarms().await }
        },
    );
    let self_check = SelfCheck {
        api: api.clone(),
        store: supervisor.store.clone(),
        clock: supervisor.clock.clone(),
        moved: supervisor.store_moved.clone(),
        open: None,
        tells_at: Duration::ZERO,
    };
    supervisor
        .loops
        .spawn("listeners", |stop| listeners.serve(api, stop));
    supervisor.loops.repeat("heartbeat", heartbeat);
    supervisor.loops.repeat("self-check", self_check);
    let trust_files = TrustFiles::new(
        supervisor.trust.paths.subscribe(),
        supervisor.trust.found.clone(),
        changed,
        supervisor.clock.clone(),
    );
    supervisor.loops.repeat("external-heartbeat", outside);
    supervisor.loops.repeat("trust-files", trust_files);
}

/// Until a signal or a failure ends it. READY is sent once every live token is on disk again.
async fn live(
    supervisor: &mut Supervisor,
    source: &Source,
    notifier: &Notifier,
    signals: &mut ProcessSignals,
    asked: &mut mpsc::Receiver<Command>,
    mut waiting: Option<(Settings, Built)>,
) -> Result<(), RunError> {
    let restored = supervisor.restoring();
    tokio::pin!(restored);
    let joined = joined(supervisor.store.clone(), supervisor.clock.clone());
    tokio::pin!(joined);
    let mut ready = false;
    loop {
        let charged = supervisor.charged();
        tokio::select! {
            biased;
            ended = supervisor.loops.failed() => return Err(ended.into()),
            signal = signals.next() => match signal {
                Signalled::End => return Ok(()),
                Signalled::Reload => reload::reload(supervisor, source, notifier, None).await,
            },
            Some(command) = asked.recv() => match command {
                Command::Reload { answer } => {
                    reload::reload(supervisor, source, notifier, Some(answer)).await;
                }
                Command::UseStore { permission, cause, answer } => {
                    let used = use_store(supervisor, source, permission, &cause).await?;
                    if used.as_ref().is_ok_and(|used| used.still.is_none()) {
                        restored.set(supervisor.restoring());
                        ready = false;
                    }
                    // Whoever asked may have gone in the meantime.
                    answer.send(used).ok();
                }
                Command::Retrust => reload::retrust(supervisor).await,
                Command::Examine { answer } => doctor::answer(supervisor, source, answer),
                Command::Sink { name, ask } => supervisor.ask(&name, ask),
                Command::Source { name, apply, answer } => supervisor.ask_source(&name, apply, answer),
            },
            opened = &mut joined, if waiting.is_some() => {
                tell(&opened);
                if let Some((settings, built)) = waiting.take() {
                    supervisor.joined(opened, &settings).await;
                    enter(supervisor, built, &settings).await?;
                }
                restored.set(supervisor.restoring());
                ready = false;
            }
            () = charged, if supervisor.opened.standing.is_usable() => supervisor.attend().await,
            () = &mut restored, if !ready => {
                ready = true;
                supervisor.restored();
                notifier.ready(match (&waiting, supervisor.opened.standing.is_usable()) {
                    (Some(_), _) => "serving what this node knew: its database is away",
                    (None, true) => "running",
                    (None, false) => "waiting for a person: see renewd status",
                })?;
            }
            () = tokio::time::sleep(MORE_TIME / 2), if !ready => notifier.extend_timeout(MORE_TIME)?,
        }
    }
}

/// What is uncommitted goes first, then what is committed is delivered, then the store closes. Fails where
/// a loop did, or what was obtained or done could not be noted: the process then does not end as if all
/// were well.
async fn end(mut supervisor: Supervisor, notifier: &Notifier) -> Result<(), RunError> {
    supervisor.stopping();
    let words = match &*supervisor.store_moved.borrow() {
        Some(moved) => format!("draining, and what was renewed is lost: {}", moved.what),
        None => "draining".to_owned(),
    };
    if let Err(error) = notifier.stopping(&words) {
        tracing::warn!(%error, "cannot tell the service manager of the end");
    }
    let obtains = |name: &str| name.starts_with("renewer ") || name.starts_with("campaigns ");
    supervisor.loops.replace_all(DRAIN, obtains).await;
    supervisor.at_work(false);
    let late = supervisor.loops.stop_all(LAST_DELIVERIES, |_| true).await;
    if !late.is_empty() {
        tracing::warn!(
            loops = late.join(", "),
            "did not end in time; what they had begun is due again at the next start"
        );
    }
    supervisor.store.end_mirror(supervisor.clock.now()).await;
    match supervisor.loops.first_failure() {
        Some(failure) => Err(failure.into()),
        None => {
            tracing::info!("ended");
            Ok(())
        }
    }
}
