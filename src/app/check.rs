//! Asks every room what it finds in its section, before anything is built.

use crate::{
    acs,
    config::{Finding, SecretRef, Settings},
    schedule, sinks, sources,
};

/// What the rooms find. The configuration turns the paths into lines and carets.
pub fn check(settings: &Settings) -> Vec<Finding> {
    let resources = settings.resources.iter().enumerate();
    let mut findings: Vec<Finding> = resources
        .flat_map(|(n, resource)| acs::check(resource, &format!("resource[{n}]")))
        .collect();
    findings.extend(sinks::check(settings));
    findings.extend(exposed(settings));
    findings.extend(sources::check(settings));
    findings.extend(schedule::check_jobs(&settings.jobs));
    findings
}

/// Folders in which somebody could swap the store, or a secret that a resource names.
fn exposed(settings: &Settings) -> Vec<Finding> {
    let trusted = sinks::Trusted::of(settings);
    let state_dir = settings.daemon.state_dir.as_path();
    let mut findings = trusted.exposed([state_dir], "daemon.state_dir");
    for (number, resource) in settings.resources.iter().enumerate() {
        let secrets = [
            ("connection_string", Some(&resource.connection_string)),
            (
                "secondary_connection_string",
                resource.secondary_connection_string.as_ref(),
            ),
        ];
        for (key, secret) in secrets {
            if let Some(SecretRef::File(file)) = secret.map(|secret| &secret.from) {
                findings
                    .extend(trusted.exposed(file.parent(), &format!("resource[{number}].{key}")));
            }
        }
    }
    findings
}
