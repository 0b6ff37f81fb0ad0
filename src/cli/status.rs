//! `renewd status`: what needs a person first, then how everything is: every line that asks for a person stands
//! above every line that does not. With `--check` the same facts are one line and an exit code, as programs
//! that watch servers want them (the convention of Nagios's plugins, which Icinga, Checkmk, Sensu and others
//! follow).

use std::{collections::BTreeSet, fmt, time::Duration};

use anstyle::Style;
use jiff::Timestamp;

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Failed, Outcome},
    output::{
        self, BAD, Cell, DIM, GOOD, PLAIN, STRONG, Table, WARN, ago, paint, relative, wrapped,
    },
};
use crate::{
    api::client::{
        ClientError, DaemonClient,
        wire::{self, Need},
    },
    model::{
        DispatcherView, HealthView, RenewerView, ResourceName, Served, SinkAt, Standings, State,
        one_line, service_time,
    },
};

/// How often the watched screen is drawn.
const EVERY: Duration = Duration::from_secs(1);

/// Show what needs a person, then how everything is
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Draw it again every second until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// One line and an exit code for monitoring: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    #[arg(long, conflicts_with_all = ["watch", "json"])]
    check: bool,
}

impl Status {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        if self.check {
            let verdict = Overall::of(client.status().await);
            output::print_lines(&format!("{verdict}\n"))?;
            return Ok(verdict.exit());
        }
        if self.watch {
            return watch(&client).await;
        }
        let status = client.status().await?;
        if self.json {
            output::print_json(&status)?;
        } else {
            output::print(&render(&status, output::width()))?;
        }
        Ok(Exit::Done)
    }
}

