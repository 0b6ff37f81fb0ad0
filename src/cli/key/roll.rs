//! Keys are rolled, and followed on the way.
//!
//! `renewd key roll`: replaces a key by habit.
//!
//! `renewd key leak`: replaces a key that somebody else has.
//!
//! What the replacement of a key costs, before it is begun. Pure.
//!
//! Follows the replacement of a key until the operator has something to do, or all is done.

use std::time::Duration;

use indicatif::ProgressBar;

use super::super::{
    Context,
    daemon::{Followed, Patience, daemon, through_restart},
    exit::{Exit, Failed, Outcome},
    output::{self, BAD, GOOD, STRONG, paint},
};
use crate::{
    api::client::{
        DaemonClient,
        wire::{KeyChange, KeyItem, KeyLine, KeyRole, KeyStage, KeyWork, ReplaceKey, ResourceKeys},
    },
    clock::Clock,
    model::{BearerView, ResourceName, short_duration},
};

/// Replace a key: the other key signs, every token is re-minted and delivered, then regenerate
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It goes on over restarts of the daemon; renewd key status shows how far it is."
)]
pub(crate) struct Roll {
    #[command(flatten)]
    replacement: Replacement,
    /// Call a replacement off; tokens that were re-minted stay
    #[arg(long)]
    cancel: bool,
}

/// Which key of which resource, and what goes with it.
#[derive(Debug, clap::Args)]
pub(super) struct Replacement {
    /// The resource
    resource: ResourceName,
    /// Which key to replace; left out, the one in use
    #[arg(long, value_name = "primary|secondary")]
    key: Option<KeyRole>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON document, at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
}

impl Roll {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if self.cancel {
            let client = daemon(context.socket);
            let ended = client.cancel_key(&self.replacement.resource).await?;
            output::print(&format!(
                "the replacement of the {} key of {} is called off\n",
                ended.role, ended.resource
            ))?;
            return Ok(Exit::Done);
        }
        self.replacement.run(context, KeyWork::Roll).await
    }
}

impl Replacement {
    /// Says the price, asks, begins, follows.
    pub(super) async fn run(self, context: Context, work: KeyWork) -> Outcome {
        let client = &daemon(context.socket);
        let keys = client.keys(&self.resource).await?;
        if let Some(bearer) = &keys.bearer {
            return Err(no_keys(&self.resource, bearer));
        }
        let price = Price::of(&keys, self.key).ok_or_else(|| {
            let role = self.key.map_or("", KeyRole::as_str);
            Failed::usage(format!("{} has no {role} key", self.resource))
                .hint("`renewd key status` shows which there are")
        })?;
        if !self.json {
            output::print(&price.words(work))?;
        }
        if !self.yes && !output::confirm("Go on?")? {
            return Err(Failed::unconfirmed());
        }
        let asked = ReplaceKey {
            work,
            role: self.key,
            reason: self.reason,
        };
        let begun = client.replace_key(&self.resource, &asked).await?;
        if !self.json {
            output::print(&opening(&keys, &begun))?;
        }
        let how = (self.patience, self.json);
        follow(client, context.clock, &self.resource, how).await
    }
}

/// What is to be done where there is no access key.
fn no_keys(resource: &ResourceName, bearer: &BearerView) -> Failed {
    let what = format!(
        "{resource} has no access keys: it is called by {}",
        bearer.kind
    );
    Failed::usage(what).hint(format!(
        "tokens that somebody has are killed by `renewd revoke NAME`; {}",
        bearer.replacement(resource)
    ))
}

/// Replace a key that somebody else has; says first what it costs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --now no consumer is ever without a live token, and whoever has the key can use it until \
it is regenerated at the end. With --now it is regenerated at the beginning; the gap of each identity is reported."
)]
pub(crate) struct Leak {
    #[command(flatten)]
    replacement: Replacement,
    /// Regenerate first: whoever has the key is out at once, and every token it minted dies
    #[arg(long)]
    now: bool,
}

impl Leak {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let work = match self.now {
            true => KeyWork::LeakNow,
            false => KeyWork::Leak,
        };
        self.replacement.run(context, work).await
    }
}

/// What is known of it beforehand.
pub(super) struct Price<'a> {
    keys: &'a ResourceKeys,
    old: &'a KeyLine,
}

