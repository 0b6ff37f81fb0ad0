//! `renewd doctor`: what is wrong around the daemon, each with its remedy.

use std::path::PathBuf;

use crate::{
    api::client::{
        ClientError,
        wire::{Ailment, Examination, Examiner, Gravity},
    },
    app,
    config::{self, Settings, Source},
};

use super::{
    Context,
    check::reach,
    daemon::daemon_of,
    exit::{Exit, Failed, Outcome},
    output::{self, BAD, DIM, GOOD, STRONG, WARN, paint, wrapped},
    status,
};
use crate::model::Timestamp;

/// Find what is wrong around the daemon, each with its remedy
///
/// The daemon itself looks, as its own user and from inside its sandbox: at folders and their
/// readers, mounts, disks, receivers and their clocks. Where no daemon answers, this command looks
/// with what its own user may see.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 1 where something is wrong; what is only odd is shown and ends with 0."
)]
pub(crate) struct Doctor {
    /// Look from here and do not ask the daemon: as root this also sees which containers hold on to
    /// an old token file
    #[arg(long)]
    here: bool,
    /// The configuration: whose daemon is asked, or what is looked at from here [default: as for
    /// `renewd check`]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let found = if self.here {
            look(self.config, &context).await?
        } else {
            let client = daemon_of(&context, self.config.as_deref())?;
            match client.doctor().await {
                Err(error @ ClientError::Unreachable { .. }) => {
                    let mut found = look(self.config, &context).await?;
                    found.findings.insert(0, no_daemon(&error));
                    found
                }
                answer => answer?,
            }
        };
        if self.json {
            output::print_json(&found)?;
        } else {
            output::print(&render(&found, context.clock.now()))?;
        }
        Ok(if found.any_error() {
            Exit::Failed
        } else {
            Exit::Done
        })
    }
}

async fn look(config: Option<PathBuf>, context: &Context) -> Result<Examination, Failed> {
    let source = Source::of_process(config);
    let loaded = config::load(&source).map_err(|problems| {
        output::aside(config::render(&problems, true).trim_end());
        let summary = problems.summary();
        Failed::usage(format!("the configuration cannot be used: {summary}"))
    })?;
    let unreached = unreached(&loaded.settings, context).await;
    let findings = app::doctor::examine(loaded.settings, &context.clock).await;
    Ok(Examination {
        consumers: None,
        needs: None,
        by: Examiner::Command,
        user: app::doctor::own_user(),
        findings: unreached
            .into_iter()
            .chain(findings.into_iter().map(Into::into))
            .collect(),
    })
}

/// Resources that do not answer to a signed call that makes nothing, or refuse a key. The daemon knows that
/// by its own calls.
async fn unreached(settings: &Settings, context: &Context) -> Vec<Ailment> {
    let mut found = Vec::new();
    for (n, resource) in settings.resources.iter().enumerate() {
        for (name, result) in Box::pin(reach(resource, context)).await {
            found.extend(result.err().map(|error| Ailment {
                severity: Gravity::Error,
                at: format!("resource[{n}].connection_string"),
                message: format!("{name}: {error}"),
                fix: Some("renewd check --online, after mending the network, or `proxy`, `ca_file` or the connection string".to_owned()),
            }));
        }
    }
    found
}

fn no_daemon(error: &ClientError) -> Ailment {
    Ailment {
        severity: Gravity::Error,
        at: "daemon.socket".to_owned(),
        message: error.to_string(),
        fix: Some(
            "systemctl start renewd; journalctl -u renewd -n 50 (without systemd: renewd run)"
                .to_owned(),
        ),
    }
}

/// What stands before a finding and its remedy.
const INDENT: usize = 7;

fn render(found: &Examination, now: Timestamp) -> String {
    let mut text = match (&found.needs, &found.consumers) {
        (None, _) => format!(
            "{}\n",
            paint(WARN, "consumers: not known, no daemon was asked")
        ),
        (Some(_), consumers) => format!("{}\n", status::consumers(consumers.as_ref(), now)),
    };
    for need in found.needs.iter().flatten() {
        text += &status::need_lines(need, now, output::width());
    }
    for finding in &found.findings {
        let mark = match finding.severity {
            Gravity::Error => paint(BAD, "wrong:"),
            Gravity::Warning => paint(WARN, "  odd:"),
        };
        let room = output::width().map(|width| width.saturating_sub(INDENT));
        let told = format!("{} ({})", finding.message, finding.at);
        text += &format!("{mark} {}\n", wrapped(&told, room, INDENT));
        if let Some(fix) = &finding.fix {
            let fix = paint(STRONG, wrapped(fix, room, INDENT));
            text += &format!("  {} {fix}\n", paint(DIM, "fix:"));
        }
    }
    let who = match found.by {
        Examiner::Daemon => format!("the daemon looked, as {}", found.user),
        Examiner::Command => format!(
            "this command looked, as {}: the daemon's own user and sandbox may see other things",
            found.user
        ),
    };
    let needs = found.needs.as_ref().map_or(0, Vec::len);
    let sum = match found.findings.len() + needs {
        0 if found.needs.is_none() => "nothing is wrong around it".to_owned(),
        0 => paint(GOOD, "nothing is wrong"),
        1 => "1 finding".to_owned(),
        many => format!("{many} findings"),
    };
    text + &format!("{sum} {}\n", paint(DIM, format!("({who})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::client::wire::{Need, NeedKind},
        model::Served,
    };

    #[test]
    fn each_finding_stands_with_its_remedy_and_who_looked() {
        let mut found = Examination {
            consumers: Some(Served::default()),
            needs: Some(Vec::new()),
            by: Examiner::Daemon,
            user: "renewd".to_owned(),
            findings: vec![Ailment {
                severity: Gravity::Error,
                at: "sink.file[0].path".to_owned(),
                message: "the reader bot cannot pass through /home/x".to_owned(),
                fix: Some("setfacl -m u:bot:x /home/x".to_owned()),
            }],
        };
        let plain = |found: &Examination| {
            let now = Timestamp::UNIX_EPOCH;
            anstream::adapter::strip_str(&render(found, now)).to_string()
        };
        assert_eq!(
            plain(&found),
            "0 consumers: no identity wants a token\n\
             wrong: the reader bot cannot pass through /home/x (sink.file[0].path)\n  \
             fix: setfacl -m u:bot:x /home/x\n1 finding (the daemon looked, as renewd)\n"
        );
        found.findings.clear();
        assert_eq!(
            plain(&found),
            "0 consumers: no identity wants a token\n\
             nothing is wrong (the daemon looked, as renewd)\n"
        );
        found.needs = Some(vec![Need {
            kind: NeedKind::Outage,
            subject: "contoso".to_owned(),
            message: "it does not answer".to_owned(),
            because: None,
            names: Vec::new(),
            since: None,
            command: Some("renewd status".to_owned()),
        }]);
        assert_eq!(
            plain(&found),
            "0 consumers: no identity wants a token\n  ! contoso: it does not answer\n    renewd status\n\
             1 finding (the daemon looked, as renewd)\n"
        );
        assert!(found.any_error());
    }
}
