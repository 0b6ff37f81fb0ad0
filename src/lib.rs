//! `renewd` keeps short-lived access tokens fresh, so that no app ever holds an expired one.
//!
//! Data goes one way round: file → settings → rows → decision → ACS → one commit (token, version,
//! next due, wanted) → sinks → delivered → snapshot → eyes. Only two things travel back up, both
//! as data: a command on a channel and a due time in a row.
//!
//! # The rooms
//!
//! Each room has one verb that no other room may perform. Imports only go down, without cycles.
//! `tests/it/rooms.rs` reads this very table and every `crate::` path, and fails on a wrong import
//! or a room without a row.
//!
//! | room | only this room … | may import |
//! |---|---|---|
//! | `model` | names the words: newtypes, secrets, events, snapshots; no IO | – |
//! | `clock` | reads the time; a crate | – |
//! | `accounts` | asks the system who a user or group is | – |
//! | `pool` | runs what blocks, on threads made at the start | – |
//! | `transport` | sends an HTTP request out, bounded in time and size | config |
//! | `sandbox` | reads what the service manager's unit lets the daemon do | – |
//! | `telemetry` | sets up logs, names metrics | model |
//! | `config` | reads TOML, speaks of line numbers, reads the secrets it refers to | model |
//! | `systemd` | speaks to the service manager | model |
//! | `schedule` | decides, purely: due times, tiers, order, spread, backoff, pace, health, next cron instant, why | model config |
//! | `entra` | speaks to Entra ID and to metadata services: obtains bearers | model clock transport config |
//! | `acs` | speaks to Azure | model clock transport telemetry config entra |
//! | `sql` | speaks to a database engine: SQLite or PostgreSQL | model config |
//! | `store` | says in SQL what is in our database; seals secrets; keeps `identities.jsonl` | model clock telemetry config sql |
//! | `cluster` | keeps the lease: one machine of those that share a store leads | model clock config schedule store |
//! | `sources` | reads identities that others own, read only | model clock telemetry config accounts sandbox pool |
//! | `sinks` | touches the consumers | model clock transport telemetry config accounts sandbox pool |
//! | `permits` | lets calls to ACS start: one gate and pace per resource, noted in the store | model clock telemetry config schedule acs store |
//! | `worker` | runs the loop of a worker, and repeats tasks | model clock schedule |
//! | `outbox` | keeps what was done until the store has noted it | schedule store |
//! | `engine` | carries a decision out: obtain → commit → deliver; the only one that issues | model clock telemetry config accounts schedule entra acs store permits outbox sources sinks worker |
//! | `campaign` | carries a bulk operation out: revokes and deletes, sets rows due | model clock telemetry config schedule entra acs store permits outbox worker |
//! | `jobs` | wakes at cron instants and starts campaigns | model clock telemetry config schedule store |
//! | `keys` | replaces access keys: proves, prefers, sees tokens re-minted and delivered, takes up | model clock telemetry config schedule acs store permits worker |
//! | `simulation` | lets the parts live in simulated time against a modelled service; not in the server package | model clock transport telemetry config schedule acs store permits engine campaign keys |
//! | `api` | listens: the local socket, and TCP for health and metrics; holds the CLI's client | model clock transport telemetry config accounts schedule store pool |
//! | `app` | builds, checks, spawns, reloads, shuts down: the only place that knows all rooms | model clock cluster accounts transport telemetry config systemd schedule acs store permits sources sinks engine campaign jobs keys api pool worker |
//! | `cli` | prints and parses arguments, one file per verb | accounts app api::client acs store schedule simulation sources sinks::file config systemd telemetry transport model clock pool |
//!
//! # The crates beside the daemon
//!
//! The daemon is this one package. Under `crates/` is what must not be part of it, and what both need;
//! a crate is named `renewd-` and its folder.
//!
//! | crate | what it is | depends on |
//! |---|---|---|
//! | `renewd-acs-wire` | what crosses the wire: operations, JSON shapes, secrets | – |
//! | `renewd-clock` | the clock | – |
//! | `renewd-database` | starts a PostgreSQL for the tests, with a database for each | – |
//! | `renewd-emulator` | the other side: ACS Identity, Entra ID and a webhook receiver, with checks of their own | acs-wire clock |
//! | `renewd-demo` | plays the main job with programs of its own, and measures it from outside | acs-wire clock emulator |
//!
//! The server package (`--no-default-features`) is built without the last two, and without the room `simulation`.

pub mod accounts;
pub mod acs;
pub mod api;
pub mod app;
pub mod campaign;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod engine;
pub mod entra;
pub mod jobs;
pub mod keys;
pub mod model;
pub mod outbox;
pub mod permits;
pub mod pool;
pub mod sandbox;
pub mod schedule;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod sinks;
pub mod sources;
mod sql;
pub mod store;
pub mod systemd;
pub mod telemetry;
pub mod transport;
mod worker;

pub use renewd_clock as clock;
