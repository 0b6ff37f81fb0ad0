//! What the page shows of a fleet, as plain data: decided here from one look at the daemon, and only written out by
//! the template. Every list is cut where a person would not read on, so the page stays small whatever the fleet is.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    super::{
        snapshot::Snapshot,
        wire::{Need, NeedKind, no_backup},
    },
    causes,
    chart::Chart,
};
use crate::{
    model::{
        BearerTrouble, BearerView, Consumers, DispatcherView, HealthView, KeyRole, KeyStanding,
        KeysView, Name, RenewerView, ResourceName, SinkAt, State, Then, grouped, short_duration,
    },
    schedule::Plan,
    store::{Campaign, CampaignState},
};

/// So many of each are shown; the worst come first.
const NEEDS: usize = 20;
const NAMES: usize = 5;
const RESOURCES: usize = 20;
const CHARTS: usize = 2;
const SINKS: usize = 30;
const CAMPAIGNS: usize = 8;

/// What is asked of the store for the page alone.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// The hours ahead of each resource, as far as they are known.
    pub(super) plans: Vec<Plan>,
    /// Open campaigns, and those that ended lately.
    pub(super) campaigns: Vec<Campaign>,
    /// When the first of all tokens ends, for those that only the socket hands out.
    pub(super) first_end: Option<Timestamp>,
}

/// How something is: decides colours and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tone {
    Good,
    Calm,
    Warn,
    Bad,
}

/// The page at one instant.
#[derive(Debug, Serialize)]
pub(super) struct Picture {
    pub(super) at: Timestamp,
    pub(super) instance: String,
    /// The resources by name, in one line.
    resource: String,
    version: &'static str,
    since: Timestamp,
    pub(super) tone: Tone,
    /// The sentence on top, without what changes by the second: it is read aloud when it changes.
    pub(super) spoken: String,
    /// When the next token ends that a consumer holds.
    next_end: Option<Timestamp>,
    /// What outage the fleet survives.
    survival: Option<String>,
    orders: Vec<Ask>,
    needs: Vec<Ask>,
    more_needs: usize,
    resources: Vec<Resource>,
    more_resources: usize,
    sinks: Vec<Sink>,
    more_sinks: usize,
    campaigns: Vec<Work>,
    last_backup: Option<Timestamp>,
    no_backup: &'static str,
    held_step: Option<i64>,
    /// Whether the store may be used: while it may not, nothing runs that could be shown.
    usable: bool,
    /// Whether names of identities may be shown.
    pub(super) names: bool,
}

/// Something that needs a person.
#[derive(Debug, Serialize)]
struct Ask {
    subject: String,
    message: String,
    tone: Tone,
    since: Option<Timestamp>,
    cause: Option<String>,
    command: Option<String>,
    names: Vec<Name>,
    more_names: usize,
}

/// A resource, its keys and its clock.
#[derive(Debug, Serialize)]
struct Resource {
    name: String,
    health: String,
    cause: Option<String>,
    tone: Tone,
    live: Option<u64>,
    dead: Option<u64>,
    new: u64,
    held: u64,
    gone: u64,
    next_due: Option<Timestamp>,
    /// When a token was obtained last, since the start.
    last_success: Option<Timestamp>,
    /// How much of the limit the fleet needs in the long run, in percent.
    load: Option<String>,
    keys: Vec<Key>,
    /// What is called with in place of keys, and its colour.
    bearer: Option<(String, Tone)>,
    clock: Option<String>,
    chart: Option<Chart>,
}

#[derive(Debug, Serialize)]
struct Key {
    role: &'static str,
    standing: &'static str,
    tone: Tone,
    in_use: bool,
}

#[derive(Debug, Serialize)]
struct Sink {
    name: String,
    kind: String,
    state: String,
    cause: Option<String>,
    tone: Tone,
    pending: Option<u64>,
    /// Since when the oldest delivery waits.
    waits: Option<Timestamp>,
}

