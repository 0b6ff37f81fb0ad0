//! `renewd key status`.

use jiff::Timestamp;

use super::{
    super::{
        Context,
        daemon::daemon,
        exit::{Exit, Failed, Outcome},
        output::{self, BAD, DIM, GOOD, STRONG, paint, relative},
        table::{Cell, Table},
    },
    roll::{self, Gaps},
};
use crate::{
    api::client::{
        Client,
        wire::{KeyChange, KeyItem, KeyStage, KeyStanding, ResourceKeys},
    },
    model::{KeyDoubt, ResourceName},
};

/// Show the keys, what each minted, and how far a replacement is
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Only this resource
    resource: Option<ResourceName>,
    /// Each identity of the newest replacement, with the length of its gap
    #[arg(long, requires = "resource")]
    identities: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let keys = match &self.resource {
            Some(resource) => vec![client.keys(resource).await?],
            None => client.all_keys().await?,
        };
        let items = match &self.resource {
            Some(resource) if self.identities => Some(roll::everyone(&client, resource).await?),
            _ => None,
        };
        if self.json {
            let gaps = gaps(&client, &keys).await?;
            output::print_json(
                &serde_json::json!({ "resources": keys, "gaps": gaps, "identities": items }),
            )?;
            return Ok(Exit::Done);
        }
        let now = context.clock.now();
        for one in &keys {
            output::print(&render(one, now))?;
        }
        if let Some(items) = items {
            output::print(&list(&items, now, output::width()))?;
            let change = keys.first().and_then(|one| one.change.as_ref());
            output::print(&Gaps::of(&items, change).to_string())?;
        }
        Ok(Exit::Done)
    }
}

/// Of one resource alone: of all of them it would be many pages.
async fn gaps(client: &Client, keys: &[ResourceKeys]) -> Result<Option<serde_json::Value>, Failed> {
    match keys {
        [one] if one.change.is_some() => {
            let items = roll::everyone(client, &one.resource).await?;
            Ok(Some(Gaps::of(&items, one.change.as_ref()).json()))
        }
        _ => Ok(None),
    }
}

fn render(keys: &ResourceKeys, now: Timestamp) -> String {
    let mut table = Table::new(&["", "", "", ">", ""]);
    for key in &keys.keys {
        let (word, style) = match key.standing {
            KeyStanding::Untried => ("not tried yet", DIM),
            KeyStanding::Accepted => ("accepted", GOOD),
            KeyStanding::Denied => ("refused", BAD),
        };
        let signs = if key.role == keys.in_use { "signs" } else { "" };
        table.row([
            key.role.as_str().into(),
            key.fingerprint.as_str().into(),
            Cell::styled(word, style),
            format!("{} tokens", key.tokens).into(),
            Cell::styled(signs, STRONG),
        ]);
    }
    let mut text = format!("{}\n{}", keys.resource, table.render(2, None));
    let none = keys.none_works.iter().map(|none| none.told(&keys.resource));
    let doubts = keys.doubts.iter().filter(|doubt| doubt.tokens > 0);
    for trouble in none.chain(doubts.map(KeyDoubt::told)) {
        text.push_str(&format!("  {} {trouble}\n", paint(BAD, "!")));
    }
    if let Some(change) = &keys.change {
        text.push_str(&progress(keys, change, now));
    }
    text
}

fn progress(keys: &ResourceKeys, change: &KeyChange, now: Timestamp) -> String {
    let all = change.pending + change.issued + change.delivered + change.over;
    let mut text = format!(
        "  replacement of the {} key {}, begun {} by {}: {}\n  {} of {all} tokens replaced and delivered, {} not yet \
         delivered, {} to be replaced\n",
        change.role,
        change.old_key,
        relative(change.started_at, now),
        change.actor,
        roll::stage(change.stage),
        change.delivered + change.over,
        change.issued,
        change.pending,
    );
    if let Some(trouble) = &change.trouble {
        text.push_str(&format!("  {trouble}\n"));
    }
    if change.stage == KeyStage::Regenerate {
        text.push_str(&roll::regenerate(keys, change));
    }
    text
}

fn list(items: &[KeyItem], now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&["IDENTITY", "STATE", "DELIVERED", ">GAP"]);
    for item in items {
        let gap = roll::gap(item);
        table.row([
            item.name.as_str().into(),
            item.state.as_str().into(),
            item.delivered_at
                .map_or(String::new(), |at| relative(at, now))
                .into(),
            gap.into(),
        ]);
    }
    table.render(0, width)
}
