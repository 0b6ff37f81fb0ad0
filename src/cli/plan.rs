//! `renewd plan`: what the limits mean for the fleet. A daemon that runs is asked; without one the store is read, and
//! without a store the configuration alone.

use std::{path::PathBuf, time::Duration};

use anstyle::Style;
use jiff::Timestamp;

use super::{
    Context,
    daemon::{daemon_of, settings},
    duration,
    exit::{Exit, Failed, Outcome},
    output::{self, BAD, DIM, EIGHTHS, GOOD, PLAIN, STRONG, WARN, grouped, paint},
    store::{Owner, succeeded},
};
use crate::{
    api::client::{
        ClientError,
        wire::{Plan as OfResource, Plans, WhatIf},
    },
    config::{Limits, Renewal, ResourceSettings, Settings, Source},
    model::{ResourceName, short_duration},
    schedule::{Basis, Cohort, Fleet, Hour, Room, cohorts, plan},
    store::stock_at_rest,
};

/// Show what the limits mean for the fleet: load, room, outages, how long campaigns take
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It asks the daemon; where none runs it reads the store, and where there is none yet, the configuration.\n\
                  renewd plan --identities 250000 --lifetime 6h   a fleet that does not exist yet"
)]
pub(crate) struct Plan {
    /// Only this resource
    resource: Option<ResourceName>,
    /// What if there were so many identities
    #[arg(long, value_name = "N")]
    identities: Option<u64>,
    /// What if every token lived so long (1h to 24h)
    #[arg(long, value_name = "DURATION", value_parser = duration::token_life)]
    lifetime: Option<Duration>,
    /// The configuration that names the store, for when no daemon runs
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let what_if = WhatIf {
            identities: self.identities,
            lifetime: self.lifetime,
        };
        let client = daemon_of(&context, self.config.as_deref())?;
        let plans = match client.plans(self.resource.as_ref(), &what_if).await {
            Ok(plans) => plans,
            Err(ClientError::Unreachable { .. }) => {
                match self.offline(&what_if, context.clock.now())? {
                    Some(plans) => plans,
                    None => return Ok(Exit::Done),
                }
            }
            Err(error) => return Err(error.into()),
        };
        if self.json {
            output::print_json(&plans)?;
        } else {
            output::print(&render(&plans, output::width()))?;
        }
        Ok(Exit::Done)
    }

    /// Without a daemon; `None` where another process, as the owner of the store, has printed it.
    fn offline(&self, what_if: &WhatIf, now: Timestamp) -> Result<Option<Plans>, Failed> {
        let source = Source::of_process(self.config.clone());
        if what_if.is_some() && self.config.is_none() && !source.path.exists() {
            return Ok(Some(documented(what_if, now)));
        }
        let path = source.path;
        let settings = settings(Some(path.clone()))?;
        let there = settings.store.place.file().is_none_or(|file| file.exists());
        if there && let Some(owner) = Owner::to_become(&settings.daemon.state_dir)? {
            let mut child = owner.renewd(["plan", "--config"])?;
            let path = std::path::absolute(&path).unwrap_or(path);
            child
                .arg(path)
                .args(self.resource.as_ref().map(ToString::to_string));
            child.args(self.identities.map(|count| format!("--identities={count}")));
            child.args(
                self.lifetime
                    .map(|life| format!("--lifetime={}s", life.as_secs())),
            );
            child.args(self.json.then_some("--json"));
            succeeded(child.status())?;
            return Ok(None);
        }
        self.of_settings(&settings, what_if, now).map(Some)
    }

    fn of_settings(
        &self,
        settings: &Settings,
        what_if: &WhatIf,
        now: Timestamp,
    ) -> Result<Plans, Failed> {
        let mut resources = Vec::new();
        let wanted =
            |one: &&ResourceSettings| self.resource.as_ref().is_none_or(|r| *r == one.name);
        for resource in settings.resources.iter().filter(wanted) {
            resources.push(of_resource(settings, resource, what_if, now)?);
        }
        match (&self.resource, resources.is_empty()) {
            (Some(resource), true) => {
                Err(Failed::plain(format!("there is no resource {resource}")))
            }
            _ => Ok(Plans {
                schema: Plans::SCHEMA,
                at: now,
                resources,
            }),
        }
    }
}

fn of_resource(
    settings: &Settings,
    resource: &ResourceSettings,
    what_if: &WhatIf,
    now: Timestamp,
) -> Result<OfResource, Failed> {
    let ours = || {
        settings
            .identities
            .iter()
            .filter(|spec| spec.resource == resource.name)
    };
    let stock = stock_at_rest(&settings.store, &resource.name, now)?;
    let (fleet, basis) = match &stock {
        Some(stock) => {
            let known = Fleet::known(stock, &cohorts(ours()), &settings.renewal);
            (known, Basis::Store)
        }
        None => (Fleet::declared(ours()), Basis::Configuration),
    };
    let (fleet, basis) = match what_if.is_some() {
        true => (
            fleet.instead(what_if, &settings.renewal, now),
            Basis::WhatIf,
        ),
        false => (fleet, basis),
    };
    Ok(plan(
        &resource.name,
        (&fleet, basis),
        Room::of(resource),
        now,
    ))
}

