//! The machines of a cluster over the socket: who there is, who leads, which should not, and which is gone for ever.

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};

use super::{
    admin::Admin,
    body::Body,
    connection::{ClientError, DaemonClient},
    endpoint::{EndpointAnswer, Json, endpoints},
    handle::Api,
    problem::{Problem, ProblemType},
    wire::Nodes,
};
use crate::model::{NameError, NodeName, NodeRow};

endpoints! {
    ListNodes: GET "/v1/nodes", () => Nodes;
    /// Lets another machine lead, and keeps this one from it until that is ended.
    DrainNode: POST "/v1/nodes/{name}/drain", AskNode => Nodes;
    /// Lets a machine lead again.
    UndrainNode: POST "/v1/nodes/{name}/undrain", AskNode => Nodes;
    /// Forgets a machine that will not come back.
    ForgetNode: POST "/v1/nodes/{name}/forget", AskNode => Nodes;
}

/// Why, for the audit trail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AskNode {
    #[serde(default)]
    pub reason: Option<String>,
}

/// What is known of the machines, and asked of the database where it answers.
async fn nodes(api: &Api) -> Result<Nodes, Problem> {
    let shared_state = api.shared_state();
    let Some(standing) = shared_state.cluster_standing() else {
        let why = "this renewd shares its store with no other: there is no [store] url";
        return Err(Problem::new(ProblemType::Unknown, why));
    };
    let mut known = Nodes::of(standing, api.clock.now());
    match api.store.nodes().await {
        Ok(nodes) => {
            let leader = nodes.iter().find(|row| row.leads);
            known.leader = leader.map(|row| row.name.clone());
            known.nodes = nodes;
        }
        Err(error) => known.trouble = Some(error.to_string()),
    }
    Ok(known)
}

pub(super) async fn list(State(api): State<Api>, _: Admin) -> EndpointAnswer<ListNodes> {
    Ok(Json(nodes(&api).await?))
}

pub(super) async fn drain(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Body(ask): Body<AskNode>,
) -> EndpointAnswer<DrainNode> {
    set_drained(&api, &admin, (name, ask), true).await
}

pub(super) async fn undrain(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Body(ask): Body<AskNode>,
) -> EndpointAnswer<UndrainNode> {
    set_drained(&api, &admin, (name, ask), false).await
}

async fn set_drained(
    api: &Api,
    admin: &Admin,
    (name, ask): (String, AskNode),
    drained: bool,
) -> Result<Json<Nodes>, Problem> {
    let known = nodes(api).await?;
    let name = named(&name)?;
    let own = known.nodes.iter().find(|row| row.name == name);
    let lacks = own.map_or(u32::MAX, |row| row.lacks);
    let is_able = |row: &NodeRow| {
        row.alive && row.drained_at.is_none() && row.name != name && row.lacks <= lacks
    };
    if drained && !known.nodes.iter().any(is_able) {
        let why = format!(
            "no other node could lead instead of {name}: each is drained, does not run, or lacks more than {name} does, \
             such as hosts of ACS that it does not reach"
        );
        return Err(Problem::new(ProblemType::Conflict, why));
    }
    let cause = admin.cause(api, ask.reason).await;
    let now = api.clock.now();
    if !api.store.drain_node(&name, drained, &cause, now).await? {
        return Err(unknown(&name));
    }
    Ok(Json(nodes(api).await?))
}

pub(super) async fn forget(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Body(ask): Body<AskNode>,
) -> EndpointAnswer<ForgetNode> {
    nodes(&api).await?;
    let (name, now) = (named(&name)?, api.clock.now());
    let cause = admin.cause(&api, ask.reason).await;
    if !api.store.forget_node(&name, &cause, now).await? {
        return Err(unknown(&name));
    }
    Ok(Json(nodes(&api).await?))
}

fn named(name: &str) -> Result<NodeName, Problem> {
    let parsed = name.parse();
    parsed.map_err(|error: NameError| Problem::new(ProblemType::Invalid, error.to_string()))
}

fn unknown(name: &NodeName) -> Problem {
    Problem::new(ProblemType::Unknown, format!("there is no node {name}"))
}

impl DaemonClient {
    /// The machines of the cluster.
    pub async fn nodes(&self) -> Result<Nodes, ClientError> {
        self.call(ListNodes, &[]).send().await
    }

    /// Lets another machine lead.
    pub async fn drain_node(&self, name: &NodeName, ask: &AskNode) -> Result<Nodes, ClientError> {
        self.call(DrainNode, &[name]).body(ask).send().await
    }

    /// Lets a machine lead again.
    pub async fn undrain_node(&self, name: &NodeName, ask: &AskNode) -> Result<Nodes, ClientError> {
        self.call(UndrainNode, &[name]).body(ask).send().await
    }

    /// Forgets a machine that will not come back.
    pub async fn forget_node(&self, name: &NodeName, ask: &AskNode) -> Result<Nodes, ClientError> {
        self.call(ForgetNode, &[name]).body(ask).send().await
    }
}
