//! Asks every room what it finds in its section, before anything is built.

use crate::{
    acs,
    config::{Finding, Settings},
    schedule, sinks, sources,
};

/// What the rooms find. The configuration turns the paths into lines and carets.
pub fn check(settings: &Settings) -> Vec<Finding> {
    let resources = settings.resources.iter().enumerate();
    let mut findings: Vec<Finding> = resources
        .flat_map(|(n, resource)| acs::check(resource, &format!("resource[{n}]")))
        .collect();
    findings.extend(sinks::check(settings));
    findings.extend(sources::check(settings));
    findings.extend(schedule::check_jobs(&settings.jobs));
    findings
}