/// A campaign and how far it is.
#[derive(Debug, Serialize)]
struct Work {
    id: i64,
    what: String,
    of: Option<String>,
    state: &'static str,
    tone: Tone,
    created_at: Timestamp,
    ended_at: Option<Timestamp>,
    total: u64,
    done: u64,
    failed: u64,
    /// What is left, and what that waits for.
    waits: Vec<String>,
}

impl Picture {
    pub(super) fn of(seen: &Snapshot, beside: Beside) -> Self {
        let shared = &seen.shared_state;
        let names = shared.daemon.page_names;
        let (orders, needs): (Vec<Need>, Vec<Need>) = seen
            .needs()
            .into_iter()
            .partition(|need| is_order(need.kind));
        let all = seen.stored.served.as_ref().ok().map(|served| {
            let mut all = served.all();
            all.doubtful = all.doubtful.max(doubtful(seen)).min(all.live);
            let by_socket = (served.socket.total() > 0)
                .then_some(beside.first_end)
                .flatten();
            all.next_end = all.next_end.into_iter().chain(by_socket).min();
            all
        });
        let (sinks, more_sinks) = cut(sinks(seen), SINKS);
        let (resources, more_resources) = cut(resources(seen, &beside.plans), RESOURCES);
        let told = orders.len() + needs.len();
        let is_usable = shared.standing.is_usable();
        let spoken = match is_usable {
            true => spoken(all.as_ref(), seen),
            false => "Nothing is issued, delivered or served until a person says so.".to_owned(),
        };
        let worst = orders
            .iter()
            .chain(&needs)
            .map(|need| tone_of(need.kind))
            .max();
        let (orders, _) = cut(asks(orders, names), NEEDS);
        let (needs, _) = cut(asks(needs, names), NEEDS);
        Self {
            at: seen.now,
            instance: shared.daemon.instance.clone(),
            resource: in_one_line(shared.declared.keys().chain(seen.renewers.keys())),
            version: env!("CARGO_PKG_VERSION"),
            since: shared.life.since,
            tone: worst.unwrap_or(Tone::Good).max(tone_of_all(all.as_ref())),
            spoken,
            next_end: all.and_then(|all| all.next_end).filter(|_| is_usable),
            survival: is_usable
                .then(|| survival(seen, all, &beside.plans))
                .flatten(),
            more_needs: told - orders.len() - needs.len(),
            orders,
            needs,
            resources,
            more_resources,
            sinks,
            more_sinks,
            campaigns: campaigns(beside.campaigns, names),
            last_backup: seen.stored.last_backup.as_ref().ok().copied().flatten(),
            no_backup: no_backup(
                seen.stored.last_backup.is_ok(),
                shared.cluster_standing().is_some() || seen.away.is_some(),
            ),
            held_step: seen.held_step.map(|step| step.as_secs()),
            usable: is_usable,
            names,
        }
    }
}

/// How many tokens may be dead because of the access key that minted them.
fn doubtful(seen: &Snapshot) -> u64 {
    let keys = seen.shared_state.key_views();
    let doubts = keys.values().flat_map(|keys| &keys.doubts);
    doubts.map(|doubt| doubt.tokens).sum()
}

/// The first of them, and how many more there are.
fn cut<T>(mut all: Vec<T>, most: usize) -> (Vec<T>, usize) {
    let more = all.len().saturating_sub(most);
    all.truncate(most);
    (all, more)
}

fn in_one_line<'a>(resources: impl Iterator<Item = &'a ResourceName>) -> String {
    let names: BTreeSet<&str> = resources.map(ResourceName::as_str).collect();
    let names: Vec<&str> = names.into_iter().collect();
    match names.as_slice() {
        [] => String::new(),
        [first, second, third, _, ..] => {
            format!("{first}, {second}, {third} and {} more", names.len() - 3)
        }
        few => few.join(", "),
    }
}

fn tone_of(kind: NeedKind) -> Tone {
    match kind.is_grave() {
        true => Tone::Bad,
        false => Tone::Warn,
    }
}

