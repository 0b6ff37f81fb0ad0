//! `renewd check` and `renewd doctor`: what is wrong with a configuration before anything runs on it, and around the
//! daemon, each with its remedy. The first can also say what a reload would do to the identities that exist, and
//! reach every resource and webhook without creating or sending anything.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    Context,
    daemon::{daemon, daemon_of},
    exit::{Exit, Failed, Outcome},
    identity::everything,
    output::{self, BAD, Cell, DIM, GOOD, STRONG, Table, WARN, paint, wrapped},
    status,
};
use crate::{
    acs::{Client, Proof},
    api::client::{
        ClientError,
        wire::{Ailment, Examination, Examiner, Gravity, Identity},
    },
    app,
    config::{
        self, ConfigProblem, Loaded, Places, Problems, ResourceSettings, Settings, SinkSettings,
        Source, WebhookSinkSettings,
    },
    model::{Name, OnRemoval, Operation, Origin, Spec, State, Timestamp},
    pool,
    store::try_database,
    transport::{NetworkOptions, Transport},
};

/// Check the configuration: every mistake at once, with its line
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with 2 on a mistake; what is only odd is shown and ends with 0.")]
pub(crate) struct Check {
    /// The configuration [default: /etc/renewd/renewd.toml; as a normal user
    /// ~/.config/renewd/renewd.toml]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Also reach the store's database, every resource and webhook; nothing is created, written or sent
    #[arg(long)]
    online: bool,
    /// Also show what a reload would do
    #[arg(long)]
    diff: bool,
}

impl Check {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let source = Source::of_process(self.config);
        let path = source.path.display().to_string();
        let settings = check(&source)?;
        output::print(&format!(
            "{path} {}: {}\n",
            paint(GOOD, "can work"),
            inventory(&settings)
        ))?;
        if self.diff {
            output::print(&show(&settings, &context).await?)?;
        }
        if self.online {
            return Box::pin(reach_all(&settings, &context)).await;
        }
        Ok(Exit::Done)
    }
}

/// Loads the configuration, asks every room what it finds, shows it all.
pub(in crate::cli) fn check(source: &Source) -> Result<Settings, Failed> {
    let loaded = config::load(source);
    let (settings, problems) = match loaded {
        Ok(Loaded {
            settings,
            places,
            warnings,
        }) => {
            let room = app::check_room(&settings);
            let found = places.problems(app::check(&settings).into_iter().chain(room));
            let problems: Vec<ConfigProblem> = warnings.into_iter().chain(found).collect();
            (Some(settings), Problems(problems))
        }
        Err(problems) => (None, problems),
    };
    if !problems.is_empty() {
        output::aside_lines(config::render(&problems, true).trim_end());
    }
    match settings {
        Some(settings) if !Places::any_error(&problems) => Ok(settings),
        _ => Err(Failed::usage(format!(
            "the configuration cannot be used: {}",
            problems.summary()
        ))),
    }
}

pub(in crate::cli) fn inventory(settings: &Settings) -> String {
    let parts = [
        (settings.resources.len(), "resource", "resources"),
        (settings.identities.len(), "identity", "identities"),
        (settings.sinks.len(), "sink", "sinks"),
    ];
    let parts =
        parts.map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }));
    parts.join(", ")
}

/// What happens to one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Create,
    Reissue,
    Update,
    Hold,
    Forget,
    Revoke,
}

