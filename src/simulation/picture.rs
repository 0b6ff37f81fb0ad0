//! A simulation as a picture: three curves over the same days, and what went wrong as bands behind them. One SVG
//! document without scripts, in the light and the dark, the same to the byte for the same report.

use std::fmt::Write as _;

use super::{HourSeen, Report};
use crate::model::short_duration;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 88.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 76.0;
/// Each of the three.
const HEIGHT: f64 = 120.0;
const APART: f64 = 44.0;

const STYLE: &str = "\
svg{background:#fff;color:#1c2430;font:13px system-ui,sans-serif}\
text{fill:currentColor}.dim{fill:#667085}.axis{stroke:#98a2b3}.band{fill:#f79009;opacity:.16}\
.bar{fill:#3b7ddd}.bad{fill:#d92d20}.line{fill:none;stroke:#12805c;stroke-width:1.5}.limit{stroke:#d92d20;stroke-dasharray:5 4}\
@media(prefers-color-scheme:dark){svg{background:#12161c;color:#e6e9ef}.dim{fill:#98a2b3}.axis{stroke:#475467}.bar{fill:#6aa5f8}.bad{fill:#f97066}.line{stroke:#4cc38a}}";

/// One of the three curves.
struct Panel<'a> {
    title: String,
    top: f64,
    most: f64,
    report: &'a Report,
}

pub fn svg(report: &Report) -> String {
    let height = TOP + 3.0 * (HEIGHT + APART);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"title\">\n<title id=\"title\">{}</title>\n<style>{STYLE}</style>\n",
        headline(report)
    );
    // Writing to a string cannot fail.
    write!(
        out,
        "<text x=\"{LEFT}\" y=\"28\" font-size=\"17\">{}</text>\n<text class=\"dim\" x=\"{LEFT}\" y=\"48\">{}</text>\n",
        headline(report),
        subtitle(report)
    )
    .ok();
    let top = |number: f64| TOP + number * (HEIGHT + APART);
    renewals(report, top(0.0), &mut out);
    least_left(report, top(1.0), &mut out);
    without(report, top(2.0), &mut out);
    out.push_str("</svg>\n");
    out
}

fn headline(report: &Report) -> String {
    let days = report.length_seconds as f64 / 86_400.0;
    let verdict = match report.broken {
        0 => "every promise was kept".to_owned(),
        broken => format!("{broken} promises were broken"),
    };
    format!(
        "{} identities over {days:.1} days: {verdict}",
        report.identities
    )
}

fn subtitle(report: &Report) -> String {
    let left = report
        .least_left_seconds
        .map_or("nobody was renewed".to_owned(), |left| {
            let left = std::time::Duration::from_secs_f64(left);
            format!("least life left {}", short_duration(left))
        });
    format!(
        "{left}; {} s without a live token; {} calls, {} answered 429; at most {} in a second; seed {}",
        report.without_token_seconds,
        report.calls.values().sum::<u64>(),
        report.throttled,
        report.peak_in_second,
        report.seed
    )
}

impl Panel<'_> {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * seconds / (self.report.length_seconds as f64).max(1.0)
    }

    fn y(&self, value: f64) -> f64 {
        self.top + HEIGHT * (1.0 - (value / self.most.max(1e-9)).clamp(0.0, 1.0))
    }

    /// Title, axes, days and bands.
    fn frame(&self, top: &str, out: &mut String) {
        let (bottom, right) = (self.top + HEIGHT, WIDTH - RIGHT);
        for (from, to) in bands(self.report) {
            let (x, end) = (self.x(from), self.x(to).max(self.x(from) + 1.5));
            writeln!(
                out,
                "<rect class=\"band\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{HEIGHT}\"/>",
                self.top,
                end - x
            )
            .ok();
        }
        writeln!(
            out,
            "<text class=\"dim\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>\n\
             <text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{top}</text>\n\
             <text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">0</text>\n\
             <path class=\"axis\" fill=\"none\" d=\"M{LEFT} {:.1}V{bottom:.1}H{right:.1}\"/>",
            self.top - 8.0,
            self.title,
            LEFT - 8.0,
            self.top + 10.0,
            LEFT - 8.0,
            bottom,
            self.top
        )
        .ok();
        for (seconds, label) in ticks(self.report.length_seconds) {
            writeln!(
                out,
                "<text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                self.x(seconds),
                bottom + 16.0
            )
            .ok();
        }
    }

    /// One bar an hour.
    fn bars(&self, class: &str, value: impl Fn(&HourSeen) -> f64, out: &mut String) {
        let mut path = String::new();
        for (hour, seen) in self.report.hours.iter().enumerate() {
            let value = value(seen);
            if value > 0.0 {
                let (from, to) = (
                    self.x(hour as f64 * 3600.0),
                    self.x((hour + 1) as f64 * 3600.0),
                );
                let (top, bottom) = (self.y(value), self.top + HEIGHT);
                write!(path, "M{from:.1} {bottom:.1}V{top:.1}H{to:.1}V{bottom:.1}Z").ok();
            }
        }
        writeln!(out, "<path class=\"{class}\" d=\"{path}\"/>").ok();
    }
}