/// Draws until Ctrl-C; a daemon that restarts meanwhile is waited for.
async fn watch(client: &DaemonClient) -> Outcome {
    let stop = tokio::signal::ctrl_c();
    let mut stop = std::pin::pin!(stop);
    loop {
        let drawn = match client.status().await {
            Ok(status) => render(&status, output::width()),
            Err(error) => format!("{}\n", paint(WARN, Failed::from(error))),
        };
        output::redraw(&drawn)?;
        tokio::select! {
            biased;
            stopped = &mut stop => {
                stopped?;
                return Ok(Exit::Done);
            }
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// At most so many names are shown of those concerned.
const NAMES: usize = 5;

fn render(of: &wire::Status, width: Option<usize>) -> String {
    let (first, rest): (Vec<&Need>, Vec<&Need>) =
        of.needs.iter().partition(|need| need.kind.is_first());
    let mut text = String::new();
    for need in first {
        text.push_str(&need_lines(need, of.at, width));
    }
    text.push_str(&headline(of));
    let service = service_time(&of.renewers, of.at);
    text.push_str(&format!(
        "  {}\n",
        consumers(of.consumers.as_ref(), service)
    ));
    for need in &rest {
        text.push_str(&need_lines(need, of.at, width));
    }
    if of.needs.is_empty() {
        text.push_str(&format!("  {}\n", paint(GOOD, "nothing needs you")));
    }
    if let Some(brought) = &of.brought_up {
        text.push_str(&format!("  {}\n", paint(WARN, brought)));
    }
    if let Some(cluster) = &of.cluster {
        text.push_str(&format!("  {}\n", cluster_line(cluster)));
    }
    for table in [resources(of), sinks(of)] {
        if !table.is_empty() {
            text.push('\n');
            text.push_str(&table.render(2, width));
        }
    }
    if !of.behind.is_empty() {
        let title = paint(WARN, "consumers that still use an old version");
        let table = output::holders(&of.behind, of.at).render(2, width);
        text.push_str(&format!("\n  {title}\n{table}"));
    }
    let backup = match of.last_backup {
        Some(at) => format!("last backup {}", relative(at, of.at)),
        None => {
            let is_shared = of.cluster.is_some() || of.database.is_some();
            wire::no_backup(of.counts.is_some(), is_shared).to_owned()
        }
    };
    text.push_str(&format!("\n  {}\n", paint(DIM, backup)));
    text
}

/// Who leads a cluster, and how many are there, in one line.
fn cluster_line(of: &wire::Nodes) -> String {
    let alive = of.nodes.iter().filter(|row| row.alive).count();
    let nodes = of.nodes.len() as u64;
    let are = if nodes == 1 { "is" } else { "are" };
    let there = format!("{alive} of {} {are} there", plural(nodes, "node"));
    let (node, cluster) = (&of.node, &of.cluster);
    match (&of.leader, of.epoch) {
        (_, Some(epoch)) => format!("{node} leads {cluster}, epoch {epoch}; {there}"),
        (Some(leader), None) => format!("{node} follows: {leader} leads {cluster}; {there}"),
        (None, None) => paint(
            BAD,
            format!("no node leads {cluster}, as far as {node} knows; {there}"),
        ),
    }
}

/// Who holds a live token, in one line.
pub(in crate::cli) fn consumers(served: Option<&Served>, now: Timestamp) -> String {
    let Some(served) = served else {
        return paint(BAD, "consumers: it is not known who holds a live token");
    };
    let all = served.all();
    let total = plural(all.total(), "consumer");
    if all.total() == 0 {
        return format!("{total}: no identity wants a token");
    }
    let live = format!("{} a live token", verb(all.live, "hold"));
    let mut words = vec![paint(if all.live > 0 { GOOD } else { BAD }, live)];
    if all.without > 0 {
        words.push(paint(BAD, format!("{} not", verb(all.without, "do"))));
    }
    if all.unknown > 0 {
        words.push(paint(WARN, format!("of {} it is not known", all.unknown)));
    }
    if all.doubtful > 0 {
        let doubtful = format!("{} of those may be dead", all.doubtful);
        words.push(paint(WARN, doubtful));
    }
    let next = all.next_end.map_or(String::new(), |at| {
        format!("; the next one ends {}", relative(at, now))
    });
    format!("{total}: {}{next}", words.join(", "))
}

fn verb(count: u64, verb: &str) -> String {
    match (count, verb) {
        (1, "do") => "1 does".to_owned(),
        (1, verb) => format!("1 {verb}s"),
        (count, verb) => format!("{count} {verb}"),
    }
}

fn headline(of: &wire::Status) -> String {
    let well = !of.needs.iter().any(|need| need.kind.is_grave());
    let ready = match (of.ready, well) {
        (true, true) => paint(GOOD, "ready"),
        (true, false) => paint(WARN, "runs, but not all is well"),
        (false, _) => paint(BAD, "not ready"),
    };
    let since = relative(of.since, of.at);
    format!(
        "{} {ready}  {}\n\n",
        paint(STRONG, &of.instance),
        paint(DIM, format!("renewd {}, started {since}", of.version))
    )
}

/// What needs a person: since when, why, whom it concerns, and where to begin.
pub(in crate::cli) fn need_lines(need: &Need, now: Timestamp, width: Option<usize>) -> String {
    let room = width.map(|width| width.saturating_sub(4));
    let style = if need.kind.is_grave() { BAD } else { WARN };
    let since = need.since.map_or(String::new(), |at| {
        format!(" (since {})", relative(at, now))
    });
    let head = format!("! {}:", need.subject);
    let told = wrapped(&format!("{head} {}{since}", need.message), room, 4);
    // A head that is broken itself stays plain.
    let told = told.replacen(&head, &paint(style, &head), 1);
    let mut text = format!("  {told}\n");
    if let Some(cause) = &need.because {
        text.push_str(&format!("    {}\n", paint(DIM, wrapped(cause, room, 4))));
    }
    if !need.names.is_empty() {
        let shown: Vec<&str> = need.names.iter().take(NAMES).map(|n| n.as_str()).collect();
        let more = if need.names.len() > NAMES { " …" } else { "" };
        text.push_str(&format!(
            "    {}\n",
            paint(
                DIM,
                wrapped(&format!("{}{more}", shown.join(", ")), room, 4)
            )
        ));
    }
    if let Some(command) = &need.command {
        text.push_str(&format!("    {}\n", paint(STRONG, command)));
    }
    text
}

fn resources(of: &wire::Status) -> Table {
    // Those of a machine that follows are called by whoever leads.
    let called_elsewhere = of.tokens.keys().filter(|_| of.cluster.is_some());
    let names: BTreeSet<&ResourceName> = of.renewers.keys().chain(called_elsewhere).collect();
    let renewers: Vec<_> = names.iter().map(|name| of.renewers.get(*name)).collect();
    let states = renewers.iter().map(|renewer| match renewer {
        Some(renewer) => health(renewer, of.at),
        None => (called_by(of.cluster.as_ref()), String::new()),
    });
    let states: Vec<(Cell, String)> = states.collect();
    let idle = RenewerView::default();
    let mut table = Table::new(&[
        "RESOURCE",
        "HEALTH",
        ">ACTIVE",
        ">DEAD",
        ">NEW",
        ">HELD",
        ">GONE",
        ">FIRST END",
        ">NEXT DUE",
        ">PACE",
        ">SKEW",
        head_of_why(&states),
    ]);
    for ((name, renewer), (health, why)) in names.into_iter().zip(renewers).zip(states) {
        let renewer = renewer.unwrap_or(&idle);
        let first_end = of.earliest_expiry.get(name).copied();
        let service = renewer.service_time(of.at);
        let dead = first_end.is_some_and(|at| at <= service);
        let known = of.counts.as_ref().zip(of.consumers.as_ref());
        let standing = known.map(|(counts, served)| counts.standing(name, served));
        let count = |state| count(standing.as_ref(), state);
        table.row([
            Cell::styled(name.as_str(), STRONG),
            health,
            count(State::Active),
            number(standing.as_ref().map(|standing| standing.dead), BAD),
            count(State::New),
            count(State::Held),
            count(State::Gone),
            Cell::styled(when(first_end, service), if dead { BAD } else { PLAIN }),
            when(renewer.next_due, of.at).into(),
            pace(renewer).into(),
            skew(renewer),
            Cell::styled(why, DIM),
        ]);
    }
    table
}

/// Who calls a resource that this machine does not.
fn called_by(cluster: Option<&wire::Nodes>) -> Cell {
    match cluster.and_then(|cluster| cluster.leader.as_ref()) {
        Some(leader) => format!("by {leader}").into(),
        None => Cell::styled("by nobody", BAD),
    }
}

fn count(standing: Option<&Standings>, state: State) -> Cell {
    let style = if state == State::Gone { BAD } else { PLAIN };
    let count = standing.map(|standing| standing.states.get(&state).copied().unwrap_or(0));
    number(count, style)
}

/// A number, a dash for none, a question mark for what is not known.
fn number(count: Option<u64>, style: Style) -> Cell {
    match count {
        None => Cell::styled("?", WARN),
        Some(0) => Cell::styled("–", DIM),
        Some(count) => Cell::styled(count.to_string(), style),
    }
}

fn when(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "–".to_owned(), |at| relative(at, now))
}

/// The busiest operation of the window, against what renewd allows itself.
fn pace(renewer: &RenewerView) -> String {
    let busiest = renewer.pace.values().max_by_key(|(sent, _)| *sent);
    busiest.map_or_else(|| "–".to_owned(), |(sent, most)| format!("{sent}/{most}"))
}

fn skew(renewer: &RenewerView) -> Cell {
    match renewer.skew_ms {
        None => Cell::styled("–", DIM),
        Some(ms) if ms.unsigned_abs() >= 60_000 => Cell::styled(format!("{:+}s", ms / 1000), WARN),
        Some(ms) => format!(
            "{:+.1}s",
            std::time::Duration::from_millis(ms.unsigned_abs())
                .as_secs_f64()
                .copysign(if ms < 0 { -1.0 } else { 1.0 })
        )
        .into(),
    }
}

/// How a resource is, in a word, and the details.
fn health(renewer: &RenewerView, now: Timestamp) -> (Cell, String) {
    if let Some(blocked) = &renewer.blocked {
        return (Cell::styled("blocked", BAD), blocked.clone());
    }
    if renewer.creation_refused.is_some() {
        return (Cell::styled("creates nobody", BAD), String::new());
    }
    if let Some(told) = bearer_health(renewer, now) {
        return told;
    }
    for (operation, health) in &renewer.health {
        match health {
            HealthView::Open => {}
            HealthView::Probing { since, .. } => {
                let since = relative(*since, now);
                return (
                    Cell::styled("no answer", BAD),
                    format!("{operation}, since {since}"),
                );
            }
            HealthView::Held { until, .. } => {
                let until = relative(*until, now);
                return (
                    Cell::styled("waits", WARN),
                    format!("{operation}, again {until}"),
                );
            }
        }
    }
    (Cell::styled("open", GOOD), String::new())
}

/// How the bearer is that calls carry, where something is wrong with it.
fn bearer_health(renewer: &RenewerView, now: Timestamp) -> Option<(Cell, String)> {
    let bearer = renewer.bearer.as_ref()?;
    let trouble = bearer.trouble.as_ref()?;
    let cause = trouble.cause.as_str().replace('_', " ");
    let since = relative(trouble.since, now);
    Some(match bearer.usable_until(now) {
        Some(ends) => {
            let why = format!(
                "Entra ID: {cause}, since {since}; bearer ends {}",
                relative(ends, now)
            );
            (Cell::styled("open", WARN), why)
        }
        None => (
            Cell::styled("no bearer", BAD),
            format!("Entra ID: {cause}, since {since}"),
        ),
    })
}

fn sinks(of: &wire::Status) -> Table {
    let here = of.dispatchers.iter().map(|row| (row, true));
    let rows: Vec<_> = here
        .chain(of.beside.iter().map(|row| (row, false)))
        .collect();
    let states = rows
        .iter()
        .map(|((_, row), _)| dispatcher_state(row, of.at));
    let states: Vec<(Cell, String)> = states.collect();
    let why = head_of_why(&states);
    let heads = [
        "SINK",
        "STATE",
        ">PENDING",
        ">LAG",
        ">DELIVERED",
        ">FAILED",
        why,
    ];
    let mut table = Table::new(&heads);
    for (((name, dispatcher), is_here), (state, why)) in rows.into_iter().zip(states) {
        // What was done elsewhere since a start there is not known here.
        let since_start = |count: u64| match is_here {
            true => count.to_string().into(),
            false => Cell::styled("–", DIM),
        };
        let counts = of.counts.as_ref();
        let pending = counts.map(|counts| counts.pending.get(name).copied().unwrap_or(0));
        table.row([
            Cell::styled(name.as_str(), STRONG),
            state,
            match pending {
                Some(0) => "0".into(),
                pending => number(pending, WARN),
            },
            lag(of, name),
            since_start(dispatcher.delivered),
            since_start(dispatcher.failed),
            Cell::styled(why, DIM),
        ]);
    }
    table
}

/// The heading of the details, where there are any.
fn head_of_why(states: &[(Cell, String)]) -> &'static str {
    match states.iter().any(|(_, why)| !why.is_empty()) {
        true => "WHY",
        false => "",
    }
}

/// How long the oldest pending delivery has been pending.
fn lag(of: &wire::Status, sink: &SinkAt) -> Cell {
    let Some(counts) = &of.counts else {
        return Cell::styled("?", WARN);
    };
    match counts.oldest_pending.get(sink) {
        None => Cell::styled("–", DIM),
        Some(since) => ago(*since, of.at).into(),
    }
}

/// How a sink is, in a word, and the details.
fn dispatcher_state(dispatcher: &DispatcherView, now: Timestamp) -> (Cell, String) {
    if let Some(why) = &dispatcher.disabled {
        let word = if dispatcher.paused {
            "paused"
        } else {
            "disabled"
        };
        return (Cell::styled(word, BAD), why.clone());
    }
    let error = dispatcher
        .last_error
        .as_deref()
        .unwrap_or("no reason given");
    if let Some(at) = dispatcher.probe_at {
        let why = format!("probed {}: {error}", relative(at, now));
        return (Cell::styled("failing", BAD), why);
    }
    if dispatcher.failures_in_row > 0 {
        let failures = plural(u64::from(dispatcher.failures_in_row), "failure");
        let why = format!("{failures} in a row: {error}");
        return (Cell::styled("failing", WARN), why);
    }
    (Cell::styled("open", GOOD), String::new())
}

fn plural(count: u64, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}

/// At most so many things are told; the first ones are the worst.
const TOLD: usize = 5;
/// The longest line, in characters: programs that watch cut longer ones.
const LONGEST: usize = 1000;

/// How serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Critical,
    Unknown,
}

