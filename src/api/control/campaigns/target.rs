//! What a campaign is to work on: names, ids and expressions are understood before anything is done.

use super::super::super::{
    handle::Api,
    problem::{Problem, ProblemType},
    wire,
};
use crate::{
    model::{IdentityId, Name, ResourceName, Selection},
    store::Wanted,
};

/// Names are looked up so many at a time.
const CHUNK: usize = 1000;
/// So many of what is unknown are named.
const NAMED: usize = 10;

/// What was chosen, all of it known.
#[derive(Debug)]
pub(super) enum Chosen {
    All,
    Select(Selection),
    Listed(Vec<Wanted>),
}

pub(super) async fn chosen(api: &Api, asked: &wire::NewCampaign) -> Result<Chosen, Problem> {
    if asked.all {
        return Ok(Chosen::All);
    }
    if let Some(text) = &asked.select {
        return match Selection::parse(text) {
            Ok(selection) => Ok(Chosen::Select(selection)),
            Err(error) => Err(Problem::new(ProblemType::Invalid, error.explain(text))),
        };
    }
    let mut items = rows(api, &asked.names).await?;
    if !asked.ids.is_empty() {
        let resource = resource(api, asked.resource.as_ref())?;
        for some in asked.ids.chunks(CHUNK) {
            let owners = api.store.owners(some.to_vec()).await?;
            let wanted = |id: &IdentityId| match owners.get(id) {
                Some(num) => Wanted::Row(*num),
                None => Wanted::Id(resource.clone(), id.clone()),
            };
            items.extend(some.iter().map(wanted));
        }
    }
    Ok(Chosen::Listed(items))
}

async fn rows(api: &Api, names: &[Name]) -> Result<Vec<Wanted>, Problem> {
    let (mut items, mut unknown) = (Vec::with_capacity(names.len()), Vec::new());
    for some in names.chunks(CHUNK) {
        let found = api.store.records(some).await?;
        let known: std::collections::BTreeSet<&Name> =
            found.iter().map(|row| &row.spec.name).collect();
        unknown.extend(some.iter().filter(|name| !known.contains(name)));
        items.extend(found.iter().map(|row| Wanted::Row(row.num)));
    }
    if unknown.is_empty() {
        return Ok(items);
    }
    let some: Vec<&str> = unknown
        .iter()
        .take(NAMED)
        .map(|name| name.as_str())
        .collect();
    let why = format!(
        "unknown: {} ({} of {} names); nothing was done",
        some.join(", "),
        unknown.len(),
        names.len()
    );
    Err(Problem::new(ProblemType::Unknown, why))
}

/// Whose the ids are.
fn resource(api: &Api, named: Option<&ResourceName>) -> Result<ResourceName, Problem> {
    let shared_state = api.shared_state();
    let mut known = shared_state.renewers.keys();
    let why = match (named, known.next(), known.next()) {
        (Some(name), ..) if shared_state.renewers.contains_key(name) => return Ok(name.clone()),
        (Some(name), ..) => format!("there is no resource {name}"),
        (None, Some(only), None) => return Ok(only.clone()),
        (None, ..) => {
            "there are several resources: say whose ids these are with resource".to_owned()
        }
    };
    Err(Problem::new(ProblemType::Invalid, why))
}
