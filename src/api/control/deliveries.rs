//! `GET /v1/deliveries`, `POST /v1/deliveries/retry` and `/replay`: the delivery table.

use axum::{
    Json,
    extract::{Query, State},
};
use serde::Deserialize;

use super::{
    super::{
        handle::{Api, SinkAsk},
        problem::{Problem, ProblemType},
        wire::{AskDeliveries, AskedDeliveries, DeliveryRow, Page},
    },
    Admin, Body, PAGE,
    listings::bad_cursor,
    record, records, sinks,
};
use crate::{
    model::{DispatcherView, Num, Record, SinkName, Timestamp, short_duration},
    store::{Listed, Rows},
};

/// What is still to be delivered of one identity to one sink, in a sentence.
pub(super) fn about_one(
    of: &Listed,
    dispatcher: Option<&DispatcherView>,
    record: &Record,
    now: Timestamp,
) -> String {
    let (sink, delivery) = (&of.delivery.sink, &of.delivery);
    let span = |from: Timestamp, to: Timestamp| {
        short_duration(to.duration_since(from).try_into().unwrap_or_default())
    };
    let what = match record.state.wants_token() {
        true => format!("its token (version {}) has", delivery.wanted),
        false => format!("that it is {} has", record.state),
    };
    let next = match dispatcher {
        None => "the sink is not configured".to_owned(),
        Some(DispatcherView {
            disabled: Some(why),
            ..
        }) => format!("the sink is disabled ({why}): `renewd sink enable {sink}`"),
        _ if !of.waits_for.is_empty() => {
            let names: Vec<&str> = of.waits_for.iter().map(SinkName::as_str).collect();
            format!("it waits for {}", names.join(", "))
        }
        _ if delivery.next_at <= now => "it is tried as soon as its turn comes".to_owned(),
        _ => format!("it is tried again in {}", span(now, delivery.next_at)),
    };
    let last = match &delivery.last_error {
        Some(error) => format!(
            " after {} failed attempts, the last: {error}",
            delivery.attempts
        ),
        None => String::new(),
    };
    format!(
        "{what} not reached the sink {sink} since {}{last}; {next}",
        span(delivery.since, now)
    )
}

/// Which rows are listed; what is left out matches all.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    name: Option<String>,
    sink: Option<String>,
    #[serde(default)]
    pending: bool,
    #[serde(default)]
    dead: bool,
    after: Option<String>,
}

/// The delivery table. A cursor is `SINK/NUM`: the sink and the row that came last.
pub(super) async fn list(
    State(api): State<Api>,
    _: Admin,
    Query(which): Query<Which>,
) -> Result<Json<Page<DeliveryRow>>, Problem> {
    let nums = match &which.name {
        Some(name) => Some(vec![record(&api, name).await?.num]),
        None => None,
    };
    let (first, mut after) = match which.after.as_deref().map(place) {
        None => (None, 0),
        Some(place) => place
            .map(|(sink, num)| (Some(sink), num))
            .ok_or_else(bad_cursor)?,
    };
    let mut items: Vec<DeliveryRow> = Vec::new();
    for sink in chosen(&api, which.sink.as_deref())? {
        if Some(&sink) < first.as_ref() {
            continue;
        }
        if Some(&sink) != first.as_ref() {
            after = 0;
        }
        let rows = Rows {
            nums: nums.clone(),
            sink: Some(sink.clone()),
            pending: which.pending,
            dead: which.dead,
        };
        let rows = api
            .store
            .delivery_table(rows, after, PAGE - items.len())
            .await?;
        let last = rows.last().map(|row| row.delivery.num);
        items.extend(rows.into_iter().map(DeliveryRow::from));
        if let (true, Some(num)) = (items.len() == PAGE, last) {
            let next = Some(format!("{sink}/{num}"));
            return Ok(Json(Page { items, next }));
        }
    }
    Ok(Json(Page { items, next: None }))
}

/// Attempts what is pending among these now, whatever breaker, receiver and schedule said.
pub(super) async fn retry(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<AskDeliveries>,
) -> Result<Json<AskedDeliveries>, Problem> {
    let rows = rows(&api, &asked).await?;
    let due = api.store.retry_deliveries(rows, api.clock.now()).await?;
    answer(&api, &admin, "retry deliveries", asked, due).await
}

/// Delivers the current version of these once more, although it was delivered.
pub(super) async fn replay(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<AskDeliveries>,
) -> Result<Json<AskedDeliveries>, Problem> {
    if asked.all && asked.sink.is_none() {
        let why = "a replay of everything is asked for one sink at a time: name the sink";
        return Err(Problem::new(ProblemType::Invalid, why));
    }
    let rows = rows(&api, &asked).await?;
    let due = api.store.replay_deliveries(rows, api.clock.now()).await?;
    answer(&api, &admin, "replay deliveries", asked, due).await
}

async fn rows(api: &Api, asked: &AskDeliveries) -> Result<Rows, Problem> {
    if asked.all != asked.names.is_empty() {
        return Err(Problem::new(ProblemType::Invalid, "either names or all"));
    }
    if let Some(sink) = &asked.sink {
        sinks::find(api, sink.as_str())?;
    }
    let nums = match asked.all {
        true => None,
        false => {
            let found = records(api, &asked.names).await?;
            Some(found.iter().map(|row| row.num).collect())
        }
    };
    Ok(Rows {
        nums,
        sink: asked.sink.clone(),
        pending: false,
        dead: asked.dead,
    })
}

/// Wakes the dispatchers concerned and says which of them are disabled.
async fn answer(
    api: &Api,
    admin: &Admin,
    action: &str,
    asked: AskDeliveries,
    due: usize,
) -> Result<Json<AskedDeliveries>, Problem> {
    let views = api.shared_state().dispatcher_views();
    let mut disabled = Vec::new();
    for sink in chosen(api, asked.sink.as_ref().map(SinkName::as_str))? {
        if views.get(&sink).is_some_and(|view| view.disabled.is_some()) {
            disabled.push(sink);
        } else if due > 0 {
            sinks::ask(api, sink, SinkAsk::GoOn).await?;
        }
    }
    let name = match asked.names.as_slice() {
        [name] => Some(name),
        _ => None,
    };
    let result = format!("{due} due");
    admin
        .audit(api, action, name, asked.reason, &result)
        .await?;
    let due = due as u64;
    Ok(Json(AskedDeliveries { due, disabled }))
}

/// This sink, or all of them, in the order of their names.
fn chosen(api: &Api, sink: Option<&str>) -> Result<Vec<SinkName>, Problem> {
    match sink {
        Some(sink) => Ok(vec![sinks::find(api, sink)?.0]),
        None => Ok(api.shared_state().dispatchers.keys().cloned().collect()),
    }
}

/// Reads `SINK/NUM`.
fn place(cursor: &str) -> Option<(SinkName, Num)> {
    let (sink, num) = cursor.rsplit_once('/')?;
    Some((sink.parse().ok()?, num.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_names_sink_and_row() {
        assert_eq!(place("crm/12"), Some(("crm".parse().unwrap(), 12)));
        assert_eq!(place("crm"), None);
    }
}
