//! Follows the replacement of a key until the operator has something to do, or all is done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::super::{
    daemon::through_restart,
    exit::{Exit, Failed, Outcome},
    output::{self, BAD, GOOD, STRONG, paint},
};
use crate::{
    api::client::{
        Client,
        wire::{KeyChange, KeyItem, KeyStage, KeyWork, ResourceKeys},
    },
    model::{ResourceName, short_duration},
};

/// How often progress is asked for.
const EVERY: Duration = Duration::from_millis(300);

/// Follows until every token of the old key is replaced and delivered. Ctrl-C leaves it running.
pub(super) async fn follow(client: &Client, resource: &ResourceName, json: bool) -> Outcome {
    let bar = bar(json);
    let mut told = None;
    let mut keys = client.keys(resource).await?;
    loop {
        let Some(change) = &keys.change else {
            return Err(Failed::plain("the replacement is not there any more"));
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
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => {
                output::aside(&format!("it goes on in the daemon: renewd key status {resource}"));
                return Ok(Exit::Done);
            }
            next = async {
                tokio::time::sleep(EVERY).await;
                through_restart(async || client.keys(resource).await).await
            } => keys = next?,
        }
    }
}

async fn end(client: &Client, keys: &ResourceKeys, change: &KeyChange, json: bool) -> Outcome {
    let gaps = Gaps::of(&everyone(client, &keys.resource).await?);
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
    (output::on_terminal() && !json).then(|| {
        let bar = ProgressBar::no_length();
        if let Ok(style) =
            ProgressStyle::with_template("{bar:32.green} {pos}/{len} {msg}  {eta:.dim}")
        {
            bar.set_style(style);
        }
        bar
    })
}

/// Every identity of the newest replacement.
pub(super) async fn everyone(
    client: &Client,
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
pub(super) fn gap(ms: u64) -> String {
    match ms {
        0 => "none".to_owned(),
        ms if ms < 60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        ms => short_duration(Duration::from_millis(ms)),
    }
}

/// How long consumers were without a live token, in milliseconds, shortest first.
pub(super) struct Gaps(Vec<u64>);

impl Gaps {
    pub(super) fn of(items: &[KeyItem]) -> Self {
        let mut gaps: Vec<u64> = items.iter().filter_map(|item| item.gap_ms).collect();
        gaps.sort_unstable();
        Self(gaps)
    }

    fn at(&self, percent: usize) -> u64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * percent / 100).copied().unwrap_or(0)
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "identities": self.0.len(),
            "with_a_gap": self.0.iter().filter(|gap| **gap > 0).count(),
            "median_ms": self.at(50),
            "longest_ms": self.at(100),
        })
    }
}

impl std::fmt::Display for Gaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let with = self.0.iter().filter(|gap| **gap > 0).count();
        if with == 0 {
            return writeln!(f, "No consumer was without a live token.");
        }
        let words = gap;
        writeln!(
            f,
            "{with} consumers were without a live token: half of them for at most {}, the longest {}.",
            words(self.at(50)),
            words(self.at(100))
        )
    }
}
