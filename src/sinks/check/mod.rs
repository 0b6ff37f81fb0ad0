//! Problems of the sinks that can be found before anything is delivered.

use crate::config::{Finding, Settings, SinkSettings};

pub use folders::Trusted;

mod files;
mod folders;
mod ownership;
mod programs;
mod readers;
mod templates;
#[cfg(test)]
mod tests;
mod webhooks;

/// Everything about sinks, and about those who read from them, that cannot work or looks odd. Paths
/// count the sinks of a kind in the order of the files, as in `sink.file[0].path`.
pub fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = readers::check(settings);
    let trusted = Trusted::of(settings);
    let (mut files, mut webhooks, mut programs) = (0, 0, 0);
    for sink in &settings.sinks {
        match sink {
            SinkSettings::File(file) => {
                let path = format!("sink.file[{files}]");
                findings.extend(files::check(file, &path, settings, &trusted));
                findings.extend(templates::check(file, &path));
                findings.extend(ownership::check(file, &path, settings));
                findings.extend(readers::of_bundle(file, &path));
                files += 1;
            }
            SinkSettings::Webhook(webhook) => {
                let path = format!("sink.webhook[{webhooks}]");
                findings.extend(webhooks::check(webhook, &path));
                webhooks += 1;
            }
            SinkSettings::Exec(exec) => {
                let path = format!("sink.exec[{programs}]");
                findings.extend(programs::check(exec, &path, settings, &trusted));
                programs += 1;
            }
        }
    }
    findings
}
