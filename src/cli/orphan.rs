//! `renewd orphan`: tokens and identities that may exist at ACS without a record, because an answer was lost or
//! came too late; campaigns over their ids clear them up.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    Context,
    bulk::{self, How, Task},
    daemon::daemon,
    exit::{Exit, Failed, Outcome},
    output::{self, Cell, STRONG, Table, relative},
};
use crate::{
    api::client::{
        DaemonClient,
        wire::{CampaignAction, CampaignRequest, DismissOrphans, Orphan as Row},
    },
    model::{IdentityId, Num, ResourceName, Then},
};

/// Show what may exist at ACS without a record, and clear it up
#[derive(Debug, clap::Args)]
pub(crate) struct Orphan {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them; a token leaves the list when it expires
    List(List),
    /// Revoke all tokens of the identities that they belong to
    Revoke(Revoke),
    /// Delete identities that nobody uses at ACS
    Delete(Delete),
    /// Take them off the list without calling ACS
    Dismiss(Dismiss),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Dismiss {
    /// Their numbers, from `renewd orphan list`
    #[arg(required = true, value_name = "NUMBER")]
    numbers: Vec<Num>,
    /// Why, for the audit trail
    #[arg(long)]
    reason: Option<String>,
}

impl Orphan {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::List(verb) => verb.run(context).await,
            Verb::Revoke(verb) => verb.run(context).await,
            Verb::Delete(verb) => verb.run(context).await,
            Verb::Dismiss(verb) => verb.run(context).await,
        }
    }
}

impl List {
    async fn run(self, context: Context) -> Outcome {
        let orphans = all(&daemon(context.socket)).await?;
        if self.json {
            output::print_json(&serde_json::json!({ "orphans": orphans }))?;
        } else {
            output::print(&render(&orphans, context.clock.now(), output::width()))?;
        }
        Ok(Exit::Done)
    }
}

impl Dismiss {
    async fn run(self, context: Context) -> Outcome {
        let dismiss = DismissOrphans {
            nums: self.numbers,
            reason: self.reason,
        };
        let answer = daemon(context.socket).dismiss_orphans(&dismiss).await?;
        output::print(&format!("taken off the list: {}\n", answer.dismissed))?;
        Ok(Exit::Done)
    }
}

async fn all(client: &DaemonClient) -> Result<Vec<Row>, Failed> {
    let (mut orphans, mut after) = (Vec::new(), None);
    loop {
        let page = client.orphans(after.as_deref()).await?;
        orphans.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(orphans),
        }
    }
}

fn render(orphans: &[Row], now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&[
        ">NO",
        "WHAT",
        "MADE FOR",
        "RESOURCE",
        "NOTICED",
        "UNTIL",
        "ID",
        "REQUEST ID",
    ]);
    for orphan in orphans {
        let id = orphan.id.as_ref().map(ToString::to_string);
        table.row([
            orphan.num.to_string().into(),
            Cell::styled(&orphan.kind, STRONG),
            orphan.name.as_str().into(),
            orphan.resource.as_str().into(),
            relative(orphan.at, now).into(),
            until(orphan, now).into(),
            id.unwrap_or_else(|| "not known".to_owned()).into(),
            orphan.request_id.clone().unwrap_or_default().into(),
        ]);
    }
    match table.is_empty() {
        true => "nothing is known to exist at ACS without a record\n".to_owned(),
        false => table.render(0, width),
    }
}

/// How long it stays on the list.
fn until(orphan: &Row, now: Timestamp) -> String {
    match (orphan.kind.as_str(), orphan.expires_at, orphan.revoked_at) {
        ("identity", _, Some(_)) => "deleted (its tokens are revoked)".to_owned(),
        ("identity", ..) => "deleted".to_owned(),
        (_, Some(at), _) => relative(at, now),
        (_, None, _) => "dismissed".to_owned(),
    }
}

/// Revoke all tokens of the identities that they belong to
#[derive(Debug, clap::Args)]
#[command(
    after_help = "An identity that renewd manages gets a new token at once; one that it does not manage stays at ACS without tokens until `renewd orphan delete`."
)]
struct Revoke {
    #[command(flatten)]
    which: Which,
}

/// Delete identities at ACS that no record names
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Tokens cannot be deleted, and identities that renewd manages are deleted by `renewd identity delete`."
)]
struct Delete {
    #[command(flatten)]
    which: Which,
}