/// How everything is, in one line.
#[derive(Debug)]
struct Overall {
    level: Level,
    text: String,
    /// What can be drawn over time.
    figures: String,
}

impl Overall {
    pub(super) fn of(status: Result<wire::Status, ClientError>) -> Self {
        match status {
            Ok(status) => Self::of_status(&status),
            Err(error) => Self {
                level: Level::Unknown,
                text: Failed::from(error).to_string(),
                figures: String::new(),
            },
        }
    }

    fn of_status(status: &wire::Status) -> Self {
        let (grave, other): (Vec<&Need>, Vec<&Need>) =
            status.needs.iter().partition(|need| need.kind.is_grave());
        let level = match (grave.is_empty(), other.is_empty() && status.ready) {
            (false, _) => Level::Critical,
            (true, false) => Level::Warning,
            (true, true) => Level::Ok,
        };
        let mut said: Vec<String> = Vec::new();
        if !status.ready {
            let since = relative(status.since, status.at);
            said.push(format!("not ready (started {since})"));
        }
        said.extend(grave.iter().chain(&other).map(|need| told(need)));
        if said.is_empty() {
            let consumers = consumers(status.consumers.as_ref(), status.at);
            said.push(anstream::adapter::strip_str(&consumers).to_string());
        }
        let more = said.len().saturating_sub(TOLD);
        said.truncate(TOLD);
        if more > 0 {
            said.push(format!("and {more} more: renewd status"));
        }
        Self {
            level,
            text: said.join("; "),
            figures: figures(status),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        Exit::As(match self.level {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Critical => 2,
            Level::Unknown => 3,
        })
    }
}

fn told(need: &Need) -> String {
    let because = need.because.as_ref();
    let because = because.map_or(String::new(), |because| format!(" ({because})"));
    format!("{}: {}{because}", need.subject, need.message)
}

/// `label=value` of what is known.
fn figures(status: &wire::Status) -> String {
    let mut pairs = vec![("needs", status.needs.len() as u64)];
    if let Some(served) = &status.consumers {
        let all = served.all();
        pairs.extend([
            ("live", all.live),
            ("without", all.without),
            ("unknown", all.unknown),
        ]);
    }
    let pairs = pairs
        .iter()
        .map(|(label, value)| format!("{label}={value}"));
    pairs.collect::<Vec<String>>().join(" ")
}

impl fmt::Display for Overall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
            Level::Unknown => "UNKNOWN",
        };
        // A bar begins the figures.
        let text = one_line(&self.text).replace('|', "/");
        let cut = text.char_indices().nth(LONGEST).map(|(at, _)| at);
        let (text, sign) = match cut {
            Some(at) => (text.get(..at).unwrap_or_default(), "…"),
            None => (text.as_str(), ""),
        };
        write!(f, "RENEWD {level} - {text}{sign}")?;
        match self.figures.is_empty() {
            true => Ok(()),
            false => write!(f, " | {}", self.figures),
        }
    }
}

