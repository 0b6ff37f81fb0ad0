//! `renewd check`: everything that is wrong with a configuration, before anything runs on it. It can also say
//! what a reload would do to the identities that exist, and reach every resource and webhook without creating
//! or sending anything.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Failed, Outcome},
    identity::everything,
    output::{self, BAD, Cell, DIM, GOOD, STRONG, Table, WARN, paint},
};
use crate::{
    acs::{Client, Proof},
    api::client::{ClientError, wire::Identity},
    app,
    config::{
        self, Loaded, Places, Problem, Problems, ResourceSettings, Settings, SinkSettings, Source,
        WebhookSinkSettings,
    },
    model::{Name, OnRemoval, Origin, Spec, State},
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
    /// Also reach every resource and webhook; nothing is created or sent
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
fn check(source: &Source) -> Result<Settings, Failed> {
    let loaded = config::load(source);
    let (settings, problems) = match loaded {
        Ok(Loaded {
            settings,
            places,
            warnings,
        }) => {
            let found = places.problems(app::check(&settings));
            let problems: Vec<Problem> = warnings.into_iter().chain(found).collect();
            (Some(settings), Problems(problems))
        }
        Err(problems) => (None, problems),
    };
    if !problems.is_empty() {
        output::aside(config::render(&problems, true).trim_end());
    }
    match settings {
        Some(settings) if !Places::any_error(&problems) => Ok(settings),
        _ => Err(Failed::usage(format!(
            "the configuration cannot be used: {}",
            problems.summary()
        ))),
    }
}

fn inventory(settings: &Settings) -> String {
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
    let lifetime = spec.lifetime.as_secs();
    let other_id = spec.id.is_some() && spec.id != known.id;
    if spec.scopes != known.scopes || lifetime != known.lifetime_seconds || other_id {
        return Some(Effect::Reissue);
    }
    let same = spec.labels == known.labels
        && spec.readers == known.readers
        && spec.sinks == known.sinks
        && spec.on_removal == known.on_removal;
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

/// Proves each key of a resource by a signed call that makes nothing.
pub(in crate::cli) async fn reach(
    resource: &ResourceSettings,
    context: &Context,
) -> Vec<(String, Result<String, Failed>)> {
    let name = &resource.name;
    let client = network(resource).and_then(|transport| {
        Client::new(resource, context.clock.clone(), transport).map_err(Failed::plain)
    });
    let client = match client {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        serde_json::from_value(serde_json::json!({
            "name": name, "resource": "contoso", "id": null, "scopes": ["chat"],
            "lifetime": {"secs": 86400, "nanos": 0}, "renew_at": 0.5, "spread": 0.02, "origin": "file",
        }))
        .unwrap()
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
