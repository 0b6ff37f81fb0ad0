//! What all kinds of sinks have in common.

use super::super::keys::{
    Key,
    Preset::{Nothing, Said},
    Table, Takes, key,
};
use super::sink_exec::SINK_EXEC;
use super::sink_file::SINK_FILE;
use super::sink_webhook::SINK_WEBHOOK;

pub(super) static SINK: Table = Table {
    name: "sink",
    header: "[sink]",
    says: "",
    groups: &[&[
        key("file", Takes::Tables(&SINK_FILE), Nothing, "[{}]", ""),
        key("webhook", Takes::Tables(&SINK_WEBHOOK), Nothing, "[{}]", ""),
        key("exec", Takes::Tables(&SINK_EXEC), Nothing, "[{}]", ""),
    ]],
};

pub(super) const RATE: Key = key(
    "rate",
    Takes::Limit(10_000),
    Said("no limit"),
    "\"50/s\"",
    "The most attempts in any such time, retries and notices included: \"50/s\", \"600/10m\".",
);