#[cfg(test)]
mod screen_tests {
    use super::*;

    fn status(needs: &serde_json::Value, renewer: &serde_json::Value) -> wire::Status {
        serde_json::from_value(serde_json::json!({
            "at": "2026-11-22T12:00:00Z", "version": "0.1.0", "instance": "web-1",
            "since": "2026-11-19T10:00:00Z", "ready": true, "needs": needs,
            "consumers": {"sinks": {
                "bot-file": {"live": 200, "without": 0, "unknown": 0, "next_end": "2026-11-22T15:12:00Z"},
                "crm": {"live": 200, "without": 0, "unknown": 0, "next_end": "2026-11-22T14:40:00Z"}},
                "socket": {"live": 0, "without": 0, "unknown": 0, "next_end": null}, "without": {"contoso": 1}},
            "counts": {
                "identities": {"contoso": {"active": 198, "held": 1, "new": 1}},
                "pending": {"crm": 3}, "oldest_pending": {"crm": "2026-11-22T11:57:55Z"}, "orphans": 1
            },
            "earliest_expiry": {"contoso": "2026-11-22T15:12:00Z"},
            "behind": [{"name": "anna", "uid": 33, "user": "www-data", "client": "crm/1.2", "version": 1795348000,
                "current": 1795348800, "at": "2026-11-22T11:46:40Z"}],
            "lanes": {"contoso": renewer},
            "couriers": {
                "bot-file": {"decided_at": null, "restored": true, "in_flight": 0, "failures_in_row": 0, "probe_at": null,
                    "disabled": null, "last_error": null, "delivered": 420, "failed": 0},
                "crm": {"decided_at": null, "restored": true, "in_flight": 1, "failures_in_row": 12,
                    "probe_at": "2026-11-22T12:00:20Z", "disabled": null,
                    "last_error": "503 Service Unavailable", "delivered": 400, "failed": 31}
            },
            "held_step_ms": null
        }))
        .unwrap()
    }

