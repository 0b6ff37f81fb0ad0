//! `renewd orphan revoke | delete`: campaigns over the ids of what may exist without a record.

use std::collections::BTreeMap;

use crate::{
    api::client::wire::{CampaignAction, NewCampaign, Orphan},
    model::{IdentityId, Num, ResourceName, Then},
};

use super::{
    super::{
        Context,
        bulk::{self, How, Task},
        daemon::daemon,
        exit::{Exit, Failed, Outcome},
        output,
    },
    all,
};

/// Revoke all tokens of the identities that they belong to
#[derive(Debug, clap::Args)]
#[command(
    after_help = "An identity that renewd manages gets a new token at once; one that it does not manage stays at ACS without tokens until `renewd orphan delete`."
)]
pub(super) struct Revoke {
    #[command(flatten)]
    which: Which,
}

/// Delete identities at ACS that no record names
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Tokens cannot be deleted, and identities that renewd manages are deleted by `renewd identity delete`."
)]
pub(super) struct Delete {
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
            output::print(&format!("there is nothing to be {}\n", task.verb))?;
            return Ok(Exit::Done);
        }
        let mut worst = Exit::Done;
        for (resource, ids) in chosen {
            let new = NewCampaign {
                ids,
                resource: Some(resource),
                reason: self.reason.clone(),
                ..NewCampaign::new(task.action, task.then)
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
        listed: Vec<Orphan>,
        action: CampaignAction,
    ) -> Result<BTreeMap<ResourceName, Vec<IdentityId>>, Failed> {
        for number in &self.numbers {
            if listed.iter().all(|orphan| orphan.num != *number) {
                let why = format!("there is no orphan {number}; nothing was done");
                return Err(Failed::usage(why).hint("renewd orphan list shows them"));
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
                    output::aside(&format!("left out: {} {why}", orphan.num));
                }
                (Err(why), _) => {
                    let why = format!("orphan {} {why}; nothing was done", orphan.num);
                    return Err(Failed::usage(why));
                }
                (Ok(()), None) => {}
            }
        }
        Ok(chosen)
    }
}

/// Whether an action can be done to an orphan; why not.
fn meant(orphan: &Orphan, action: CampaignAction) -> Result<(), String> {
    if orphan.id.is_none() {
        let request = orphan.request_id.as_deref().unwrap_or("not known");
        return Err(format!(
            "has no known id, so ACS cannot be asked (request id: {request}); renewd orphan dismiss {} takes it off the list",
            orphan.num
        ));
    }
    if action == CampaignAction::Delete && orphan.kind == "token" {
        return Err(format!(
            "is a token of {}, which renewd manages: revoke it with renewd orphan revoke {}",
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
        "{} of these identities are managed by renewd now; nothing was done",
        meant - unmanaged
    );
    Err(Failed::usage(why).hint("renewd identity delete NAME deletes those"))
}
