//! What a bulk operation would do, for `--dry-run` and before it asks.

use crate::{
    api::client::wire::{CampaignAction, CampaignPlan},
    model::Then,
};

use super::{Task, counted};

pub(super) fn render(plan: &CampaignPlan, task: Task) -> String {
    let mut text = format!("{} would be {}\n", counted(plan.total), task.verb);
    if plan.unmanaged > 0 {
        text.push_str(&format!(
            "  {} ids that renewd does not manage\n",
            plan.unmanaged
        ));
    }
    let states: Vec<String> = plan
        .states
        .iter()
        .map(|(state, n)| format!("{n} {state}"))
        .collect();
    if !states.is_empty() {
        text.push_str(&format!("  now: {}\n", states.join(", ")));
    }
    for (name, part) in &plan.resources {
        let limit = part
            .limit
            .as_ref()
            .map_or(String::new(), |limit| format!(" at {limit}"));
        text.push_str(&format!(
            "  resource {name}: {}, at least {}{limit}\n",
            part.items,
            span(part.seconds)
        ));
    }
    for (why, n) in &plan.skipped {
        text.push_str(&format!("  left out: {n} {why}\n"));
    }
    if plan.total > 0 {
        text.push_str(&format!("  apps: {}\n", noticed(task)));
    }
    text
}

/// What apps notice of it.
fn noticed(task: Task) -> &'static str {
    match (task.action, task.then) {
        (CampaignAction::Revoke, Some(Then::Hold)) => {
            "their token is withdrawn, then refused by ACS (within 15 minutes); none follows until release"
        }
        (CampaignAction::Revoke, _) => {
            "their token is refused by ACS (within 15 minutes); the next one is delivered at once"
        }
        (CampaignAction::Hold, _) => {
            "their token is withdrawn; ACS accepts copies of it until it expires (revoke --then hold ends them)"
        }
        (CampaignAction::Release, _) => "they get a token again",
        (CampaignAction::Renew, _) => "nothing: the old token stays good until it expires",
        (CampaignAction::Delete, _) => {
            "the identity is gone for good with its chats; its tokens are refused and never come back"
        }
    }
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "a moment".to_owned(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::client::wire::PlannedResource, model::State};

    #[test]
    fn it_says_how_many_how_long_and_what_apps_notice() {
        let part = PlannedResource {
            items: 100_000,
            limit: Some("500/30s".to_owned()),
            seconds: 6180.0,
        };
        let plan = CampaignPlan {
            total: 100_000,
            resources: [("contoso".parse().unwrap(), part)].into(),
            states: [(State::Active, 99_990), (State::Late, 9)].into(),
            unmanaged: 1,
            skipped: [("deleted".to_owned(), 7)].into(),
            seconds: 6180.0,
        };
        let task = Task::new(CampaignAction::Revoke, Some(Then::Reissue), "revoked");
        insta::assert_snapshot!(render(&plan, task), @r"
        100000 identities would be revoked
          1 ids that renewd does not manage
          now: 99990 active, 9 late
          resource contoso: 100000, at least 103 min at 500/30s
          left out: 7 deleted
          apps: their token is refused by ACS (within 15 minutes); the next one is delivered at once
        ");
    }
}