fn tone_of_all(all: Option<&Consumers>) -> Tone {
    match all {
        None => Tone::Bad,
        Some(all) if all.total() == 0 => Tone::Calm,
        Some(all) if all.without + all.unknown > 0 => Tone::Bad,
        Some(all) if all.doubtful > 0 => Tone::Warn,
        Some(_) => Tone::Good,
    }
}

/// Who holds a live token.
fn spoken(all: Option<&Consumers>, seen: &Snapshot) -> String {
    let Some(all) = all else {
        return "It is not known who holds a live token: the store cannot be read.".to_owned();
    };
    let total = all.total();
    let doubtful = match all.doubtful {
        0 => String::new(),
        1 => "; 1 token may be dead because of its key".to_owned(),
        n => format!("; {} tokens may be dead because of their key", counted(n)),
    };
    match (all.live, all.without, all.unknown) {
        (0, 0, 0) => "No consumer is declared yet.".to_owned(),
        (0, _, 0) if are_all_new(seen) => match total {
            1 => "The one consumer waits for its first token.".to_owned(),
            _ => format!(
                "All {} consumers wait for their first token.",
                counted(total)
            ),
        },
        (1, 0, 0) => format!("The one consumer holds a live token{doubtful}."),
        (_, 0, 0) => format!(
            "All {} consumers hold a live token{doubtful}.",
            counted(total)
        ),
        (live, without, unknown) => {
            let holds = if live == 1 { "holds" } else { "hold" };
            let does = if without == 1 { "does" } else { "do" };
            let without = (without > 0).then(|| format!(", {} {does} not", counted(without)));
            let unknown =
                (unknown > 0).then(|| format!(", of {} it is not known", counted(unknown)));
            format!(
                "{} of {} consumers {holds} a live token{}{}{doubtful}.",
                counted(live),
                counted(total),
                without.unwrap_or_default(),
                unknown.unwrap_or_default()
            )
        }
    }
}

/// Whether nobody ever had a token.
fn are_all_new(seen: &Snapshot) -> bool {
    let Ok(counts) = &seen.stored.counts else {
        return false;
    };
    let mut states = counts.identities.values().flatten();
    states.all(|(state, count)| *count == 0 || *state == State::New)
}

/// What outage the fleet survives, or how much longer the one that lasts may go on.
fn survival(seen: &Snapshot, all: Option<Consumers>, plans: &[Plan]) -> Option<String> {
    let long = |seconds: u64| short_duration(std::time::Duration::from_secs(seconds));
    let keys = seen.shared_state.key_views();
    let locked = keys.iter().find(|(_, keys)| keys.none_works.is_some());
    if let Some((resource, _)) = locked {
        return Some(format!(
            "No access key of {resource} works, so no token can be replaced."
        ));
    }
    if let Some(plan) = plans.iter().find(|plan| !plan.keeps_up) {
        return Some(format!(
            "{} cannot keep up with its fleet at its limit: see renewd plan.",
            plan.resource
        ));
    }
    let bearer = seen.renewers.iter().find_map(|(resource, renewer)| {
        let (_, told, _) = bearer_trouble(renewer, seen.now)?;
        Some(format!("{told} ({resource})."))
    });
    let all_live = all.is_some_and(|all| all.live > 0 && all.without + all.doubtful == 0);
    let known = plans.iter().filter(|plan| plan.identities > 0);
    let seconds = known.map(|plan| plan.outage.now_seconds);
    let seconds = seconds.collect::<Option<Vec<u64>>>().filter(|_| all_live);
    let least = seconds.and_then(|seconds| seconds.into_iter().min());
    if let Some(told) = bearer {
        let keeps = least.filter(|seconds| *seconds >= 60).map(long);
        let keeps = keeps.map(|within| {
            format!(" Everybody keeps a live token if that is over within {within}.")
        });
        return Some(told + &keeps.unwrap_or_default());
    }
    let silent = seen.renewers.iter().find(|(_, renewer)| is_silent(renewer));
    match (silent, least) {
        (Some((resource, _)), None) => Some(format!("{resource} does not answer.")),
        (Some((resource, _)), Some(seconds @ 60..)) => Some(format!(
            "{resource} does not answer; everybody keeps a live token if it does again within {}.",
            long(seconds)
        )),
        (Some((resource, _)), Some(_)) => Some(format!(
            "{resource} does not answer, and the first token ends before it could be made up for."
        )),
        (None, Some(seconds @ 60..)) => Some(format!(
            "Everybody survives an outage of {} that begins now.",
            long(seconds)
        )),
        (None, Some(_)) => {
            Some("The next token ends too soon to survive an outage that begins now.".to_owned())
        }
        (None, None) => None,
    }
}