    fn renewer(health: &serde_json::Value) -> serde_json::Value {
        serde_json::json!({
            "decided_at": null, "health": {"issue": health}, "in_flight": 2,
            "pace": {"issue": [12, 970]}, "next_due": "2026-11-22T12:01:05Z", "skew_ms": -1300,
            "blocked": null, "calls": {}
        })
    }

    fn plain(status: &wire::Status) -> String {
        anstream::adapter::strip_str(&render(status, Some(120))).to_string()
    }

    #[test]
    fn a_good_day() {
        let status = status(
            &serde_json::json!([]),
            &renewer(&serde_json::json!({"health": "open"})),
        );
        insta::assert_snapshot!(plain(&status));
    }

    #[test]
    fn of_a_store_that_cannot_be_read_no_backup_is_said_to_be_missing() {
        let open = renewer(&serde_json::json!({"health": "open"}));
        let mut status = status(&serde_json::json!([]), &open);
        assert!(plain(&status).contains("no backup was made yet"));
        status.counts = None;
        assert!(plain(&status).contains("when the last backup was made is not known"));
    }

    #[test]
    fn what_needs_a_person_comes_first() {
        let needs = serde_json::json!([
            {"kind": "outage", "subject": "contoso", "message": "does not answer since 4m; the fleet survives until 15:12", "because": "cannot connect: refused",
             "names": []},
            {"kind": "gone", "subject": "contoso", "message": "ACS says that these do not exist",
             "names": ["a", "b", "c", "d", "e", "f"]},
        ]);
        let probing = serde_json::json!({"health": "probing", "since": "2026-11-22T11:56:00Z", "because": "timeout"});
        insta::assert_snapshot!(plain(&status(&needs, &renewer(&probing))));
    }
}