/// A fleet at a resource with the documented limits, where there is no configuration at all.
fn documented(what_if: &WhatIf, now: Timestamp) -> Plans {
    let usual = Renewal::default();
    let fleet = Fleet::level(vec![Cohort::usual(&usual, 1)], now).instead(what_if, &usual, now);
    let room = Room {
        limits: Limits::default(),
        max_in_flight: 32,
    };
    #[expect(clippy::expect_used, reason = "a constant that is a name")]
    let name = "any".parse().expect("it is a name");
    Plans {
        schema: Plans::SCHEMA,
        at: now,
        resources: vec![plan(&name, (&fleet, Basis::WhatIf), room, now)],
    }
}

fn render(plans: &Plans, width: Option<usize>) -> String {
    let told = plans
        .resources
        .iter()
        .map(|plan| told(plan, plans.at, width));
    let told: Vec<String> = told.collect();
    match told.is_empty() {
        true => "there are no resources\n".to_owned(),
        false => told.join("\n"),
    }
}

fn told(plan: &OfResource, now: Timestamp, width: Option<usize>) -> String {
    let basis = match plan.basis {
        Basis::Store => "as the store knows them",
        Basis::Configuration => "as they are declared; there is no store yet",
        Basis::WhatIf => "if there were so many, their load level",
    };
    let mut text = format!(
        "{}  {} {}, {basis}\n",
        paint(STRONG, &plan.resource),
        grouped(plan.identities as f64),
        if plan.identities == 1 {
            "identity"
        } else {
            "identities"
        },
    );
    if plan.to_create > 0 {
        text.push_str(&format!(
            "  {} to be created\n",
            grouped(plan.to_create as f64)
        ));
    }
    text.push('\n');
    text.push_str(&chart(plan));
    text.push('\n');
    for (name, words, style) in facts(plan, now) {
        let room = width.map(|width| width.saturating_sub(INDENT));
        let words = paint(style, output::wrapped(&words, room, INDENT));
        text.push_str(&format!("  {}{words}\n", paint(DIM, format!("{name:<14}"))));
    }
    text
}

/// Where what is told of a name begins.
const INDENT: usize = 16;

fn facts(plan: &OfResource, now: Timestamp) -> Vec<(&'static str, String, Style)> {
    let (needed, allowed) = (
        per_hour(plan.steady_per_hour),
        per_hour(plan.allowed_per_hour),
    );
    let load = match plan.keeps_up {
        true => format!(
            "{needed} of the {allowed} that the limit allows: {:.1} % are left",
            plan.headroom * 100.0
        ),
        false => format!(
            "{needed}, and the limit allows {allowed}: they can never keep up; longer lifetimes, a later renew_at, \
             fewer identities or a higher limit"
        ),
    };
    let load_style = match plan.headroom {
        ..0.0 => BAD,
        ..0.2 => WARN,
        _ => GOOD,
    };
    let campaigns = &plan.campaigns;
    vec![
        ("steady load", load, load_style),
        ("outage", outage(plan, now), PLAIN),
        ("revoke all", took(Some(campaigns.revoke_seconds)), PLAIN),
        ("re-issue all", took(campaigns.reissue_seconds), PLAIN),
        ("roll a key", took(campaigns.key_roll_seconds), PLAIN),
        (
            "answers",
            format!(
                "slower than {} ms, `max_in_flight` decides and not the limit",
                plan.answers_within_ms
            ),
            DIM,
        ),
    ]
}

fn took(seconds: Option<u64>) -> String {
    match seconds {
        Some(0) => "at once".to_owned(),
        Some(seconds) => short_duration(Duration::from_secs(seconds)),
        None => "never: the renewals leave nothing of the limit".to_owned(),
    }
}

fn outage(plan: &OfResource, now: Timestamp) -> String {
    let long = |seconds: u64| short_duration(Duration::from_secs(seconds));
    let of = &plan.outage;
    if !plan.keeps_up {
        return "none is survived: the fleet does not keep up".to_owned();
    }
    let mut parts = Vec::new();
    match of.now_seconds {
        Some(seconds) => parts.push(format!("everybody survives {} from now", long(seconds))),
        None => parts.push("not everybody holds a token now".to_owned()),
    }
    if let (Some(seconds), Some(at)) = (of.worst_seconds, of.worst_at)
        && of.now_seconds.is_none_or(|now| seconds + 60 < now)
    {
        let when = output::relative(at, now);
        parts.push(format!("{} at the worst moment, {when}", long(seconds)));
    }
    parts.push(format!("{} with a level load", long(of.level_seconds)));
    parts.join("; ")
}

