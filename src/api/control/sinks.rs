//! `GET /v1/sinks` and what can be asked of one: pause, enable, test.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
};
use tokio::{sync::oneshot, time::timeout};

use super::{
    super::{
        handle::{Api, Command, SinkAsk},
        problem::{Problem, ProblemType},
        wire::{AskSink, SinkRow, SinkState, SinkTested, Sinks},
    },
    Admin, Body,
};
use crate::{
    model::{Counts, DispatcherView, SinkName},
    store::Disabled,
};

/// A test ends earlier: every sink has a deadline of its own.
const LONGEST_TEST: Duration = Duration::from_mins(10);

/// Every sink.
pub(super) async fn list(State(api): State<Api>, _: Admin) -> Result<Json<Sinks>, Problem> {
    let (at, counts) = (api.clock.now(), api.store.counts().await?);
    let views = api.shared_state().dispatcher_views().into_iter();
    let row = |(name, dispatcher)| row(name, dispatcher, &counts, at);
    Ok(Json(Sinks {
        at,
        sinks: views.map(row).collect(),
    }))
}

fn row(
    name: SinkName,
    dispatcher: DispatcherView,
    counts: &Counts,
    at: jiff::Timestamp,
) -> SinkRow {
    let oldest_pending = counts.oldest_pending.get(&name).copied();
    SinkRow {
        state: SinkState::of(&dispatcher),
        pending: counts.pending.get(&name).copied().unwrap_or(0),
        oldest_pending,
        lag_seconds: oldest_pending.map(|since| at.duration_since(since).as_secs_f64().max(0.0)),
        name,
        dispatcher,
    }
}

/// Nothing goes out to it until it is enabled, over restarts.
pub(super) async fn pause(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Body(asked): Body<AskSink>,
) -> Result<Json<Sinks>, Problem> {
    let (sink, _) = find(&api, &name)?;
    let actor = admin.cause(&api, None).await.actor;
    let why = match &asked.reason {
        Some(reason) => format!("paused by {actor}: {reason}"),
        None => format!("paused by {actor}"),
    };
    let disabled = Disabled {
        why,
        by_command: true,
    };
    let now = api.clock.now();
    api.store.disable_sink(&sink, disabled, now).await?;
    let action = format!("pause sink {sink}");
    admin
        .audit(&api, &action, None, asked.reason, "paused")
        .await?;
    list(State(api), admin).await
}

/// Deliveries go out again, and what waited goes out at once.
pub(super) async fn enable(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Body(asked): Body<AskSink>,
) -> Result<Json<Sinks>, Problem> {
    let (sink, _) = find(&api, &name)?;
    api.store.enable_sink(&sink, api.clock.now()).await?;
    ask(&api, sink.clone(), SinkAsk::GoOn).await?;
    let action = format!("enable sink {sink}");
    admin
        .audit(&api, &action, None, asked.reason, "enabled")
        .await?;
    list(State(api), admin).await
}

/// Hands a synthetic document over down the real path, and tells how that went.
pub(super) async fn test(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Body(asked): Body<AskSink>,
) -> Result<Json<SinkTested>, Problem> {
    let (sink, view) = find(&api, &name)?;
    let (answer, answered) = oneshot::channel();
    ask(&api, sink.clone(), SinkAsk::Test { answer }).await?;
    let Ok(Ok(tested)) = timeout(LONGEST_TEST, answered).await else {
        let why = "renewd itself failed at the test; see its log";
        return Err(Problem::new(ProblemType::Internal, why));
    };
    let (arrived, answer) = match tested.result {
        Ok(answer) => (true, answer),
        Err(why) => (false, why),
    };
    let result = if arrived { "arrived" } else { "failed" };
    let action = format!("test sink {sink}");
    admin
        .audit(&api, &action, None, asked.reason, result)
        .await?;
    Ok(Json(SinkTested {
        sink,
        kind: view.kind,
        target: view.target,
        arrived,
        answer,
        took_ms: tested.took.as_millis().try_into().unwrap_or(u64::MAX),
    }))
}

/// The sink of this name and what its dispatcher published.
pub(super) fn find(api: &Api, name: &str) -> Result<(SinkName, DispatcherView), Problem> {
    let views = api.shared_state().dispatcher_views();
    let known: Vec<&str> = views.keys().map(SinkName::as_str).collect();
    let unknown = format!("there is no sink {name:?}; there are: {}", known.join(", "));
    let found = views.into_iter().find(|(sink, _)| sink.as_str() == name);
    found.ok_or_else(|| Problem::new(ProblemType::Unknown, unknown))
}

/// Asks a dispatcher something, through `app`.
pub(super) async fn ask(api: &Api, name: SinkName, ask: SinkAsk) -> Result<(), Problem> {
    let command = Command::Sink { name, ask };
    let stopping = |_| Problem::new(ProblemType::Conflict, "the daemon is stopping");
    api.commands.send(command).await.map_err(stopping)
}