fn is_silent(renewer: &RenewerView) -> bool {
    let mut health = renewer.health.values();
    health.any(|health| matches!(health, HealthView::Probing { .. }))
}

/// What people ordered and is not carried out yet, or failed.
fn is_order(kind: NeedKind) -> bool {
    matches!(
        kind,
        NeedKind::RevocationFailed
            | NeedKind::OrderFailed
            | NeedKind::OrderWaits
            | NeedKind::KeyChange
    )
}

fn asks(needs: Vec<Need>, names: bool) -> Vec<Ask> {
    let asks = needs.into_iter().map(|need| Ask {
        command: command(&need, names),
        subject: need.subject,
        message: need.message,
        tone: tone_of(need.kind),
        since: need.since,
        cause: need.because.as_deref().map(causes::kind),
        more_names: match names {
            true => need.names.len().saturating_sub(NAMES),
            false => 0,
        },
        names: match names {
            true => need.names.into_iter().take(NAMES).collect(),
            false => Vec::new(),
        },
    });
    asks.collect()
}

/// The command to begin with; one that names an identity is not shown to everybody.
fn command(need: &Need, names: bool) -> Option<String> {
    let command = need.command.clone()?;
    let is_named = need
        .names
        .iter()
        .any(|name| command.ends_with(name.as_str()));
    match is_named && !names {
        true => Some("renewd status".to_owned()),
        false => Some(command),
    }
}

/// The resources, those with the least room first.
fn resources(seen: &Snapshot, plans: &[Plan]) -> Vec<Resource> {
    let mut all: Vec<(&ResourceName, &RenewerView, Option<&Plan>)> = seen
        .renewers
        .iter()
        .map(|(name, renewer)| {
            let plan = plans.iter().find(|plan| plan.resource == *name);
            (name, renewer, plan)
        })
        .collect();
    all.sort_by(|(_, _, a), (_, _, b)| {
        let room = |plan: &Option<&Plan>| plan.map_or(1.0, |plan| plan.headroom);
        room(a).total_cmp(&room(b))
    });
    let keys = seen.shared_state.key_views();
    let numbered = all.into_iter().enumerate();
    let rows = numbered.map(|(number, (name, renewer, plan))| {
        let plan_drawn = plan.filter(|_| number < CHARTS);
        resource(seen, (name, renewer), keys.get(name), (plan, plan_drawn))
    });
    rows.collect()
}

fn resource(
    seen: &Snapshot,
    (name, renewer): (&ResourceName, &RenewerView),
    keys: Option<&KeysView>,
    (plan, drawn): (Option<&Plan>, Option<&Plan>),
) -> Resource {
    let stored = &seen.stored;
    let counts = stored.counts.as_ref().ok();
    let standing = counts
        .zip(stored.served.as_ref().ok())
        .map(|(counts, served)| counts.standing(name, served));
    let states = standing.as_ref().map(|standing| &standing.states);
    let of = |state| {
        states
            .and_then(|states| states.get(&state))
            .copied()
            .unwrap_or(0)
    };
    let (health, cause, tone) = health(renewer, seen.now);
    Resource {
        name: name.to_string(),
        health,
        cause,
        tone,
        live: states.map(|_| of(State::Active)),
        dead: standing.as_ref().map(|standing| standing.dead),
        new: of(State::New),
        held: of(State::Held),
        gone: of(State::Gone),
        next_due: renewer.next_due,
        last_success: renewer.last_success,
        load: plan.map(|plan| percent(1.0 - plan.headroom)),
        keys: keys.map(keys_of).unwrap_or_default(),
        bearer: renewer
            .bearer
            .as_ref()
            .map(|bearer| bearer_of(bearer, seen.now)),
        clock: renewer.skew_ms.map(clock),
        chart: drawn.filter(|plan| plan.identities > 0).map(Chart::of),
    }
}