/// The renewals of each hour as bars, an hour a column.
fn chart(plan: &OfResource) -> String {
    let most = plan
        .hours
        .iter()
        .map(|hour| hour.renewals)
        .max()
        .unwrap_or(0) as f64;
    let limited = plan.allowed_per_hour <= 2.0 * most;
    let top = match limited {
        true => plan.allowed_per_hour.max(most),
        false => most.max(1.0),
    };
    let limit = per_hour(plan.allowed_per_hour);
    let title = match limited {
        true => format!("renewals an hour; the line is the limit, {limit}"),
        false => format!("renewals an hour; the limit, {limit}, is far above"),
    };
    let mut text = format!("  {}\n", paint(DIM, title));
    for row in (0..ROWS).rev() {
        let label = match row {
            _ if row + 1 == ROWS => grouped(top),
            _ if row == ROWS / 2 => grouped(top * (ROWS / 2 + 1) as f64 / ROWS as f64),
            _ => String::new(),
        };
        let bars: String = plan
            .hours
            .iter()
            .map(|hour| bar(hour, plan, top, row, limited))
            .collect();
        text.push_str(&format!(
            "  {} {bars}\n",
            paint(DIM, format!("{label:>9}┤"))
        ));
    }
    text.push_str(&axis(plan));
    text
}

/// How many lines the bars have.
const ROWS: usize = 6;

fn bar(hour: &Hour, plan: &OfResource, top: f64, row: usize, limited: bool) -> String {
    let eighths = (hour.renewals as f64 / top * (ROWS * 8) as f64).ceil() as usize;
    let filled = eighths.saturating_sub(row * 8).min(8);
    let style = match hour.renewals as f64 / plan.allowed_per_hour {
        _ if hour.lapses > 0 => BAD,
        0.8.. => WARN,
        _ => PLAIN,
    };
    match (filled, limited && row + 1 == ROWS) {
        (0, true) => paint(DIM, "┄"),
        (filled, _) => paint(style, EIGHTHS[filled]),
    }
}

/// The hours below the bars, and below them those in which tokens end before their turn.
fn axis(plan: &OfResource) -> String {
    let margin = " ".repeat(12);
    let line: String = plan
        .hours
        .iter()
        .enumerate()
        .map(|(n, _)| if n % 6 == 0 { '┴' } else { '─' })
        .collect();
    let mut text = format!(
        "  {} {}\n",
        paint(DIM, format!("{:>9}└", "0")),
        paint(DIM, line)
    );
    let hours = plan.hours.iter().step_by(6);
    let hours: String = hours
        .map(|hour| format!("{:<6}", hour.at.strftime("%H:%M").to_string()))
        .collect();
    text.push_str(&format!(
        "{margin} {} {}\n",
        paint(DIM, hours.trim_end()),
        paint(DIM, "UTC")
    ));
    let lapses: u64 = plan.hours.iter().map(|hour| hour.lapses).sum();
    if lapses > 0 {
        let marks: String = plan
            .hours
            .iter()
            .map(|hour| if hour.lapses > 0 { '!' } else { ' ' })
            .collect();
        text.push_str(&format!("{margin} {}\n", paint(BAD, marks.trim_end())));
        let told = format!("! {} tokens end before their turn", grouped(lapses as f64));
        text.push_str(&format!("{margin} {}\n", paint(BAD, told)));
    }
    text
}

fn per_hour(rate: f64) -> String {
    format!("{}/h", grouped(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn plan_of(identities: u64, calls: u32) -> Plans {
        let usual = Renewal {
            lifetime: Duration::from_hours(24),
            renew_at: 0.5,
            spread: 0.02,
        };
        let fleet = Fleet::level(vec![Cohort::usual(&usual, identities)], noon());
        let mut limits = Limits::default();
        limits.issue.calls = calls;
        let room = Room {
            limits,
            max_in_flight: 32,
        };
        Plans {
            schema: Plans::SCHEMA,
            at: noon(),
            resources: vec![plan(
                &"contoso".parse().unwrap(),
                (&fleet, Basis::Store),
                room,
                noon(),
            )],
        }
    }

    fn shown(plans: &Plans) -> String {
        let text = render(plans, Some(80));
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn it_is_read_on_eighty_columns_without_colour() {
        for plans in [
            plan_of(100_000, 1000),
            plan_of(100_000, 90),
            plan_of(100_000, 50),
        ] {
            let text = shown(&plans);
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}\n{text}");
            }
        }
        insta::assert_snapshot!("roomy", shown(&plan_of(100_000, 1000)));
        insta::assert_snapshot!("narrow", shown(&plan_of(100_000, 85)));
        insta::assert_snapshot!("overloaded", shown(&plan_of(100_000, 30)));
    }
}
