//! What the bulk verbs share: which identities, what it would do, asking before much is done, starting
//! the campaign, following it.

mod ids;
mod progress;

use std::path::PathBuf;

use crate::{
    api::client::{
        Client,
        wire::{CampaignAction, CampaignPlan, NewCampaign},
    },
    clock::Clock,
    model::{Name, ResourceName, Then, Timestamp},
};

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Failed, Outcome},
    output,
};
use ids::Listed;
pub(crate) use progress::failed;
pub(crate) use progress::follow;
use progress::said;

/// More than so many are asked about.
const MANY: u64 = 100;

/// Which identities, and what goes with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Chosen {
    /// The identities
    #[arg(required_unless_present_any = ["all", "select", "ids"])]
    names: Vec<Name>,
    /// Every identity
    #[arg(long, conflicts_with_all = ["names", "select", "ids"])]
    all: bool,
    /// Those that match, such as "label.team = 'guest' and state in (late, held)"
    #[arg(long, value_name = "EXPR", conflicts_with_all = ["names", "ids"])]
    select: Option<String>,
    /// Names or ACS ids from a file, `-` for standard input: one per line, CSV or JSON lines
    #[arg(long, value_name = "FILE", conflicts_with = "names")]
    ids: Option<PathBuf>,
    /// Whose ACS ids these are, where there are several resources
    #[arg(long, value_name = "NAME", requires = "ids")]
    resource: Option<ResourceName>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Before everything but renewals that are urgent themselves
    #[arg(long)]
    urgent: bool,
    #[command(flatten)]
    how: How,
}

/// How a bulk command goes about it.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct How {
    /// Say what it would do, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave it running in the daemon and return at once
    #[arg(long)]
    detach: bool,
    /// Do not ask before doing it to more than 100 or to all, or before deleting
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON document: what it would do, or the campaign
    #[arg(long)]
    json: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub(crate) action: CampaignAction,
    pub(crate) then: Option<Then>,
    /// In the past tense: `revoked`.
    pub(crate) verb: &'static str,
    /// Not before.
    pub(crate) starts_at: Option<Timestamp>,
}

impl Task {
    pub(crate) fn new(action: CampaignAction, then: Option<Then>, verb: &'static str) -> Self {
        Self {
            action,
            then,
            verb,
            starts_at: None,
        }
    }
}

/// Does it to what was chosen and follows it to its end.
pub(crate) async fn run(context: Context, chosen: Chosen, task: Task) -> Outcome {
    let (how, all, new) = (chosen.how, chosen.all, asked(chosen, task)?);
    let client = daemon(context.socket);
    carry_out(&client, context.clock, (new, all), how, task).await
}

/// Asks where it is much or where `all` are meant, starts the campaign and follows it to its end.
pub(crate) async fn carry_out(
    client: &Client,
    clock: Clock,
    (new, all): (NewCampaign, bool),
    how: How,
    task: Task,
) -> Outcome {
    let sure = how.yes || !(all || task.action == CampaignAction::Delete || is_many(&new));
    if how.dry_run || !sure {
        let plan = client.plan_campaign(&new).await?;
        if how.dry_run {
            return shown(&plan, task, how.json);
        }
        confirmed(&plan, task, all)?;
    }
    let started = client.start_campaign(&new).await?;
    if how.detach || task.starts_at.is_some() {
        return said(&started, how.json);
    }
    follow(client, clock, started, task.verb, how.json).await
}

/// A selection may mean many: only the plan knows.
fn is_many(new: &NewCampaign) -> bool {
    new.select.is_some() || (new.names.len() + new.ids.len()) as u64 > MANY
}

fn shown(plan: &CampaignPlan, task: Task, json: bool) -> Outcome {
    if json {
        output::print_json(plan)?;
    } else {
        output::print(&progress::render(plan, task))?;
    }
    Ok(Exit::Done)
}

/// Shows what would be done and asks, where it is much.
fn confirmed(plan: &CampaignPlan, task: Task, all: bool) -> Result<(), Failed> {
    let always = all || task.action == CampaignAction::Delete;
    if plan.total <= MANY && !always && plan.total > 0 && plan.seconds < 60.0 {
        return Ok(());
    }
    output::aside(progress::render(plan, task).trim_end());
    if plan.total == 0 {
        return Ok(());
    }
    let question = format!("{} will be {}. Go on?", counted(plan.total), task.verb);
    if output::confirm(&question)? {
        return Ok(());
    }
    let why = format!(
        "nothing was done: {} were not confirmed",
        counted(plan.total)
    );
    Err(Failed::usage(why).hint("add --yes where nobody can answer"))
}

pub(crate) fn counted(n: u64) -> String {
    match n {
        1 => "1 identity".to_owned(),
        n => format!("{n} identities"),
    }
}

fn asked(chosen: Chosen, task: Task) -> Result<NewCampaign, Failed> {
    let Listed { names, ids } = match &chosen.ids {
        Some(path) => ids::read(path)?,
        None => Listed {
            names: chosen.names,
            ids: Vec::new(),
        },
    };
    Ok(NewCampaign {
        names,
        ids,
        resource: chosen.resource,
        select: chosen.select,
        all: chosen.all,
        urgent: chosen.urgent,
        starts_at: task.starts_at,
        reason: chosen.reason,
        ..NewCampaign::new(task.action, task.then)
    })
}

/// What a person told to do to exactly these, now; for commands made of several.
pub(crate) async fn start(
    client: &Client,
    task: Task,
    names: &[Name],
    reason: Option<&str>,
) -> Result<crate::api::client::wire::CampaignProgress, Failed> {
    let new = NewCampaign {
        names: names.to_vec(),
        starts_at: task.starts_at,
        reason: reason.map(str::to_owned),
        ..NewCampaign::new(task.action, task.then)
    };
    Ok(client.start_campaign(&new).await?)
}
