//! Integration tests: one binary, one module per subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test may panic, print and use the machine's clock"
)]

mod activation;
mod apps;
mod campaigns;
mod chaos;
mod claims;
mod cli;
mod config;
mod config_secrets;
mod corpora;
mod deliveries;
mod dispatchers;
mod doctor;
mod entra;
mod file_proofs;
mod files;
mod full_disk;
mod gone;
mod identities;
mod init;
mod jobs;
mod key_places;
mod keys;
mod life;
mod logs;
mod orphans;
mod overload;
mod plan;
mod programs;
mod proxies;
mod readme;
mod recovery;
mod rooms;
mod samples;
mod screens;
mod secrecy;
mod simulation;
mod source_attacks;
mod source_programs;
mod source_wal;
mod sources;
mod stage;
mod standby;
mod starts;
mod steering;
mod store_moves;
mod tables;
mod unit_file;
mod waiting;
mod webhook_network;
mod webhooks;
mod withdrawn;