impl<'a> Price<'a> {
    /// The price of replacing this key, or the one in use; `None` where there is no such key.
    pub(super) fn of(keys: &'a ResourceKeys, role: Option<KeyRole>) -> Option<Self> {
        let role = role.unwrap_or(keys.in_use);
        let old = keys.keys.iter().find(|key| key.role == role)?;
        Some(Self { keys, old })
    }

    /// How long all of its tokens take to be issued anew.
    fn takes(&self) -> Duration {
        let per_minute = self.keys.issues_per_minute.max(1);
        Duration::from_secs((self.old.tokens * 60).div_ceil(per_minute))
    }

    /// A few lines for a person.
    pub(super) fn words(&self, work: KeyWork) -> String {
        let (old, other) = (self.old, self.old.role.other());
        let (n, takes) = (old.tokens, short_duration(self.takes()));
        let plan = format!(
            "{n} live tokens were minted by the {} key ({}). The {other} key mints them anew, {} a minute: about {takes}, \
             and the time that consumers take to accept them.\n",
            old.role, old.fingerprint, self.keys.issues_per_minute
        );
        match work {
            KeyWork::Roll => plan + "No consumer is without a live token at any moment.\n",
            KeyWork::Leak => format!(
                "{plan}Until the key is regenerated, whoever has it can use it: about {takes} more, and the time until \
                 you regenerate it. No consumer is without a live token at any moment.\n"
            ),
            KeyWork::LeakNow => format!(
                "{plan}The key is to be regenerated at once. That moment all {n} tokens die; each consumer is without \
                 a live one until its new one arrives, the last for about {takes}. Whoever has the key is out at once.\n"
            ),
        }
    }
}

/// How often progress is asked for.
const EVERY: Duration = Duration::from_millis(300);

/// Follows until every token of the old key is replaced and delivered. Ctrl-C leaves it running.
pub(super) async fn follow(
    client: &DaemonClient,
    clock: Clock,
    resource: &ResourceName,
    (patience, json): (Patience, bool),
) -> Outcome {
    let bar = bar(json);
    let mut told = None;
    let mut keys = client.keys(resource).await?;
    let mut followed = Followed::from((0, 0, 0), clock, patience);
    loop {
        let Some(change) = &keys.change else {
            return Err(Failed::plain(format!(
                "the daemon knows of no replacement of a key of {resource} any more"
            )));
        };
        if let Some(bar) = &bar {
            bar.set_length(all(change));
            bar.set_position(change.delivered + change.over);
            bar.set_message(stage(change.stage));
        }
        if !json && change.trouble != told {
            told.clone_from(&change.trouble);
            if let Some(trouble) = &told {
                output::aside(trouble);
            }
        }
        if change.reminted_at.is_some() || change.stage.is_over() {
            if let Some(bar) = &bar {
                bar.finish_and_clear();
            }
            return end(client, &keys, change, json).await;
        }
        followed.moved((change.issued, change.delivered, change.over));
        if let Some(why) = followed.ends() {
            if let Some(bar) = &bar {
                bar.finish_and_clear();
            }
            output::aside(&format!(
                "{why}: the replacement goes on in the daemon; `renewd key status {resource}` shows how far it is"
            ));
            if json {
                output::print_json(&keys)?;
            }
            return Ok(Exit::Unfinished);
        }
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => {
                output::aside(&format!(
                    "the replacement goes on in the daemon; `renewd key status {resource}` shows how far it is"
                ));
                return Ok(Exit::Done);
            }
            () = followed.over() => {}
            next = async {
                tokio::time::sleep(EVERY).await;
                through_restart(async || client.keys(resource).await).await
            } => keys = next?,
        }
    }
}

async fn end(
    client: &DaemonClient,
    keys: &ResourceKeys,
    change: &KeyChange,
    json: bool,
) -> Outcome {
    let gaps = Gaps::of(&everyone(client, &keys.resource).await?, Some(change));
    if json {
        output::print_json(&serde_json::json!({ "keys": keys, "gaps": gaps.json() }))?;
    } else {
        output::print(&words(keys, change, &gaps))?;
    }
    Ok(match change.stage {
        KeyStage::Refused | KeyStage::Cancelled => Exit::Failed,
        _ => Exit::Done,
    })
}

