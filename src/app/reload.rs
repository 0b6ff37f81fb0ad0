//! Reads the configuration again: all or nothing, and it says what changed.

use tokio::sync::oneshot;

use super::{RunError, Supervisor, check, delta, supervisor::Built};
use crate::{
    api::client::wire::Reloaded,
    config::{self, Problem, Problems, Settings, Source},
    systemd::Notifier,
};

/// Whoever asked for it over the socket gets the effect, or every problem as text.
pub(super) type Answer = oneshot::Sender<Result<Reloaded, String>>;

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
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

impl Refused {
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
    answer: Option<Answer>,
) {
    if let Err(error) = notifier.reloading() {
        tracing::warn!(%error, "cannot tell the service manager of the reload");
    }
    let result = take_over(supervisor, source).await;
    supervisor.reloaded(result.as_ref().err().map(Refused::first_line));
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

async fn take_over(supervisor: &mut Supervisor, source: &Source) -> Result<Reloaded, Refused> {
    if let Some(why) = supervisor.opened.standing.refusal() {
        return Err(Refused::Unusable(why));
    }
    let (new, odd) = load(source).map_err(Refused::Config)?;
    let keys = delta::needs_restart(supervisor.settings(), &new);
    if !keys.is_empty() {
        return Err(Refused::NeedsRestart(keys.join(", ")));
    }
    let other_ca = supervisor.other_ca(&new.resources);
    let resources = delta::resources(supervisor.settings(), &new, &other_ca);
    let sinks = delta::sinks(supervisor.settings(), &new);
    let built = Built::new(
        &supervisor.clock,
        &new.daemon.instance,
        &resources.start,
        &sinks.start,
    )?;
    supervisor.expect(&built);
    let names: Vec<_> = new.sinks.iter().map(|sink| sink.name().clone()).collect();
    let reconciled = supervisor
        .store
        .reconcile(&new.identities, &names, supervisor.clock.now());
    let mut effect = reconciled.await.map_err(RunError::from)?.to_string();
    let heeded = built.heed(&supervisor.store, supervisor.clock.now()).await;
    for (resource, tokens) in heeded.map_err(Refused::from)? {
        effect += &format!(
            ", {tokens} token{} of {resource} minted by an access key that is no longer configured: minted anew",
            if tokens == 1 { "" } else { "s" }
        );
    }
    supervisor.stop(&resources.stop, &sinks.stop).await;
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
    supervisor.start(built);
    if other_jobs {
        supervisor.start_jobs().await;
        effect += &format!(", {} jobs scheduled", new.jobs.len());
    }
    let warnings = odd
        .iter()
        .map(|problem| config::render(std::slice::from_ref(problem), false));
    Ok(Reloaded {
        effect,
        warnings: warnings.collect(),
    })
}

/// Loads the configuration and asks every room what it finds in it. What is odd is logged and comes
/// back beside the settings.
pub(super) fn load(source: &Source) -> Result<(Settings, Vec<Problem>), Problems> {
    let (settings, odd) = read(source)?;
    warn(&odd);
    Ok((settings, odd))
}

/// The same without a word in the log.
pub(super) fn read(source: &Source) -> Result<(Settings, Vec<Problem>), Problems> {
    let loaded = config::load(source)?;
    let found = loaded.places.problems(check(&loaded.settings));
    let problems: Vec<Problem> = loaded.warnings.into_iter().chain(found).collect();
    if config::Places::any_error(&problems) {
        return Err(Problems(problems));
    }
    Ok((loaded.settings, problems))
}

/// Logs what is odd in a configuration.
pub(super) fn warn(odd: &[Problem]) {
    if !odd.is_empty() {
        let odd = config::render(odd, false);
        tracing::warn!("the configuration is odd:\n{odd}");
    }
}
