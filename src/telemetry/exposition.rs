//! Metrics as text: the classic format of Prometheus, or OpenMetrics where the reader accepts that as much.
//!
//! Families come in the order in which they were made, series in the order of their labels, labels in the order in
//! which they were written: two looks at the same truth are the same to the byte.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;

/// Name and value of each label.
pub(super) type Labels = Vec<(&'static str, String)>;

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// `text/plain`, version 0.0.4.
    Classic,
    /// `application/openmetrics-text`, version 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// What the values of `Accept` ask for; the classic format where they leave the choice.
    pub fn accepted<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut open, mut classic) = (0.0_f32, 0.0_f32);
        let ranges = values.into_iter().flat_map(|value| value.split(','));
        for range in ranges.map(MediaRange::parse) {
            match range.media.as_str() {
                "application/openmetrics-text" if range.is_known_version() => {
                    open = open.max(range.quality);
                }
                "text/plain" | "text/*" | "*/*" => classic = classic.max(range.quality),
                _ => {}
            }
        }
        match open > 0.0 && open >= classic {
            true => Self::OpenMetrics,
            false => Self::Classic,
        }
    }

    /// For the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// One of the ranges that a reader accepts.
struct MediaRange {
    media: String,
    version: Option<String>,
    quality: f32,
}

impl MediaRange {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut version, mut quality) = (None, 1.0);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => version = Some(value.trim().trim_matches('"').to_owned()),
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                _ => {}
            }
        }
        Self {
            media,
            version,
            quality,
        }
    }

    fn is_known_version(&self) -> bool {
        let version = self.version.as_deref();
        version.is_none_or(|version| matches!(version, "1.0.0" | "0.0.1"))
    }
}

/// What kind of metric it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// What one series holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SeriesValue {
    Whole(i64),
    Real(f64),
    Buckets(Histogram),
}

impl From<i64> for SeriesValue {
    fn from(value: i64) -> Self {
        Self::Whole(value)
    }
}

impl From<u64> for SeriesValue {
    fn from(value: u64) -> Self {
        Self::Whole(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<usize> for SeriesValue {
    fn from(value: usize) -> Self {
        Self::Whole(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<u32> for SeriesValue {
    fn from(value: u32) -> Self {
        Self::Whole(i64::from(value))
    }
}

impl From<bool> for SeriesValue {
    fn from(value: bool) -> Self {
        Self::Whole(i64::from(value))
    }
}

impl From<f64> for SeriesValue {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// An instant; 0 where there is none.
impl From<Option<Timestamp>> for SeriesValue {
    fn from(value: Option<Timestamp>) -> Self {
        Self::Whole(value.map_or(0, Timestamp::as_second))
    }
}

impl From<Histogram> for SeriesValue {
    fn from(value: Histogram) -> Self {
        Self::Buckets(value)
    }
}

/// How often a value was at most this, for a few bounds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// By the first bound that holds; the last are beyond all bounds.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
        }
    }

    pub(super) fn observe(&mut self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum += value;
    }
}

/// A metric with all its series.
#[derive(Debug, Clone)]
pub(super) struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    series: BTreeMap<Labels, SeriesValue>,
}

impl Family {
    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Gauge, help)
    }

    /// Its name ends with `_total`.
    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        debug_assert!(name.ends_with("_total"), "{name}");
        Self::new(name, Kind::Counter, help)
    }