/// A part as a whole number of percent, and not nothing where it is little.
fn percent(part: f64) -> String {
    match 100.0 * part {
        0.0 => "0 %".to_owned(),
        0.0..1.0 => "< 1 %".to_owned(),
        percent => format!("{percent:.0} %"),
    }
}

/// The worst of a resource's operations: in words, the kind of its cause, its colour.
fn health(renewer: &RenewerView, now: Timestamp) -> (String, Option<String>, Tone) {
    if let Some(because) = &renewer.blocked {
        let what = "nothing can be obtained".to_owned();
        return (what, Some(causes::kind(because)), Tone::Bad);
    }
    if let Some((trouble, what, tone)) = bearer_trouble(renewer, now) {
        return (what, Some(causes::kind(&trouble.told)), tone);
    }
    let silent = renewer
        .health
        .iter()
        .find_map(|(operation, health)| match health {
            HealthView::Probing { because, .. } => Some((operation, because)),
            _ => None,
        });
    if let Some((operation, because)) = silent {
        let what = format!("no answer to {operation}");
        return (what, Some(causes::kind(because)), Tone::Bad);
    }
    let held = renewer
        .health
        .iter()
        .find_map(|(operation, health)| match health {
            HealthView::Held { until, because } if now < *until => {
                Some((operation, until, because))
            }
            _ => None,
        });
    match held {
        Some((operation, until, because)) => {
            let what = format!("{operation} waits for {}", left(*until, now));
            (what, Some(causes::kind(because)), Tone::Warn)
        }
        None => ("answers".to_owned(), None, Tone::Good),
    }
}

/// What is wrong with the bearer, in words.
fn bearer_trouble(renewer: &RenewerView, now: Timestamp) -> Option<(&BearerTrouble, String, Tone)> {
    let bearer = renewer.bearer.as_ref()?;
    let trouble = bearer.trouble.as_ref()?;
    let whose = match trouble.cause.is_outage() {
        true => "Entra ID does not answer",
        false => "Entra ID gives no bearer",
    };
    Some(match bearer.usable_until(now) {
        Some(ends) => {
            let lasts = left(ends, now);
            let told = format!("{whose}; the bearer in hand lasts {lasts}");
            (trouble, told, Tone::Warn)
        }
        None => (trouble, whose.to_owned(), Tone::Bad),
    })
}

fn keys_of(keys: &KeysView) -> Vec<Key> {
    let shown = keys.status.keys.iter().map(|key| {
        let (standing, tone) = match key.standing {
            KeyStanding::Untried => ("not tried yet", Tone::Calm),
            KeyStanding::Accepted => ("accepted", Tone::Good),
            KeyStanding::Denied => ("refused", Tone::Bad),
        };
        Key {
            role: KeyRole::as_str(key.role),
            standing,
            tone,
            in_use: key.role == keys.status.in_use,
        }
    });
    shown.collect()
}

/// How long the bearer in hand lasts, and whether another one is to be had.
fn bearer_of(bearer: &BearerView, now: Timestamp) -> (String, Tone) {
    let lasts = bearer.usable_until(now).map(|ends| left(ends, now));
    match (lasts, bearer.trouble.is_some()) {
        (Some(lasts), false) => (format!("Entra ID, its bearer lasts {lasts}"), Tone::Good),
        (Some(lasts), true) => {
            let told = format!("Entra ID gives no other bearer; the one in hand lasts {lasts}");
            (told, Tone::Warn)
        }
        (None, false) => ("Entra ID, not asked yet".to_owned(), Tone::Calm),
        (None, true) => ("no bearer of Entra ID".to_owned(), Tone::Bad),
    }
}

