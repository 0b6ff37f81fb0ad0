//! `renewd simulate`: days of a fleet in seconds, with faults on purpose, by the code that the daemon runs.

use std::{fs, path::PathBuf, time::Duration};

use super::{
    daemon::settings,
    duration,
    exit::{Exit, Failed, Outcome},
    output::{self, BAD, DIM, EIGHTHS, GOOD, STRONG, grouped, paint},
};
use crate::{
    config::{Limits, Renewal, ResourceSettings, Settings},
    model::{ResourceName, short_duration},
    simulation::{self, PlannedFault, Report, Setting, simulate, svg},
};

/// Let a fleet live for days in seconds, with faults that a script names or chance draws
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The store, renewals, retries, pace, health, keys and campaigns are the daemon's own; the service is \
modelled, and time is simulated. The same arguments give the same result, to the byte. Nothing is called and nothing is \
changed.\n\
A fault is a line of words, at=, for= and what it needs:\n\
  outage at=2d for=6h                 nothing listens\n\
  brown-out at=3d for=2h share=0.4    a share of all calls fails\n\
  poison at=1d for=2d share=0.01      a share of all identities is refused\n\
  throttle at=5d for=10m wait=30s     every call is answered 429\n\
  slow at=6d for=1h by=20s            every answer takes so long\n\
  clock at=8d by=-1h for=2h           our wall clock steps, and back\n\
  restart at=9d for=30s               the daemon ends and starts; kill: as kill -9 does\n\
  key-loss at=10d for=1d keys=both    keys are regenerated: their tokens die (keys=primary: one)\n\
  revoke at=12d                       everybody is revoked and re-issued; renew: everybody is renewed\n\
Exit codes: 0 every promise was kept, 1 one was broken although nothing stood in the way, 2 usage."
)]
pub(crate) struct Simulate {
    /// How many identities [default: 1000, or as many as are declared]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    identities: Option<u64>,
    /// How long their tokens live [default: 24h, or as configured]
    #[arg(long, value_name = "DURATION", value_parser = duration::token_life)]
    lifetime: Option<Duration>,
    /// How many days
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=400))]
    days: u64,
    /// Where chance starts
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Something that goes wrong; may be repeated
    #[arg(long, value_name = "FAULT")]
    fault: Vec<PlannedFault>,
    /// A file of faults, one a line; # begins a remark
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Let chance draw faults, by the seed
    #[arg(long)]
    random_faults: bool,
    /// How long an answer takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 80, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    latency_ms: u64,
    /// Take limits, lifetimes and the number of identities from this configuration
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// The resource of the configuration, where there are several
    #[arg(long, value_name = "NAME", requires = "config")]
    resource: Option<ResourceName>,
    /// Also draw it, into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Simulate {
    pub(crate) fn run(self) -> Outcome {
        let setting = self.setting()?;
        let report = simulate(&setting).map_err(|error| {
            Failed::plain(error).hint(format!("it is replayed by: {}", self.command()))
        })?;
        if let Some(path) = &self.svg {
            fs::write(path, svg(&report)).map_err(|error| {
                Failed::plain(format!("cannot write {}: {error}", path.display()))
            })?;
        }
        if self.json {
            output::print_json(&report)?;
        } else {
            output::print(&render(&report, output::width()))?;
        }
        match report.broken {
            0 => Ok(Exit::Done),
            broken => Err(Failed::plain(format!(
                "{broken} promises were broken although nothing stood in the way"
            ))
            .hint(format!("it is replayed by: {}", self.command()))),
        }
    }

    fn setting(&self) -> Result<Setting, Failed> {
        let length = Duration::from_hours(24 * self.days);
        let (limits, max_in_flight, renewal, declared) = self.surroundings()?;
        let mut faults = self.fault.clone();
        if let Some(path) = &self.faults {
            let shown = path.display();
            let text = fs::read_to_string(path)
                .map_err(|error| Failed::usage(format!("cannot read {shown}: {error}")))?;
            let script = simulation::script(&text);
            faults.extend(script.map_err(|error| Failed::usage(format!("{shown}: {error}")))?);
        }
        if self.random_faults {
            faults.extend(simulation::random(self.seed, length));
        }
        if let Some(late) = faults.iter().find(|fault| fault.at >= length) {
            let told = format!(
                "{late} begins after the {} days of the simulation",
                self.days
            );
            return Err(Failed::usage(told));
        }
        Ok(Setting {
            seed: self.seed,
            identities: self.identities.unwrap_or(declared),
            lifetime: self.lifetime.unwrap_or(renewal.lifetime),
            renew_at: renewal.renew_at,
            spread: renewal.spread,
            limits,
            max_in_flight,
            latency: Duration::from_millis(self.latency_ms),
            length,
            faults,
        })
    }

    /// Limits, calls at once, how tokens are renewed, and how many identities are declared.
    fn surroundings(&self) -> Result<(Limits, usize, Renewal, u64), Failed> {
        let Some(path) = &self.config else {
            return Ok((Limits::default(), 32, Renewal::default(), 1000));
        };
        let settings = settings(Some(path.clone()))?;
        let resource = self.chosen(&settings)?;
        let ours = settings.identities.iter();
        let declared = ours.filter(|spec| spec.resource == resource.name).count() as u64;
        if declared == 0 && self.identities.is_none() {
            let told = format!(
                "{} declares no identities of {}",
                path.display(),
                resource.name
            );
            return Err(Failed::usage(told).hint("--identities N says how many there are"));
        }
        let renewal = settings.renewal;
        Ok((resource.limits, resource.max_in_flight, renewal, declared))
    }

    fn chosen<'a>(&self, settings: &'a Settings) -> Result<&'a ResourceSettings, Failed> {
        let mut named = settings.resources.iter();
        match (&self.resource, settings.resources.as_slice()) {
            (Some(name), _) => named
                .find(|one| one.name == *name)
                .ok_or_else(|| Failed::usage(format!("there is no resource {name}"))),
            (None, [only]) => Ok(only),
            (None, _) => Err(Failed::usage(
                "there are several resources; --resource says which",
            )),
        }
    }

    /// What a person types to see the same again.
    fn command(&self) -> String {
        let mut words = vec!["renewd simulate".to_owned()];
        words.extend(self.identities.map(|count| format!("--identities {count}")));
        words.extend(
            self.lifetime
                .map(|life| format!("--lifetime {}s", life.as_secs())),
        );
        words.push(format!("--days {} --seed {}", self.days, self.seed));
        words.push(format!("--latency-ms {}", self.latency_ms));
        words.extend(self.fault.iter().map(|fault| format!("--fault '{fault}'")));
        words.extend(
            self.faults
                .iter()
                .map(|path| format!("--faults {}", path.display())),
        );
        words.extend(self.random_faults.then(|| "--random-faults".to_owned()));
        words.extend(
            self.config
                .iter()
                .map(|path| format!("--config {}", path.display())),
        );
        words.extend(
            self.resource
                .iter()
                .map(|name| format!("--resource {name}")),
        );
        words.join(" ")
    }
}

