//! `/`, the page for people, and `/api/events`, which keeps it up: who holds a live token, what needs a person, the
//! hours ahead. It does not know who looks, so it shows no secret, no cause in another's words, and names of identities
//! only with `[daemon] page_names`.
//!
//! It is one document, written here, that is read without JavaScript and asks nobody else for anything. A look reads
//! what is published and counted, never the fleet; all who watch share it. Browsers allow six connections to a host, so
//! the script keeps one stream for all its tabs, and none while no tab is seen; a stream ends by itself before a
//! connection may, and the browser comes again.

mod causes;
mod chart;
mod picture;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderName, header};
use jiff::{SignedDuration, Timestamp};
use minijinja::{
    AutoEscape, Environment, UndefinedBehavior, Value, context, syntax::SyntaxConfig, value::Serde,
};
use serde::Serialize;

use self::picture::{Beside, Picture};
use super::{
    handle::Api,
    local::explained,
    looks::Looks,
    problem::{Problem, ProblemType},
    snapshot::Snapshot,
};
use crate::{
    model::{RESERVED, grouped, percent_encoded, short_duration},
    schedule::{Explanation, Plan, Steady},
    store::{Campaign, StoreError},
};

/// The parts that are kept up, in the order of the page.
const PARTS: [&str; 9] = [
    "head",
    "sentence",
    "orders",
    "needs",
    "resources",
    "sinks",
    "campaigns",
    "keys",
    "foot",
];
/// How often whoever watches is told.
const EVERY: Duration = Duration::from_secs(2);
/// What was seen so lately will do for those who watch.
const LATELY: Duration = Duration::from_secs(1);
/// How long a stream lasts: less than a connection may.
const STREAM: Duration = Duration::from_secs(25);
/// How soon a browser comes again, in milliseconds.
const COME_AGAIN_MS: u32 = 300;
/// A plan is kept for so many times as long as it took to make, within bounds.
const PLAN_KEPT: u32 = 50;
const PLAN_AT_LEAST: Duration = Duration::from_secs(2);
const PLAN_AT_MOST: Duration = Duration::from_mins(1);
/// Campaigns that ended so long ago are shown.
const LATE_CAMPAIGNS: SignedDuration = SignedDuration::from_hours(24);

pub(super) fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/api/events", get(events))
        .with_state(Arc::new(Page::new(api)))
}

/// What is kept between two questions.
struct Page {
    api: Api,
    templates: Environment<'static>,
    looks: Looks<Result<Shown, String>>,
    plans: Mutex<Option<Kept>>,
}

/// Plans, and until when they will do.
#[derive(Debug)]
struct Kept {
    until: Steady,
    plans: Vec<Plan>,
}

/// A look, written out.
#[derive(Debug)]
struct Shown {
    picture: Picture,
    parts: BTreeMap<&'static str, String>,
    /// The same for the script, which says itself how long ago an instant is: they change when something does.
    lasting: BTreeMap<&'static str, String>,
    /// When it was taken.
    taken: Steady,
}

/// `?name=…`.
#[derive(Debug, serde::Deserialize)]
struct Asked {
    name: Option<String>,
}

/// What came of a search.
#[derive(Debug, Default, Serialize)]
struct Search {
    name: String,
    found: Option<Explanation>,
    /// Why nothing is shown.
    problem: Option<String>,
}

async fn page(
    State(page): State<Arc<Page>>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let looked = page.looks.shared(page.look()).await?;
    let shown = seen(&looked)?;
    let search = match asked.name {
        Some(name) => page.search(name.trim().to_owned()).await,
        None => Search::default(),
    };
    let nonce = format!("{:032x}", rand::random::<u128>());
    let document = page
        .document(shown, &search, &nonce)
        .map_err(|error| broken(&error))?;
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, document).into_response())
}

async fn events(State(page): State<Arc<Page>>) -> Response {
    const HEADERS: [(HeaderName, &str); 2] = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let ends = page.api.clock.steady() + STREAM;
    let follower = Follower {
        page,
        sent: BTreeMap::new(),
        ends,
        begun: false,
    };
    (HEADERS, Body::from_stream(follower.frames())).into_response()
}

fn seen(looked: &Result<Shown, String>) -> Result<&Shown, Problem> {
    looked.as_ref().map_err(broken)
}

fn broken(why: &impl ToString) -> Problem {
    Problem::new(ProblemType::Internal, why.to_string())
}

impl Page {
    fn new(api: Api) -> Self {
        Self {
            api,
            templates: templates(),
            looks: Looks::default(),
            plans: Mutex::default(),
        }
    }