async fn show(settings: &Settings, context: &Context) -> Result<String, Failed> {
    let client = daemon(
        context
            .socket
            .clone()
            .or(Some(settings.daemon.socket.clone())),
    );
    let known = match everything(&client).await {
        Ok(known) => known,
        Err(ClientError::Unreachable { .. }) => {
            return Ok(paint(
                DIM,
                "no daemon runs: at its start it takes all of this over\n",
            ));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(render(&effects(&settings.identities, &known)))
}

fn effects(declared: &[Spec], known: &[Identity]) -> BTreeMap<Name, Effect> {
    let by_name: BTreeMap<&Name, &Identity> = known.iter().map(|one| (&one.name, one)).collect();
    let mut effects = BTreeMap::new();
    for spec in declared {
        let effect = match by_name.get(&spec.name) {
            None => Some(Effect::Create),
            Some(known) => change(spec, known),
        };
        effects.extend(effect.map(|effect| (spec.name.clone(), effect)));
    }
    let declared: BTreeMap<&Name, &Spec> = declared.iter().map(|spec| (&spec.name, spec)).collect();
    for known in known {
        let withheld = !matches!(known.state, State::New | State::Active | State::Late);
        if known.origin == Origin::File && !declared.contains_key(&known.name) && !withheld {
            effects.insert(known.name.clone(), removal(known.on_removal));
        }
    }
    effects
}

fn change(spec: &Spec, known: &Identity) -> Option<Effect> {
    let lifetime = spec.declared.lifetime.as_secs();
    let other_id = spec.declared.id.is_some() && spec.declared.id != known.id;
    if spec.declared.scopes != known.scopes || lifetime != known.lifetime_seconds || other_id {
        return Some(Effect::Reissue);
    }
    let same = spec.declared.labels == known.labels
        && spec.declared.readers == known.readers
        && spec.declared.sinks == known.sinks
        && spec.declared.on_removal == known.on_removal;
    (!same).then_some(Effect::Update)
}

fn removal(how: OnRemoval) -> Effect {
    match how {
        OnRemoval::Hold => Effect::Hold,
        OnRemoval::Forget => Effect::Forget,
        OnRemoval::Revoke => Effect::Revoke,
    }
}

fn render(effects: &BTreeMap<Name, Effect>) -> String {
    if effects.is_empty() {
        return "a reload would change nothing\n".to_owned();
    }
    let line = |(name, effect): (&Name, &Effect)| {
        let (style, sign, word) = match effect {
            Effect::Create => (GOOD, '+', "create"),
            Effect::Reissue => (WARN, '~', "re-issue"),
            Effect::Update => (DIM, '~', "update"),
            Effect::Hold => (BAD, '-', "hold"),
            Effect::Forget => (BAD, '-', "forget"),
            Effect::Revoke => (BAD, '-', "revoke, then hold"),
        };
        format!("  {} {name} {word}\n", paint(style, sign))
    };
    let lines: String = effects.iter().map(line).collect();
    format!("a reload would change {}:\n{lines}", effects.len())
}

/// How long one of them may take.
const DEADLINE: Duration = Duration::from_secs(10);

async fn reach_all(settings: &Settings, context: &Context) -> Outcome {
    let mut table = Table::facts(&["", "", ""]);
    let mut failed = false;
    let mut tell = |name: &str, result: Result<String, Failed>| {
        failed |= result.is_err();
        let (mark, words) = match result {
            Ok(words) => (Cell::styled("ok", GOOD), words),
            Err(error) => (Cell::styled("!!", BAD), error.to_string()),
        };
        table.row([Cell::styled(name, STRONG), mark, words.into()]);
    };
    if let Some(tried) = try_out(settings).await {
        tell("store", tried.map_err(Failed::plain));
    }
    for resource in &settings.resources {
        for (name, result) in Box::pin(reach(resource, context)).await {
            tell(&name, result);
        }
    }
    for sink in &settings.sinks {
        if let SinkSettings::Webhook(sink) = sink {
            tell(sink.name.as_str(), probe(sink, context).await);
        }
    }
    output::print(&table.render(2, output::width()))?;
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

/// Writes to the store's database, and takes it back: which server was taken, or why none. Nothing for a file.
async fn try_out(settings: &Settings) -> Option<Result<String, String>> {
    let database = settings.store.place.database()?.clone();
    let tried = pool::LOOKS.run(move || try_database(&database)).await;
    Some(tried.unwrap_or_else(|error| Err(error.to_string())))
}

/// Proves each key of a resource by a signed call that makes nothing.
pub(in crate::cli) async fn reach(
    resource: &ResourceSettings,
    context: &Context,
) -> Vec<(String, Result<String, Failed>)> {
    let name = &resource.name;
    if resource.credential.entra().is_some() {
        return vec![(name.to_string(), reach_by_entra(resource, context).await)];
    }
    let client = match client(resource, context) {
        Ok(client) => client,
        Err(error) => return vec![(name.to_string(), Err(error))],
    };
    let mut proofs = Vec::new();
    for key in client.key_status().keys {
        let result = match client.prove(key.role, DEADLINE).await {
            Some(Proof::Accepted) => Ok(format!(
                "answers and takes the {} key; its clock is {:+.1} s from ours",
                key.role,
                client.skew().as_secs_f64()
            )),
            Some(Proof::Unserved(why)) => Err(Failed::plain(format!(
                "the {} key is taken, and a harmless call is refused all the same: {why}",
                key.role
            ))),
            Some(Proof::Denied(why)) => Err(Failed::plain(format!(
                "the {} key is refused: {why}",
                key.role
            ))),
            Some(Proof::Unknown(why)) => Err(Failed::plain(format!(
                "the {} key could not be proved: {why}",
                key.role
            ))),
            None => Err(Failed::plain(format!("there is no {} key", key.role))),
        };
        proofs.push((format!("{name} {}", key.role), result));
    }
    proofs
}

/// Gets a bearer and proves it by a call that changes nothing.
pub(in crate::cli) async fn reach_by_entra(
    resource: &ResourceSettings,
    context: &Context,
) -> Result<String, Failed> {
    let client = client(resource, context)?;
    let tried = client.try_out(Operation::Revoke, DEADLINE).await;
    let view = client.bearer_view();
    let trouble = view.as_ref().and_then(|view| view.trouble.as_ref());
    match (tried, trouble) {
        (Ok(_), _) => {
            let told = view.map(|view| view.told(context.clock.now()));
            Ok(format!(
                "answers and takes {}; its clock is {:+.1} s from ours",
                told.unwrap_or_default(),
                client.skew().as_secs_f64()
            ))
        }
        (Err(_), Some(trouble)) => Err(Failed::plain(trouble.advice(&resource.name))),
        (Err(error), None) => Err(Failed::plain(error.reason())),
    }
}

fn client(resource: &ResourceSettings, context: &Context) -> Result<Client, Failed> {
    let transport = network(resource)?;
    Client::new(resource, context.clock.clone(), transport).map_err(Failed::plain)
}

async fn probe(sink: &WebhookSinkSettings, context: &Context) -> Result<String, Failed> {
    let probe = app::doctor::reach(sink, &context.clock)
        .await
        .map_err(Failed::plain)?;
    let clock = probe.ahead.map_or(String::new(), |ahead| {
        format!("; its clock is {:+} s from ours", ahead.as_secs())
    });
    Ok(format!("answers (to OPTIONS with {}){clock}", probe.status))
}

fn network(resource: &ResourceSettings) -> Result<Transport, Failed> {
    let options = NetworkOptions {
        ca_file: resource.ca_file.clone(),
        proxy: resource.proxy.clone(),
        ..NetworkOptions::default()
    };
    Transport::network(&options).map_err(Failed::usage)
}

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
            output::print(&render_examination(&found, context.clock.now()))?;
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
        output::aside_lines(config::render(&problems, true).trim_end());
        let summary = problems.summary();
        Failed::usage(format!("the configuration cannot be used: {summary}"))
    })?;
    let unreached = unreached(&loaded.settings, context).await;
    let database = try_out(&loaded.settings).await.and_then(Result::ok);
    let findings = app::doctor::examine(loaded.settings, &context.clock).await;
    Ok(Examination {
        consumers: None,
        service_time: None,
        needs: None,
        by: Examiner::Command,
        user: app::doctor::own_user(),
        database,
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
        let (key, what) = match resource.credential.entra() {
            Some(_) => ("entra", "[resource.entra]"),
            None => ("connection_string", "the connection string"),
        };
        for (name, result) in Box::pin(reach(resource, context)).await {
            found.extend(result.err().map(|error| Ailment {
                severity: Gravity::Error,
                at: format!("resource[{n}].{key}"),
                message: format!("{name}: {error}"),
                fix: Some(format!(
                    "renewd check --online, after mending the network, or `proxy`, `ca_file` or {what}"
                )),
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

fn render_examination(found: &Examination, now: Timestamp) -> String {
    let mut text = match (&found.needs, &found.consumers) {
        (None, _) => format!(
            "{}\n",
            paint(WARN, "consumers: not known, no daemon was asked")
        ),
        (Some(_), consumers) => {
            let service = found.service_time.unwrap_or(now);
            format!("{}\n", status::consumers(consumers.as_ref(), service))
        }
    };
    if let Some(database) = &found.database {
        text += &format!("the store: {database}\n");
    }
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
mod check_tests {
    use super::*;
    use crate::{
        config::Renewal,
        model::{Declaration, Scope},
    };

    fn known(json: &serde_json::Value) -> Identity {
        let mut whole = serde_json::json!({
            "name": "bot", "resource": "contoso", "id": null, "state": "active", "version": 1,
            "scopes": ["chat"], "lifetime_seconds": 86400, "labels": {}, "readers": [], "sinks": [],
            "on_removal": "hold", "origin": "file", "issued_at": null, "expires_at": null, "due": null,
            "failures": 0, "attempts": [], "revoked_at": null,
        });
        for (key, value) in json.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    fn spec(name: &str) -> Spec {
        Spec {
            name: name.parse().unwrap(),
            resource: "contoso".parse().unwrap(),
            declared: Declaration {
                scopes: vec![Scope::Chat],
                ..Renewal::default().declaration()
            },
            origin: Origin::File,
        }
    }

    #[test]
    fn each_change_is_told_once_and_nothing_else() {
        let declared = [spec("bot"), spec("new"), spec("wider")];
        let known = [
            known(&serde_json::json!({})),
            known(&serde_json::json!({"name": "wider", "scopes": ["chat", "voip"]})),
            known(&serde_json::json!({"name": "gone", "on_removal": "revoke"})),
            known(&serde_json::json!({"name": "held-before", "state": "held"})),
            known(&serde_json::json!({"name": "by-hand", "origin": "cli"})),
        ];
        let told: Vec<(String, Effect)> = effects(&declared, &known)
            .into_iter()
            .map(|(name, effect)| (name.to_string(), effect))
            .collect();
        let expected = [
            ("gone", Effect::Revoke),
            ("new", Effect::Create),
            ("wider", Effect::Reissue),
        ];
        assert_eq!(
            told,
            expected.map(|(name, effect)| (name.to_owned(), effect))
        );
    }
}

#[cfg(test)]
mod doctor_tests {
    use super::*;
    use crate::{
        api::client::wire::{Need, NeedKind},
        model::Served,
    };

    #[test]
    fn each_finding_stands_with_its_remedy_and_who_looked() {
        let mut found = Examination {
            consumers: Some(Served::default()),
            service_time: None,
            needs: Some(Vec::new()),
            by: Examiner::Daemon,
            user: "renewd".to_owned(),
            database: None,
            findings: vec![Ailment {
                severity: Gravity::Error,
                at: "sink.file[0].path".to_owned(),
                message: "the reader bot cannot pass through /home/x".to_owned(),
                fix: Some("setfacl -m u:bot:x /home/x".to_owned()),
            }],
        };
        let plain = |found: &Examination| {
            let now = Timestamp::UNIX_EPOCH;
            anstream::adapter::strip_str(&render_examination(found, now)).to_string()
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