    pub(super) fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Histogram, help)
    }

    fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self {
            name,
            kind,
            help,
            series: BTreeMap::new(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// One series of it.
    pub(super) fn set<const N: usize>(
        &mut self,
        labels: [(&'static str, &str); N],
        value: impl Into<SeriesValue>,
    ) {
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        self.series.insert(labels.into(), value.into());
    }

    /// The same for a family that is of one series.
    pub(super) fn of(mut self, value: impl Into<SeriesValue>) -> Self {
        self.set([], value);
        self
    }

    fn write(&self, text: &mut String, form: Exposition) {
        // OpenMetrics speaks of a counter without the ending of its samples.
        let spoken = match (self.kind, form) {
            (Kind::Counter, Exposition::OpenMetrics) => self.name.trim_end_matches("_total"),
            _ => self.name,
        };
        let (kind, help) = (self.kind.as_str(), self.help);
        text.push_str(&format!("# HELP {spoken} {help}\n# TYPE {spoken} {kind}\n"));
        for (labels, value) in &self.series {
            match value {
                SeriesValue::Whole(value) => line(text, self.name, "", labels, None, value),
                // With a point, also where it is whole: as OpenMetrics spells it.
                SeriesValue::Real(value) => {
                    line(text, self.name, "", labels, None, &format!("{value:?}"));
                }
                SeriesValue::Buckets(histogram) => self.write_buckets(text, labels, histogram),
            }
        }
    }

    fn write_buckets(&self, text: &mut String, labels: &Labels, histogram: &Histogram) {
        let mut so_far = 0;
        let bounds = histogram.bounds.iter().map(|bound| format!("{bound:?}"));
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&histogram.counts) {
            so_far += count;
            line(text, self.name, "_bucket", labels, Some(&bound), &so_far);
        }
        line(text, self.name, "_count", labels, None, &so_far);
        let sum = format!("{:?}", histogram.sum);
        line(text, self.name, "_sum", labels, None, &sum);
    }
}

fn line(
    text: &mut String,
    name: &str,
    ending: &str,
    labels: &Labels,
    bound: Option<&str>,
    value: &dyn std::fmt::Display,
) {
    text.push_str(name);
    text.push_str(ending);
    let named = labels.iter().map(|(name, value)| (*name, value.as_str()));
    let all = named.chain(bound.map(|bound| ("le", bound)));
    let written: Vec<String> = all
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    if !written.is_empty() {
        text.push('{');
        text.push_str(&written.join(","));
        text.push('}');
    }
    // Writing to a string cannot fail.
    writeln!(text, " {value}").ok();
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text
}

/// All of it as text.
pub(super) fn text(families: &[Family], form: Exposition) -> String {
    let mut text = String::with_capacity(32 * 1024);
    for family in families {
        family.write(&mut text, form);
    }
    if form == Exposition::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(values: &[&str]) -> Exposition {
        Exposition::accepted(values.iter().copied())
    }

    #[test]
    fn the_reader_chooses() {
        use Exposition::{Classic, OpenMetrics};
        for (values, form) in [
            (&[][..], Classic),
            (&["*/*"], Classic),
            (
                &["text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"],
                Classic,
            ),
            (&["application/openmetrics-text"], OpenMetrics),
            (
                &["Application/OpenMetrics-Text; version=1.0.0"],
                OpenMetrics,
            ),
            // As Prometheus 2 asks, and 3.
            (
                &[
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ],
                OpenMetrics,
            ),
            (
                &[
                    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.2",
                ],
                OpenMetrics,
            ),
            (
                &["text/plain;version=0.0.4,application/openmetrics-text;q=0.5"],
                Classic,
            ),
            (
                &["application/openmetrics-text;q=0.5", "text/plain; q=0.9"],
                Classic,
            ),
            (&["application/openmetrics-text;version=2.0.0"], Classic),
            (&["application/openmetrics-text;q=0"], Classic),
            (&["application/openmetrics-text;q=much"], Classic),
            (&[";;=,,q=1"], Classic),
        ] {
            assert_eq!(accepted(values), form, "{values:?}");
        }
    }

    fn families() -> Vec<Family> {
        let mut calls = Family::counter("renewd_calls_total", "Calls");
        calls.set([("resource", "b")], 2_u64);
        calls.set([("resource", "a\"\\\n")], 1_u64);
        let mut lag = Family::histogram("renewd_lag_seconds", "Lag");
        let mut histogram = Histogram::new(&[0.25, 1.0]);
        for value in [0.25, 0.5, 7.0] {
            histogram.observe(value);
        }
        lag.set([("sink", "crm")], histogram);
        let skew = Family::gauge("renewd_skew_seconds", "Skew").of(-1.0);
        vec![calls, lag, skew]
    }

    #[test]
    fn both_forms_are_written_to_the_byte() {
        let samples = "renewd_calls_total{resource=\"a\\\"\\\\\\n\"} 1\nrenewd_calls_total{resource=\"b\"} 2\n";
        let rest = "# HELP renewd_lag_seconds Lag\n# TYPE renewd_lag_seconds histogram\n\
            renewd_lag_seconds_bucket{sink=\"crm\",le=\"0.25\"} 1\nrenewd_lag_seconds_bucket{sink=\"crm\",le=\"1.0\"} 2\n\
            renewd_lag_seconds_bucket{sink=\"crm\",le=\"+Inf\"} 3\nrenewd_lag_seconds_count{sink=\"crm\"} 3\n\
            renewd_lag_seconds_sum{sink=\"crm\"} 7.75\n# HELP renewd_skew_seconds Skew\n\
            # TYPE renewd_skew_seconds gauge\nrenewd_skew_seconds -1.0\n";
        assert_eq!(
            text(&families(), Exposition::Classic),
            format!(
                "# HELP renewd_calls_total Calls\n# TYPE renewd_calls_total counter\n{samples}{rest}"
            )
        );
        assert_eq!(
            text(&families(), Exposition::OpenMetrics),
            format!(
                "# HELP renewd_calls Calls\n# TYPE renewd_calls counter\n{samples}{rest}# EOF\n"
            )
        );
    }
}