fn words(keys: &ResourceKeys, change: &KeyChange, gaps: &Gaps) -> String {
    let (role, resource) = (change.role, &keys.resource);
    match change.stage {
        KeyStage::Refused | KeyStage::Cancelled => format!(
            "{}: {}\n",
            paint(BAD, stage(change.stage)),
            change
                .trouble
                .as_deref()
                .unwrap_or("nothing is changed any more")
        ),
        KeyStage::Done => format!(
            "{} the {role} key of {resource} is replaced\n{gaps}",
            paint(GOOD, "done:")
        ),
        _ if !change.still_held.is_empty() => {
            let held: Vec<String> = change
                .still_held
                .iter()
                .map(|(sink, count)| format!("{count} of {sink}"))
                .collect();
            format!(
                "{} tokens replaced and delivered, but consumers still hold tokens of the old key ({}): their sink is \
                 disabled or behind. They are without a live token once the {role} key of {resource} is regenerated.\n{gaps}{}",
                change.delivered,
                held.join(", "),
                regenerate(keys, change)
            )
        }
        _ if change.refused_at.is_some() => format!(
            "{} tokens replaced and delivered; the old {role} key is refused.\n{gaps}Put the new one in place:\n{}",
            change.delivered,
            place(keys, change)
        ),
        _ => format!(
            "{} tokens replaced and delivered. {}\n{}Then put the new one in place:\n{}",
            change.delivered,
            paint(
                STRONG,
                format!("The {role} key of {resource} may be regenerated now:")
            ),
            regenerate(keys, change),
            place(keys, change)
        ),
    }
}

/// The line that regenerates the key at Azure.
pub(super) fn regenerate(keys: &ResourceKeys, change: &KeyChange) -> String {
    let line = keys.keys.iter().find(|key| key.role == change.role);
    line.map_or(String::new(), |key| format!("  {}\n", key.regenerate))
}

/// The line that puts the new key in place.
fn place(keys: &ResourceKeys, change: &KeyChange) -> String {
    let list = regenerate(keys, change)
        .trim()
        .replace("regenerate-key", "list-key")
        .replace(&format!(" --key-type {}", change.role), "");
    format!(
        "  {list} --query {}ConnectionString --output tsv | renewd key set {} --key {}\n",
        change.role, keys.resource, change.role
    )
}

/// A stage in words.
pub(super) fn stage(stage: KeyStage) -> &'static str {
    match stage {
        KeyStage::Checking => "the other key is proved",
        KeyStage::Reminting => "tokens are replaced and delivered",
        KeyStage::Regenerate => "the old key may be regenerated now",
        KeyStage::Replace => "the old key is refused; the new one is awaited",
        KeyStage::Done => "done",
        KeyStage::Refused => "refused",
        KeyStage::Cancelled => "called off",
    }
}

/// What is said before the first token is replaced.
pub(super) fn opening(keys: &ResourceKeys, change: &KeyChange) -> String {
    match change.work {
        KeyWork::LeakNow => format!(
            "{}\n{}",
            paint(
                BAD,
                format!(
                    "Regenerate the {} key now, tokens are already being replaced:",
                    change.role
                )
            ),
            regenerate(keys, change)
        ),
        KeyWork::Roll | KeyWork::Leak => String::new(),
    }
}

fn all(change: &KeyChange) -> u64 {
    change.pending + change.issued + change.delivered + change.over
}

fn bar(json: bool) -> Option<ProgressBar> {
    let bar = || output::bar("{bar:32.green} {pos}/{len} {msg}  {eta:.dim}");
    (!json).then(bar).flatten()
}

/// Every identity of the newest replacement.
pub(super) async fn everyone(
    client: &DaemonClient,
    resource: &ResourceName,
) -> Result<Vec<KeyItem>, Failed> {
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let page =
            through_restart(async || client.key_items(resource, after.as_deref()).await).await?;
        items.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(items),
        }
    }
}

/// A gap in words.
pub(super) fn gap(item: &KeyItem) -> String {
    match (item.gap_least_ms, item.gap_ms) {
        (_, None) if item.state == "ended" => "its token ended before it was replaced".to_owned(),
        (_, None) => String::new(),
        (_, Some(0)) => "none".to_owned(),
        (Some(0), Some(most)) => format!("unknown, at most {}", length(most)),
        (_, Some(most)) => length(most),
    }
}

fn length(ms: u64) -> String {
    match ms {
        ms if ms < 60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        ms => short_duration(Duration::from_millis(ms)),
    }
}

