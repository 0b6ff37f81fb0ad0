//! Reaches every resource and webhook, without creating or sending anything.

use std::time::Duration;

use crate::{
    acs::{Client, Proof},
    app,
    config::{ResourceSettings, Settings, SinkSettings, WebhookSinkSettings},
    transport::{NetworkOptions, Transport},
};

use super::super::{
    Context,
    exit::{Exit, Failed, Outcome},
    output::{self, BAD, GOOD, STRONG},
    table::{Cell, Table},
};

/// How long one of them may take.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn show(settings: &Settings, context: &Context) -> Outcome {
    let mut table = Table::new(&["", "", ""]);
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
    output::print(&table.render(2, None))?;
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

/// Proves each key of a resource by a signed call that makes nothing.
async fn reach(
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