fn left(at: Timestamp, now: Timestamp) -> String {
    short_duration(at.duration_since(now).try_into().unwrap_or_default())
}

/// How far the resource's clock is from this machine's.
fn clock(skew_ms: i64) -> String {
    let seconds = skew_ms as f64 / 1000.0;
    match skew_ms {
        -999..=999 => "agrees with this machine's".to_owned(),
        1000.. => format!("{seconds:.0} s ahead of this machine's"),
        _ => format!("{:.0} s behind this machine's", -seconds),
    }
}

/// The sinks, the longest wait first.
fn sinks(seen: &Snapshot) -> Vec<Sink> {
    let mut rows: Vec<Sink> = (seen.sinks())
        .map(|(name, dispatcher)| sink(seen, name, dispatcher))
        .collect();
    // Those that wait come first, then those in trouble.
    rows.sort_by_key(|sink| {
        (
            sink.waits.is_none(),
            sink.waits,
            std::cmp::Reverse(sink.tone),
        )
    });
    rows
}

fn sink(seen: &Snapshot, name: &SinkAt, dispatcher: &DispatcherView) -> Sink {
    let counts = seen.stored.counts.as_ref().ok();
    let pending = counts.map(|counts| counts.pending.get(name).copied().unwrap_or(0));
    let error = dispatcher.last_error.as_deref();
    let (state, cause, tone) = match dispatcher {
        DispatcherView {
            disabled: Some(_),
            paused: true,
            ..
        } => ("paused by a person", None, Tone::Warn),
        DispatcherView {
            disabled: Some(why),
            ..
        } => ("disabled", Some(why.as_str()), Tone::Bad),
        DispatcherView {
            failures_in_row: 1..,
            ..
        } => ("fails", error, Tone::Bad),
        _ => match pending {
            None => ("not known", None, Tone::Warn),
            Some(0) => ("has everything", None, Tone::Good),
            Some(_) => ("delivers", None, Tone::Calm),
        },
    };
    Sink {
        name: name.to_string(),
        kind: dispatcher.kind.clone(),
        state: match dispatcher.failures_in_row {
            failures @ 1.. if state == "fails" => format!("{failures} failures in a row"),
            _ => state.to_owned(),
        },
        cause: cause.map(causes::kind),
        tone,
        pending,
        waits: counts.and_then(|counts| counts.oldest_pending.get(name).copied()),
    }
}

fn campaigns(all: Vec<Campaign>, names: bool) -> Vec<Work> {
    let shown = all.into_iter().take(CAMPAIGNS);
    shown.map(|campaign| work(&campaign, names)).collect()
}

fn work(of: &Campaign, names: bool) -> Work {
    let then = match of.then {
        Some(Then::Reissue) => " and re-issue",
        Some(Then::Hold) => " and hold",
        None => "",
    };
    let waits = [
        (of.pending - of.failing.min(of.pending), "wait for ACS"),
        (of.failing, "failed and are tried again"),
        (of.acknowledged, "wait for their next token"),
        (of.delivering, "are being delivered"),
        (of.undelivered, "did not reach every consumer"),
        (of.cancelled, "were cancelled"),
    ];
    let waits = waits.iter().filter(|(count, _)| *count > 0);
    Work {
        id: of.id,
        what: format!("{}{then}", of.action.as_str()),
        // What was selected may be names.
        of: names.then(|| of.target.clone()),
        state: match of.state {
            CampaignState::Expanding => "being listed",
            state => state.as_str(),
        },
        tone: match of.state {
            _ if of.failed > 0 => Tone::Bad,
            CampaignState::Done => Tone::Good,
            CampaignState::Paused | CampaignState::Cancelled => Tone::Warn,
            _ => Tone::Calm,
        },
        created_at: of.created_at,
        ended_at: of.ended_at,
        total: of.total(),
        done: of.done,
        failed: of.failed,
        waits: waits
            .map(|(count, what)| format!("{} {what}", counted(*count)))
            .collect(),
    }
}

fn counted(number: u64) -> String {
    grouped(number as f64)
}