/// How long consumers were without a live token, by evidence.
pub(super) struct Gaps {
    /// At most, in milliseconds, of those that certainly had one; shortest first.
    certain: Vec<u64>,
    /// At most, of those of which it is not known whether they had one.
    possible: Vec<u64>,
    /// Those that certainly had none.
    none: usize,
    /// Tokens that ended before they were replaced.
    ended: usize,
    /// Those that wait for their new token, while the old key is refused.
    waiting: usize,
    /// Of how many nothing more is to be known.
    all: usize,
}

impl Gaps {
    pub(super) fn of(items: &[KeyItem], change: Option<&KeyChange>) -> Self {
        let refused = change.is_some_and(|change| change.refused_at.is_some());
        let mut gaps = Self {
            certain: Vec::new(),
            possible: Vec::new(),
            none: 0,
            ended: 0,
            waiting: 0,
            all: items.iter().filter(|item| item.gap_ms.is_some()).count(),
        };
        for item in items {
            match (item.gap_least_ms, item.gap_ms) {
                (_, Some(0)) => gaps.none += 1,
                (Some(0), Some(most)) => gaps.possible.push(most),
                (_, Some(most)) => gaps.certain.push(most),
                (_, None) if item.state == "ended" => gaps.ended += 1,
                (_, None) if refused && matches!(&*item.state, "pending" | "issued") => {
                    gaps.waiting += 1;
                }
                (_, None) => {}
            }
        }
        gaps.certain.sort_unstable();
        gaps.possible.sort_unstable();
        gaps
    }

    /// At most, of all that had a gap or may have had one.
    fn any(&self) -> Vec<u64> {
        let mut any: Vec<u64> = self.certain.iter().chain(&self.possible).copied().collect();
        any.extend(std::iter::repeat_n(0, self.none));
        any.sort_unstable();
        any
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let any = self.any();
        serde_json::json!({
            "identities": self.all,
            "with_a_gap": self.certain.len() + self.possible.len(),
            "unknown": self.possible.len(),
            "ended": self.ended,
            "waiting": self.waiting,
            "median_ms": at(&any, 50),
            "longest_ms": at(&any, 100),
        })
    }
}

fn at(gaps: &[u64], percent: usize) -> u64 {
    let last = gaps.len().saturating_sub(1);
    gaps.get(last * percent / 100).copied().unwrap_or(0)
}

impl std::fmt::Display for Gaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.certain.is_empty() && self.possible.is_empty() && self.ended + self.waiting == 0 {
            return writeln!(f, "No consumer was without a live token.");
        }
        if !self.certain.is_empty() {
            writeln!(
                f,
                "{} consumers were without a live token: half of them for at most {}, the longest {}.",
                self.certain.len(),
                length(at(&self.certain, 50)),
                length(at(&self.certain, 100))
            )?;
        }
        if !self.possible.is_empty() {
            writeln!(
                f,
                "Of {} consumers it is unknown whether they were without a live token: at most for {}.",
                self.possible.len(),
                length(at(&self.possible, 100))
            )?;
        }
        if self.waiting > 0 {
            writeln!(
                f,
                "{} consumers are without a live token: the old key is refused, and their new one is on its way.",
                self.waiting
            )?;
        }
        if self.ended > 0 {
            writeln!(
                f,
                "{} tokens ended by themselves before they could be replaced.",
                self.ended
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::client::wire::KeyStanding;

    fn keys(tokens: u64) -> ResourceKeys {
        let line = |role: KeyRole, tokens| KeyLine {
            role,
            fingerprint: "0123456789ab".to_owned(),
            standing: KeyStanding::Accepted,
            tokens,
            regenerate: String::new(),
        };
        ResourceKeys {
            doubts: Vec::new(),
            none_works: None,
            bearer: None,
            resource: "contoso".parse().unwrap(),
            in_use: KeyRole::Primary,
            keys: vec![line(KeyRole::Primary, tokens), line(KeyRole::Secondary, 0)],
            issues_per_minute: 1940,
            change: None,
        }
    }

    #[test]
    fn a_hundred_thousand_take_most_of_an_hour() {
        let keys = keys(100_000);
        let price = Price::of(&keys, None).unwrap();
        let words = price.words(KeyWork::Leak);
        assert!(words.contains("about 51m 33s more"), "{words}");
        let words = price.words(KeyWork::LeakNow);
        assert!(words.contains("all 100000 tokens die"), "{words}");
    }
}