fn renewals(report: &Report, top: f64, out: &mut String) {
    let most = report
        .hours
        .iter()
        .map(|hour| hour.calls)
        .max()
        .unwrap_or(0);
    let limit = report.issue_limit as f64 * 0.97 * 3600.0 / (report.window_seconds as f64).max(1.0);
    let near = limit <= 2.0 * most as f64;
    let panel = Panel {
        title: match near {
            true => "calls an hour; the line is the limit of issuing; red: answered 429 or failed"
                .to_owned(),
            false => format!(
                "calls an hour (the limit of issuing, {limit:.0}, is far above); red: answered 429 or failed"
            ),
        },
        top,
        most: if near {
            limit.max(most as f64)
        } else {
            most as f64
        },
        report,
    };
    panel.frame(&format!("{:.0}", panel.most), out);
    panel.bars("bar", |hour| hour.calls as f64, out);
    panel.bars("bad", |hour| (hour.throttled + hour.failed) as f64, out);
    if near {
        let (y, right) = (panel.y(limit), WIDTH - RIGHT);
        writeln!(
            out,
            "<path class=\"limit\" d=\"M{LEFT} {y:.1}H{right:.1}\"/>"
        )
        .ok();
    }
}

fn least_left(report: &Report, top: f64, out: &mut String) {
    let panel = Panel {
        title: "the least life that was left at a renewal, in hours".to_owned(),
        top,
        most: report.lifetime_seconds as f64 / 3600.0,
        report,
    };
    panel.frame(&format!("{:.0} h", panel.most), out);
    let mut path = String::new();
    let seen = report.hours.iter().enumerate();
    for (hour, left) in seen.filter_map(|(hour, seen)| Some((hour, seen.least_left_seconds?))) {
        let sign = if path.is_empty() { 'M' } else { 'L' };
        let x = panel.x((hour as f64 + 0.5) * 3600.0);
        write!(path, "{sign}{x:.1} {:.1}", panel.y(left / 3600.0)).ok();
    }
    writeln!(out, "<path class=\"line\" d=\"{path}\"/>").ok();
}

fn without(report: &Report, top: f64, out: &mut String) {
    let most = report
        .hours
        .iter()
        .map(|hour| hour.without)
        .max()
        .unwrap_or(0);
    let panel = Panel {
        title: "identities without a live token, at the end of each hour".to_owned(),
        top,
        most: most.max(1) as f64,
        report,
    };
    panel.frame(&most.max(1).to_string(), out);
    panel.bars("bad", |hour| hour.without as f64, out);
}

/// When something was wrong, in seconds.
fn bands(report: &Report) -> Vec<(f64, f64)> {
    let faults = report
        .faults
        .iter()
        .filter_map(|line| line.parse::<super::PlannedFault>().ok());
    faults
        .map(|fault| (fault.at.as_secs_f64(), fault.ends().as_secs_f64()))
        .map(|(from, to)| (from, to.min(report.length_seconds as f64)))
        .collect()
}

/// Not more than fifteen labels.
fn ticks(length: u64) -> Vec<(f64, String)> {
    let (unit, name) = if length > 3 * 86_400 {
        (86_400, "d")
    } else {
        (3600, "h")
    };
    let all = length / unit;
    let step = usize::try_from(all.div_ceil(15).max(1)).unwrap_or(1);
    let labelled = (0..=all).step_by(step);
    labelled
        .map(|n| ((n * unit) as f64, format!("{n}{name}")))
        .collect()
}