    /// Looks now, and writes out what was seen.
    async fn look(&self) -> Result<Shown, String> {
        let snapshot = Snapshot::glance(&self.api).await;
        let beside = self.beside(&snapshot).await;
        let picture = Picture::of(&snapshot, beside);
        let (page, now) = values(&picture);
        let parts = PARTS.iter().map(|part| {
            let values = context! { part => *part, page => page.clone(), now => now.clone() };
            let text = self.templates.get_template("parts")?.render(values)?;
            Ok((*part, text.trim().to_owned()))
        });
        let parts: Result<BTreeMap<_, _>, minijinja::Error> = parts.collect();
        let parts = parts.map_err(|error| error.to_string())?;
        Ok(Shown {
            lasting: parts
                .iter()
                .map(|(part, text)| (*part, without_distances(text)))
                .collect(),
            parts,
            picture,
            taken: self.api.clock.steady(),
        })
    }

    /// What the store says for the page alone; what it cannot say is left out, and a need says so.
    async fn beside(&self, snapshot: &Snapshot) -> Beside {
        let store = &self.api.store;
        let now = snapshot.now;
        let ends = store.earliest_expiry().await.unwrap_or_default();
        Beside {
            plans: self.plans(snapshot).await.unwrap_or_default(),
            campaigns: self.campaigns(now).await.unwrap_or_default(),
            first_end: ends.into_values().filter(|end| *end > now).min(),
        }
    }

    /// Open campaigns, and those that ended lately, the newest first.
    async fn campaigns(&self, now: Timestamp) -> Result<Vec<Campaign>, StoreError> {
        let mut all = self.api.store.open_campaigns().await?;
        all.reverse();
        let lately = |campaign: &Campaign| {
            let ended = campaign.ended_at;
            ended.is_some_and(|at| now.duration_since(at) < LATE_CAMPAIGNS)
        };
        let newest = self.api.store.campaigns(None, 20).await?;
        all.extend(newest.into_iter().filter(lately));
        Ok(all)
    }

    /// The hours ahead: made anew once in a while, the more seldom the longer it takes.
    async fn plans(&self, snapshot: &Snapshot) -> Result<Vec<Plan>, StoreError> {
        let began = self.api.clock.steady();
        if let Some(kept) = &*self.kept_plans()
            && began < kept.until
        {
            return Ok(kept.plans.clone());
        }
        let Ok(served) = &snapshot.stored.served else {
            return Ok(Vec::new());
        };
        let plans = self.api.counted_plans(served).await?;
        let took = self.api.clock.steady().saturating_sub(began);
        let until = began + (took * PLAN_KEPT).clamp(PLAN_AT_LEAST, PLAN_AT_MOST);
        *self.kept_plans() = Some(Kept {
            until,
            plans: plans.clone(),
        });
        Ok(plans)
    }

    fn kept_plans(&self) -> MutexGuard<'_, Option<Kept>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `why` says of an identity, where names may be shown.
    async fn search(&self, name: String) -> Search {
        if !self.api.shared_state().daemon.page_names {
            let problem = "Identities are not shown here: `[daemon] page_names` is off. `renewd why NAME` shows them.";
            return Search {
                problem: Some(problem.to_owned()),
                ..Search::default()
            };
        }
        match explained(&self.api, &name, causes::kind).await {
            Ok(found) => Search {
                name,
                found: Some(found),
                problem: None,
            },
            Err(problem) => {
                let why = match problem.kind {
                    ProblemType::Unknown => format!("There is no identity “{name}”."),
                    _ => "The store cannot be read now: see `renewd status`.".to_owned(),
                };
                Search {
                    name,
                    found: None,
                    problem: Some(why),
                }
            }
        }
    }

    fn document(
        &self,
        shown: &Shown,
        search: &Search,
        nonce: &str,
    ) -> Result<String, minijinja::Error> {
        let Shown { picture, parts, .. } = shown;
        let safe = |text: &str| Value::from_safe_string(text.to_owned());
        let parts: BTreeMap<&str, Value> = parts
            .iter()
            .map(|(part, text)| (*part, safe(text)))
            .collect();
        let (page, now) = values(picture);
        self.templates.get_template("page")?.render(context! {
            nonce, parts, page, now,
            search => Value::from(Serde(search)),
            title => title(picture),
            style => safe(include_str!("page/page.css")),
            script => safe(include_str!("page/page.js")),
        })
    }
}

/// What a template is told: all of it, and of when it is.
fn values(picture: &Picture) -> (Value, String) {
    (Value::from(Serde(picture)), picture.at.to_string())
}

/// What stands on the tab.
fn title(picture: &Picture) -> String {
    let sign = match picture.tone {
        picture::Tone::Good | picture::Tone::Calm => "",
        picture::Tone::Warn | picture::Tone::Bad => "! ",
    };
    format!("{sign}{} · renewd", picture.instance)
}

