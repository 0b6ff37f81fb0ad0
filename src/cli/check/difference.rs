//! What a reload would do: the identities that the files declare against those that exist.

use std::collections::BTreeMap;

use crate::{
    api::client::{ClientError, wire::Identity},
    config::Settings,
    model::{Name, OnRemoval, Origin, Spec, State},
};

use super::super::{
    Context,
    daemon::daemon,
    exit::Failed,
    identity::everything,
    output::{BAD, DIM, GOOD, WARN, paint},
};

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

pub(super) async fn show(settings: &Settings, context: &Context) -> Result<String, Failed> {
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
