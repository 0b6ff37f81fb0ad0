//! What the door for tests can do, verb by verb.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use renewd_acs_wire::Secret;

use super::{
    Emulator,
    access_keys::Slot,
    door::Refusal,
    faults::{self, FaultSpec, Limits},
    world::World,
};

pub(super) fn faults(emulator: &Emulator) -> Value {
    json!({"faults": emulator.world().faults.list()})
}

pub(super) fn add_fault(emulator: &Emulator, spec: FaultSpec) -> Result<Value, Refusal> {
    let number = emulator.world().faults.add(spec).map_err(Refusal::bad)?;
    Ok(json!({"number": number}))
}

pub(super) fn clear_faults(emulator: &Emulator) -> Value {
    emulator.world().faults.clear();
    faults(emulator)
}

pub(super) fn clear_fault(emulator: &Emulator, number: &str) -> Result<Value, Refusal> {
    let removed = number
        .parse()
        .is_ok_and(|number| emulator.world().faults.remove(number));
    if removed {
        Ok(faults(emulator))
    } else {
        Err(Refusal::unknown(format!("there is no fault {number}")))
    }
}

/// The keys themselves: whoever may ask here is a test of the one who started the emulator.
pub(super) fn keys(emulator: &Emulator) -> Value {
    let world = emulator.world();
    let show = |slot| {
        let key = world.keys.get(slot);
        json!({"key": key.text().expose(), "generation": key.stamp.generation})
    };
    json!({"primary": show(Slot::Primary), "secondary": show(Slot::Secondary)})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Regenerate {
    regenerate: Slot,
}

pub(super) fn regenerate(emulator: &Emulator, request: &Regenerate) -> Value {
    emulator.world().regenerate(request.regenerate);
    let slot = request.regenerate.as_str();
    tracing::info!(key = slot, "an access key was regenerated");
    keys(emulator)
}

pub(super) fn limits(emulator: &Emulator) -> Value {
    let world = emulator.world();
    let shown: BTreeMap<&str, Option<String>> = faults::ALL
        .into_iter()
        .map(|operation| {
            let limit = world.limiter.limits().0.get(&operation);
            (operation.as_str(), limit.map(ToString::to_string))
        })
        .collect();
    json!(shown)
}

pub(super) fn set_limits(
    emulator: &Emulator,
    changes: BTreeMap<String, Option<String>>,
) -> Result<Value, Refusal> {
    let mut new: Limits = emulator.world().limiter.limits().clone();
    for (operation, limit) in changes {
        let limit = limit.unwrap_or_else(|| "off".to_owned());
        new.set(&format!("{operation}={limit}"))
            .map_err(|e| Refusal::bad(e.to_string()))?;
    }
    emulator.world().limiter.replace(new);
    Ok(limits(emulator))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JudgeTokens {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    tokens: Option<Vec<String>>,
}

pub(super) fn judge_tokens(emulator: &Emulator, request: JudgeTokens) -> Result<Value, Refusal> {
    match (request.token, request.tokens) {
        (Some(token), None) => Ok(judge(emulator, &Secret::new(token))),
        (None, Some(tokens)) => {
            let results: Vec<Value> = tokens
                .into_iter()
                .map(|token| judge(emulator, &Secret::new(token)))
                .collect();
            Ok(json!({"results": results}))
        }
        _ => Err(Refusal::bad("give either token or tokens")),
    }
}

/// Whether a token is live, and if not, why.
fn judge(emulator: &Emulator, token: &Secret) -> Value {
    let (known, now) = {
        let world = emulator.world();
        let now = emulator.now_at(world.offset);
        let known = world
            .tokens
            .find(token.expose())
            .map(|facts| (facts.clone(), world.death(facts, now)));
        (known, now)
    };
    if let Some((facts, death)) = known {
        return verdict(death, &facts.owner, facts.expires_at);
    }
    let Some(claims) = emulator.mint.read(token.expose()) else {
        return json!({"live": false, "reason": "unknown", "id": null, "expires_at": null});
    };
    let death = emulator.world().death_of_adopted(&claims, now);
    let ends = Timestamp::from_second(claims.exp).unwrap_or(now);
    verdict(death, &format!("8:{}", claims.skypeid), ends)
}

fn verdict(death: Option<&str>, id: &str, expires_at: Timestamp) -> Value {
    json!({
        "live": death.is_none(),
        "reason": death,
        "id": id,
        "expires_at": expires_at,
    })
}

pub(super) fn requests(emulator: &Emulator, query: Option<&str>) -> Result<Value, Refusal> {
    let (mut limit, mut operation) = (100, None);
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty())
    {
        match pair.split_once('=') {
            Some(("limit", value)) => {
                let wrong = |_| Refusal::bad("limit must be a number");
                limit = value.parse().map_err(wrong)?;
            }
            Some(("operation", value)) => {
                let unknown = || Refusal::bad(format!("there is no operation {value}"));
                operation = Some(faults::operation(value).ok_or_else(unknown)?);
            }
            _ => return Err(Refusal::bad("known are limit=N and operation=NAME")),
        }
    }
    let world = emulator.world();
    Ok(json!({"requests": world.request_log.recent(limit, operation)}))
}

pub(super) fn forget_requests(emulator: &Emulator) -> Value {
    emulator.world().request_log.forget_requests();
    json!({"requests": []})
}

pub(super) fn stats(emulator: &Emulator) -> Value {
    let world = emulator.world();
    let (created, deleted) = world
        .identities()
        .fold((0_u64, 0_u64), |(all, gone), (_, identity)| {
            (all + 1, gone + u64::from(identity.deleted))
        });
    json!({
        "operations": world.request_log.counts(),
        "identities": {"created": created, "deleted": deleted},
    })
}

pub(super) fn forget_stats(emulator: &Emulator) -> Value {
    emulator.world().request_log.forget_counts();
    stats(emulator)
}

pub(super) fn identities(emulator: &Emulator) -> Value {
    let world = emulator.world();
    let list: Vec<Value> = world
        .identities()
        .map(|(id, identity)| {
            json!({
                "id": id,
                "created_at": identity.created_at,
                "deleted": identity.deleted,
                "tokens_issued": identity.tokens_issued,
            })
        })
        .collect();
    json!({"identities": list})
}

pub(super) fn clock(emulator: &Emulator) -> Value {
    let world = emulator.world();
    show_clock(emulator, &world)
}

fn show_clock(emulator: &Emulator, world: &World) -> Value {
    json!({
        "now": emulator.now_at(world.offset),
        "offset_seconds": world.offset.as_secs_f64(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveClock {
    #[serde(default)]
    offset_seconds: Option<f64>,
    #[serde(default)]
    advance_seconds: Option<f64>,
}

pub(super) fn move_clock(emulator: &Emulator, request: &MoveClock) -> Result<Value, Refusal> {
    let read = |seconds: Option<f64>| match seconds {
        Some(seconds) => SignedDuration::try_from_secs_f64(seconds)
            .map(Some)
            .map_err(|_| Refusal::bad("that is too far for a clock")),
        None => Ok(None),
    };
    let (set, advance) = (
        read(request.offset_seconds)?,
        read(request.advance_seconds)?,
    );
    let mut world = emulator.world();
    let from = set.unwrap_or(world.offset);
    let to = from
        .checked_add(advance.unwrap_or_default())
        .ok_or_else(|| Refusal::bad("that is too far for a clock"))?;
    world.offset = to;
    Ok(show_clock(emulator, &world))
}
