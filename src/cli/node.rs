//! `renewd node`: the machines of a cluster; lets another one lead, and forgets one that is gone.

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output::{self, BAD, Cell, DIM, GOOD, STRONG, Table, WARN, ago, relative},
};
use crate::{
    api::client::wire::{AskNode, Nodes},
    model::{NodeName, NodeRow, differing_parts},
};

/// List the machines of a cluster, let another one lead, forget one that is gone
#[derive(Debug, clap::Args)]
pub(crate) struct Node {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List all machines: who leads, who is there, how their clocks and configurations are
    List(List),
    /// Let another machine lead, and keep this one from it until --end
    ///
    /// Before a machine is stopped or upgraded: another one takes over at once instead of after the lease.
    Drain(Drain),
    /// Forget a machine that will not come back, with what only it knew
    Forget(Forget),
}

impl Node {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::List(verb) => verb.run(context).await,
            Verb::Drain(verb) => verb.run(context).await,
            Verb::Forget(verb) => verb.run(context).await,
        }
    }
}

/// List all machines
#[derive(Debug, clap::Args)]
struct List {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl List {
    async fn run(self, context: Context) -> Outcome {
        let nodes = daemon(context.socket).nodes().await?;
        show(&nodes, self.json)
    }
}

/// Let another machine lead, and keep this one from it until --end
#[derive(Debug, clap::Args)]
struct Drain {
    /// The machine, as `renewd node list` names it
    node: NodeName,
    /// It may lead again
    #[arg(long)]
    end: bool,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Drain {
    async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let ask = AskNode {
            reason: self.reason,
        };
        let nodes = match self.end {
            true => client.undrain_node(&self.node, &ask).await?,
            false => client.drain_node(&self.node, &ask).await?,
        };
        if self.json {
            return show(&nodes, true);
        }
        let node = &self.node;
        let led = nodes.leader.as_ref() == Some(node);
        output::print(&match (self.end, led) {
            (true, _) => format!("{node} may lead again\n"),
            (false, true) => format!(
                "{node} stops leading within seconds; `renewd node drain --end {node}` ends this\n"
            ),
            (false, false) => {
                format!("{node} will not lead; `renewd node drain --end {node}` ends this\n")
            }
        })?;
        Ok(Exit::Done)
    }
}

/// Forget a machine that will not come back, with what only it knew
#[derive(Debug, clap::Args)]
struct Forget {
    /// The machine, as `renewd node list` names it; renewd no longer runs there
    node: NodeName,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Forget {
    async fn run(self, context: Context) -> Outcome {
        let ask = AskNode {
            reason: self.reason,
        };
        let nodes = daemon(context.socket).forget_node(&self.node, &ask).await?;
        if self.json {
            return show(&nodes, true);
        }
        output::print(&format!("{} is forgotten\n", self.node))?;
        Ok(Exit::Done)
    }
}

fn show(nodes: &Nodes, json: bool) -> Outcome {
    match json {
        true => output::print_json(nodes)?,
        false => output::print(&render(nodes, output::width()))?,
    }
    Ok(Exit::Done)
}

fn render(of: &Nodes, width: Option<usize>) -> String {
    let mut table = Table::new(&[
        "NODE",
        "ROLE",
        "STATE",
        ">HEARD",
        ">CLOCK",
        "LACKS",
        "VERSION",
        "CONFIGURATION",
        "UP SINCE",
    ]);
    let leader = of.nodes.iter().find(|row| row.leads);
    let digest = leader.map(|row| row.digest.as_str());
    for row in &of.nodes {
        table.row(cells(row, of, digest));
    }
    let mut text = table.render(0, width);
    if let Some(trouble) = &of.trouble {
        text.push_str(&format!(
            "\nthis node has no valid heartbeat in the database, and this is what it knew last: {trouble}\n"
        ));
    }
    if leader.is_none() {
        text.push_str("\nno node leads: nothing is renewed or revoked\n");
    }
    text
}

fn cells(row: &NodeRow, of: &Nodes, digest: Option<&str>) -> [Cell; 9] {
    let role = match (row.leads, row.drained_at) {
        (true, _) => Cell::styled("leads", GOOD),
        (false, Some(_)) => Cell::styled("drained", WARN),
        (false, None) => "follows".into(),
    };
    let (state, style) = match row.alive {
        true => ("alive", GOOD),
        false => ("dead", BAD),
    };
    let offset = format!("{} ms", row.offset_ms);
    let clock = match row.clock_is_off() {
        true => Cell::styled(offset, BAD),
        false => offset.into(),
    };
    let lacks = match row.lacks {
        0 => Cell::styled("nothing", GOOD),
        some => Cell::styled(some.to_string(), BAD),
    };
    let of_all = row.digest.split('-').next().unwrap_or_default();
    let configuration = match digest {
        Some(leaders) if leaders != row.digest => {
            let parts = differing_parts(leaders, &row.digest).join(", ");
            let parts = if parts.is_empty() {
                parts
            } else {
                format!(": {parts}")
            };
            Cell::styled(format!("{of_all} (not the leader's{parts})"), WARN)
        }
        _ => Cell::styled(of_all, DIM),
    };
    [
        Cell::styled(row.name.as_str(), STRONG),
        role,
        Cell::styled(state, style),
        ago(row.heartbeat_at, of.at).into(),
        clock,
        lacks,
        row.version.as_str().into(),
        configuration,
        relative(row.since, of.at).into(),
    ]
}