/// Somebody who watches, and what they have.
struct Follower {
    page: Arc<Page>,
    sent: BTreeMap<&'static str, String>,
    ends: Steady,
    begun: bool,
}

/// What changed since the last event: all parts in the first one.
#[derive(Debug, Serialize)]
struct Update<'a> {
    at: Timestamp,
    title: String,
    tone: picture::Tone,
    spoken: &'a str,
    parts: BTreeMap<&'static str, &'a str>,
}

impl Follower {
    fn frames(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            let frame = follower.next().await?;
            Some((Ok(frame), follower))
        })
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.begun {
            tokio::select! {
                biased;
                () = self.page.api.stop.cancelled() => return None,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        let now = self.page.api.clock.steady();
        if now >= self.ends {
            return None;
        }
        let lately = |looked: &Result<Shown, String>| {
            (looked.as_ref()).is_ok_and(|shown| now.saturating_sub(shown.taken) < LATELY)
        };
        let page = Arc::clone(&self.page);
        let looked = match page.looks.last(lately) {
            Some(looked) => Ok(looked),
            None => page.looks.shared(page.look()).await,
        };
        // Whoever hears nothing for long is told so by the script.
        let frame = looked.ok().and_then(|looked| match &*looked {
            Ok(shown) => Some(self.frame(shown)),
            Err(_) => None,
        });
        self.begun = true;
        Some(frame.unwrap_or_else(|| Bytes::from_static(b":\n\n")))
    }

    fn frame(&mut self, shown: &Shown) -> Bytes {
        let picture = &shown.picture;
        let changed = shown.lasting.iter();
        let changed = changed.filter(|(part, text)| self.sent.get(*part) != Some(text));
        let update = Update {
            at: picture.at,
            title: title(picture),
            tone: picture.tone,
            spoken: &picture.spoken,
            parts: changed.map(|(part, text)| (*part, text.as_str())).collect(),
        };
        let data = serde_json::to_string(&update).unwrap_or_default();
        self.sent.clone_from(&shown.lasting);
        let retry = match self.begun {
            true => String::new(),
            false => format!("retry: {COME_AGAIN_MS}\n"),
        };
        Bytes::from(format!("{retry}data: {data}\n\n"))
    }
}

/// The templates: everything that is put in is escaped, but for what is written out here.
fn templates() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    if let Ok(syntax) = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
    {
        environment.set_syntax(syntax);
    }
    environment.add_filter("number", |number: u64| grouped(number as f64));
    environment.add_filter("time", time);
    environment.add_filter("hour", hour);
    environment.add_filter("ticks", ticks);
    environment.add_filter("query", query);
    for (name, text) in [
        ("page", include_str!("page/page.html")),
        ("parts", include_str!("page/parts.html")),
    ] {
        #[expect(
            clippy::expect_used,
            reason = "the templates are part of the program, and tests render them"
        )]
        environment
            .add_template(name, text)
            .expect("a template of the page");
    }
    environment
}

/// How an instant begins and ends whose distance from now is shown.
const AWAY: &str = " data-away>";
const AWAY_ENDS: &str = "</time>";

/// The same without how far away its instants are.
fn without_distances(html: &str) -> String {
    let mut pieces = html.split(AWAY);
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.find(AWAY_ENDS).and_then(|at| piece.get(at..));
        text.push_str(AWAY);
        text.push_str(rest.unwrap_or(piece));
    }
    text
}

/// An instant as the distance from now, which the script keeps up.
fn time(at: &str, now: &str) -> Value {
    let parsed = at
        .parse::<Timestamp>()
        .ok()
        .zip(now.parse::<Timestamp>().ok());
    let Some((at, now)) = parsed else {
        return Value::from(at);
    };
    let distance = now.duration_since(at);
    let long = short_duration(distance.unsigned_abs());
    let text = match distance.is_positive() || distance.is_zero() {
        true => format!("{long} ago"),
        false => format!("in {long}"),
    };
    let whole = format!("{at:.0}");
    Value::from_safe_string(format!(
        "<time datetime=\"{whole}\" title=\"{whole}\"{AWAY}{text}{AWAY_ENDS}"
    ))
}

/// The hour and minute of an instant.
fn hour(at: &str) -> String {
    at.get(11..16).unwrap_or_default().to_owned()
}

/// A text as it may stand in a query.
fn query(text: &str) -> String {
    percent_encoded(text, RESERVED)
}

/// A sentence whose commands stand between backticks.
fn ticks(text: &str) -> Value {
    let mut html = String::with_capacity(text.len() + 32);
    for (number, piece) in text.split('`').enumerate() {
        let piece = escaped(piece);
        match number % 2 {
            0 => html.push_str(&piece),
            _ => html.push_str(&format!("<code>{piece}</code>")),
        }
    }
    Value::from_safe_string(html)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#x27;")
}