fn seconds(count: u64) -> String {
    short_duration(Duration::from_secs(count))
}

fn render(report: &Report, width: Option<usize>) -> String {
    let mut text = format!(
        "{}, tokens of {}, over {}, seed {}\n",
        paint(
            STRONG,
            format!("{} identities", grouped(report.identities as f64))
        ),
        seconds(report.lifetime_seconds),
        seconds(report.length_seconds),
        report.seed
    );
    if report.scale > 1 {
        let told = format!(
            "each that was simulated stands for {}, with limits as much smaller",
            report.scale
        );
        text.push_str(&format!("  {}\n", paint(DIM, told)));
    }
    for (line, told) in report.faults.iter().zip(&report.told) {
        let at = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("at="));
        text.push_str(&format!(
            "  {} {told}\n",
            paint(DIM, format!("at {:<9}", at.unwrap_or("")))
        ));
    }
    text.push('\n');
    text.push_str(&curves(report));
    for (name, words) in facts(report) {
        let room = width.map(|width| width.saturating_sub(INDENT));
        let words = output::wrapped(&words, room, INDENT);
        text.push_str(&format!("  {}{words}\n", paint(DIM, format!("{name:<19}"))));
    }
    text.push_str(&verdict(report));
    text
}

/// Where what is told of a name begins.
const INDENT: usize = 21;
/// How wide the curves are.
const CURVE: usize = 56;