/// Which orphans, and how.
#[derive(Debug, clap::Args)]
struct Which {
    /// Their numbers, from `renewd orphan list`
    #[arg(required_unless_present = "all", value_name = "NUMBER")]
    numbers: Vec<Num>,
    /// All of the list that it can be done to
    #[arg(long, conflicts_with = "numbers")]
    all: bool,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    how: How,
}

impl Revoke {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Revoke, Some(Then::Reissue), "revoked");
        self.which.carry_out(context, task).await
    }
}

impl Delete {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Delete, None, "deleted");
        self.which.carry_out(context, task).await
    }
}

impl Which {
    /// A campaign for each resource; nothing is begun where one of the numbers cannot be meant.
    async fn carry_out(self, context: Context, task: Task) -> Outcome {
        let client = daemon(context.socket);
        let chosen = self.chosen(all(&client).await?, task.action)?;
        if chosen.is_empty() {
            output::print(&format!("there are no orphans that can be {}\n", task.verb))?;
            return Ok(Exit::Done);
        }
        let mut worst = Exit::Done;
        for (resource, ids) in chosen {
            let new = CampaignRequest {
                ids,
                resource: Some(resource),
                reason: self.reason.clone(),
                ..CampaignRequest::new(task.action, task.then)
            };
            if task.action == CampaignAction::Delete {
                let (plan, meant) = (client.plan_campaign(&new).await?, new.ids.len() as u64);
                refuse_managed(plan.unmanaged, meant)?;
            }
            let (new, clock) = ((new, self.all), context.clock.clone());
            let ended = bulk::carry_out(&client, clock, new, self.how, task).await?;
            if ended != Exit::Done {
                worst = ended;
            }
        }
        Ok(worst)
    }

    /// The ids of those that are meant, each once, by resource.
    fn chosen(
        &self,
        listed: Vec<Row>,
        action: CampaignAction,
    ) -> Result<BTreeMap<ResourceName, Vec<IdentityId>>, Failed> {
        for number in &self.numbers {
            if listed.iter().all(|orphan| orphan.num != *number) {
                let why = format!("there is no orphan {number}, so nothing was done");
                return Err(Failed::usage(why).hint("`renewd orphan list` shows which there are"));
            }
        }
        let mut chosen: BTreeMap<ResourceName, Vec<IdentityId>> = BTreeMap::new();
        for orphan in listed {
            if !self.all && !self.numbers.contains(&orphan.num) {
                continue;
            }
            match (meant(&orphan, action), orphan.id) {
                (Ok(()), Some(id)) => {
                    let ids = chosen.entry(orphan.resource).or_default();
                    if !ids.contains(&id) {
                        ids.push(id);
                    }
                }
                (Err(why), _) if self.all => {
                    output::aside(&format!("left out: orphan {} {why}", orphan.num));
                }
                (Err(why), _) => {
                    let why = format!("orphan {} {why}; so nothing was done", orphan.num);
                    return Err(Failed::usage(why));
                }
                (Ok(()), None) => {}
            }
        }
        Ok(chosen)
    }
}

/// Whether an action can be done to an orphan; why not.
fn meant(orphan: &Row, action: CampaignAction) -> Result<(), String> {
    if orphan.id.is_none() {
        let request = orphan.request_id.as_deref().unwrap_or("not known");
        return Err(format!(
            "has no known id, so ACS cannot be asked (request id: {request}): `renewd orphan dismiss {}` takes it off the list",
            orphan.num
        ));
    }
    if action == CampaignAction::Delete && orphan.kind == "token" {
        return Err(format!(
            "is a token of {}, which renewd manages: `renewd orphan revoke {}` revokes it",
            orphan.name, orphan.num
        ));
    }
    if action == CampaignAction::Revoke && orphan.revoked_at.is_some() {
        return Err("has no tokens left: they are revoked".to_owned());
    }
    Ok(())
}

fn refuse_managed(unmanaged: u64, meant: u64) -> Result<(), Failed> {
    if unmanaged == meant {
        return Ok(());
    }
    let why = format!(
        "renewd manages {} of these identities now, so nothing was done",
        meant - unmanaged
    );
    Err(Failed::usage(why).hint("`renewd identity delete NAME` deletes those"))
}
