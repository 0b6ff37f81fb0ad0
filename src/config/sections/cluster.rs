//! `[cluster]`: which machine this is among those that share a database; and `nodes`, where a sink or a source is at
//! home.

use super::{
    super::{
        ClusterSettings, Environment,
        keys::{
            Key,
            Preset::{Is, Said},
            Table, Takes, key,
        },
        problem::{Note, ProblemReport},
        quantity::quoted,
        reader::{Item, Located, Section},
    },
    daemon::instance_of,
};
use crate::model::{ClusterName, NodeName, NodePattern};

pub(super) static CLUSTER: Table = Table {
    name: "cluster",
    header: "[cluster]",
    says: "Machines that share one database, where [store] has a `url`. What is said here and below must be the same on all of them, but for `node`, [daemon], paths and `nodes`.",
    groups: &[&[
        key(
            "name",
            Takes::Name,
            Is("\"renewd\""),
            "\"production\"",
            "What they have in common: the `source` of events where `instance` is not set, and whose the database is.",
        )
        .restart(),
        key(
            "node",
            Takes::Name,
            Said("the host's name"),
            "\"web-1\"",
            "This machine, different on each.",
        )
        .restart(),
        NODES.again(
            Said("any"),
            "[\"web-1\", \"web-2\", \"web-3\"]",
            "Which machines may join: names, or patterns such as \"web-*\".",
        )
        .restart(),
    ]],
};

pub(super) const NODES: Key = key(
    "nodes",
    Takes::Names,
    Said("all"),
    "[\"web-*\"]",
    "In a cluster, on which of its machines: names, or patterns such as \"web-*\".",
);

/// What stands under `nodes`, and where.
pub(in super::super) type Nodes = Option<Located<Vec<NodePattern>>>;

/// `[cluster]` as it was read, and where this machine's name stands.
#[derive(Debug)]
pub(in super::super) struct Draft {
    pub(in super::super) settings: ClusterSettings,
    head: super::super::tree::Span,
}

impl ClusterSettings {
    /// What holds where nothing is said.
    fn of_host(environment: &Environment) -> Option<Self> {
        Some(Self {
            name: CLUSTER.preset("name", |text| text.trim_matches('"').parse().ok()),
            node: instance_of(environment.host()).parse().ok()?,
            nodes: Vec::new(),
        })
    }
}

/// Reads `[cluster]`, where it is said; and what holds where it is not.
pub(super) fn read(
    section: Option<Section<'_>>,
    environment: &Environment,
) -> (Option<Draft>, Option<ClusterSettings>) {
    let of_host = ClusterSettings::of_host(environment);
    let draft = section.and_then(|mut section| {
        let head = section.head();
        let name = section.optional("name").map(Item::name::<ClusterName>);
        let node = section.optional("node").map(Item::name::<NodeName>);
        let nodes = section.optional("nodes").and_then(nodes);
        section.finish();
        let of_host = of_host.clone()?;
        let settings = ClusterSettings {
            name: name.map_or(Some(of_host.name), |name| Some(name?.value))?,
            node: node.map_or(Some(of_host.node), |node| Some(node?.value))?,
            nodes: nodes.map(|nodes| nodes.value).unwrap_or_default(),
        };
        Some(Draft { settings, head })
    });
    (draft, of_host)
}

/// What stands under `nodes` of a section.
pub(super) fn nodes(item: Item<'_>) -> Nodes {
    let names = item.items()?.filter_map(Item::name::<NodePattern>);
    let patterns: Vec<NodePattern> = names.map(|name| name.value).collect();
    match patterns.is_empty() {
        true => item.unlike_sample("`nodes` names no machine"),
        false => Some(item.at(patterns)),
    }
}

impl Draft {
    /// Tells where this machine may not join, or where there is nothing to share.
    pub(in super::super) fn check(&self, is_shared: bool, report: &ProblemReport) {
        if !is_shared {
            let note = Note::error(
                self.head,
                "a cluster shares a database, and this store is a file of this machine",
            );
            report.add(
                note.hint("give [store] a `url`, or take [cluster] out")
                    .absence(),
            );
        }
        let ClusterSettings { node, nodes, .. } = &self.settings;
        if !nodes.is_empty() && !nodes.iter().any(|pattern| pattern.is_of(node)) {
            let shown = quoted(node.as_str());
            let shown = shown.as_deref().unwrap_or("this machine");
            let note = Note::error(
                self.head,
                format!("`nodes` does not name {shown}, which is this machine"),
            );
            report.add(note.hint("add it, or say `node`: without it the host's name counts"));
        }
    }
}

/// Tells of sinks and sources that name machines where there is no cluster.
pub(in super::super) fn check_homes<'a>(
    homes: impl Iterator<Item = &'a Nodes>,
    is_shared: bool,
    report: &ProblemReport,
) {
    for nodes in homes.flatten().filter(|_| !is_shared) {
        let note = Note::error(
            nodes.span,
            "`nodes` is for a cluster, and this store is a file of this machine",
        );
        report.add(note.hint("take it out, or give [store] a `url`").absence());
    }
}