fn curves(report: &Report) -> String {
    let of = |value: fn(&simulation::HourSeen) -> Option<f64>, least: bool| {
        let buckets = report
            .hours
            .chunks(report.hours.len().div_ceil(CURVE).max(1));
        let merged = buckets.map(move |hours| {
            let values = hours.iter().filter_map(value);
            match least {
                true => values.reduce(f64::min),
                false => values.reduce(f64::max),
            }
        });
        merged.collect::<Vec<Option<f64>>>()
    };
    let calls = of(|hour| Some(hour.calls as f64), false);
    let left = of(|hour| hour.least_left_seconds, true);
    let line = |name: &str, values: &[Option<f64>]| {
        format!(
            "  {}{}\n",
            paint(DIM, format!("{name:<19}")),
            sparkline(values)
        )
    };
    format!(
        "{}{}\n",
        line("calls an hour", &calls),
        line("least life left", &left)
    )
}

/// Values as bars in one line, the highest a whole line high; what is not known is a gap.
fn sparkline(values: &[Option<f64>]) -> String {
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) if most > 0.0 => EIGHTHS[((value / most * 8.0).ceil() as usize).clamp(1, 8)],
        Some(_) => EIGHTHS[1],
    };
    values.iter().map(bar).collect()
}

fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let calls = report.calls.iter();
    let calls: Vec<String> = calls
        .map(|(word, calls)| format!("{} {word}", count(*calls)))
        .collect();
    let minted = count(report.minted);
    let first = seconds(report.all_had_one_seconds);
    let (throttled, past) = (count(report.throttled), count(report.past_limit));
    let mut facts = vec![
        ("least life left", left(report)),
        ("without a token", without(report)),
        ("first tokens", format!("everybody had one after {first}")),
        (
            "calls",
            format!("{}; {minted} tokens were minted", calls.join(", ")),
        ),
        (
            "answered 429",
            format!("{throttled}, {past} of them past a limit"),
        ),
        ("failed otherwise", count(report.failed)),
        ("peak", peak(report)),
    ];
    let campaigns = report.campaigns.iter();
    facts.extend(campaigns.map(|seen| ("campaign", campaign(seen))));
    facts
}

fn count(number: u64) -> String {
    grouped(number as f64)
}

fn left(report: &Report) -> String {
    report
        .least_left_seconds
        .map_or("nobody was renewed".to_owned(), |left| {
            let share = left * 100.0 / report.lifetime_seconds as f64;
            let left = short_duration(Duration::from_secs_f64(left));
            format!("{left} ({share:.1} % of a life)")
        })
}

fn without(report: &Report) -> String {
    let longest = seconds(report.longest_without_seconds);
    match report.without_token_seconds {
        0 => "never, once everybody had the first".to_owned(),
        all => format!("{} s all together, one of them for {longest}", count(all)),
    }
}

fn peak(report: &Report) -> String {
    let issues = report.peak_in_window.get("issue").copied().unwrap_or(0);
    format!(
        "{} calls for tokens in {}, of {}; {} of all kinds in a second",
        count(issues),
        seconds(report.window_seconds),
        count(report.issue_limit),
        count(report.peak_in_second)
    )
}

fn campaign(seen: &simulation::CampaignSeen) -> String {
    let took = seen.took_seconds.map(seconds);
    let took = took.map_or("has not ended".to_owned(), |took| format!("took {took}"));
    format!(
        "{} everybody, ordered at {}: {took}; {} done, {} failed",
        seen.action,
        seconds(seen.at_seconds),
        count(seen.done),
        count(seen.failed)
    )
}

fn verdict(report: &Report) -> String {
    let mut text = String::from("\n");
    for broken in &report.broken_told {
        text.push_str(&format!("  {}\n", paint(BAD, broken)));
    }
    if report.broken == 0 {
        text.push_str(&format!("  {}\n", paint(GOOD, "every promise was kept")));
    }
    text
}