#[cfg(test)]
mod verdict_tests {
    use super::*;

    fn verdict(ready: bool, needs: &serde_json::Value) -> (String, Exit) {
        let status: wire::Status = serde_json::from_value(serde_json::json!({
            "at": "2026-11-22T12:00:00Z", "version": "0.1.0", "instance": "web-1", "since": "2026-11-22T11:59:00Z",
            "ready": ready, "needs": needs, "earliest_expiry": {}, "lanes": {}, "couriers": {}, "held_step_ms": null,
            "consumers": {"sinks": {}, "socket": {"live": 3, "without": 0, "unknown": 0,
                "next_end": "2026-11-22T15:00:00Z"}}
        }))
        .unwrap();
        let verdict = Overall::of(Ok(status));
        (verdict.to_string(), verdict.exit())
    }

    fn need(kind: &str, message: &str) -> serde_json::Value {
        serde_json::json!({"kind": kind, "subject": "contoso", "message": message, "names": []})
    }

    #[test]
    fn the_worst_decides_and_comes_first() {
        let (line, exit) = verdict(true, &serde_json::json!([]));
        assert_eq!(
            line,
            "RENEWD OK - 3 consumers: 3 hold a live token; the next one ends in 3h | needs=0 live=3 without=0 unknown=0"
        );
        assert_eq!(exit, Exit::As(0));
        let orphans = need("orphans", "1 may exist");
        let (line, exit) = verdict(true, &serde_json::json!([orphans]));
        assert!(
            line.starts_with("RENEWD WARNING - contoso: 1 may exist | needs=1 "),
            "{line}"
        );
        assert_eq!(exit, Exit::As(1));
        let (line, exit) = verdict(
            true,
            &serde_json::json!([orphans, need("outage", "it is\nunanswered | x")]),
        );
        assert!(
            line.starts_with("RENEWD CRITICAL - contoso: it is\\u{a}unanswered / x; contoso: 1 may exist | needs=2 "),
            "{line}"
        );
        assert_eq!(exit, Exit::As(2));
        let (line, exit) = verdict(false, &serde_json::json!([]));
        assert!(
            line.starts_with("RENEWD WARNING - not ready (started 1m ago)"),
            "{line}"
        );
        assert_eq!(exit, Exit::As(1));
    }

    #[test]
    fn it_stays_one_line_of_a_bearable_length() {
        let many: Vec<_> = (0..9).map(|_| need("late", &"x".repeat(400))).collect();
        let (line, exit) = verdict(true, &serde_json::json!(many));
        assert_eq!((line.lines().count(), exit), (1, Exit::As(2)));
        assert!(
            line.contains('…') && line.chars().count() < LONGEST + 100,
            "{line}"
        );
    }
}
