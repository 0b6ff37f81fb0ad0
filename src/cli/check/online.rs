//! Reaches every resource and webhook, without creating or sending anything.

use std::time::Duration;

use crate::{
    acs::Client,
    app,
    config::{ResourceSettings, Settings, SinkSettings, WebhookSinkSettings},
    model::{FailureClass, Scope},
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
/// Nobody has this id: asking for its token proves the key and makes nothing.
const NOBODY: &str =
    "8:acs:00000000-0000-0000-0000-000000000000_00000000-0000-0000-0000-000000000000";

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
        tell(
            resource.name.as_str(),
            Box::pin(reach(resource, context)).await,
        );
    }
    for sink in &settings.sinks {
        if let SinkSettings::Webhook(sink) = sink {
            tell(sink.name.as_str(), knock(sink, context).await);
        }
    }
    output::print(&table.render(2, None))?;
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

async fn reach(resource: &ResourceSettings, context: &Context) -> Result<String, Failed> {
    let transport = network(resource.ca_file.clone())?;
    let client = Client::new(resource, context.clock.clone(), transport).map_err(Failed::plain)?;
    let nobody = NOBODY.parse().map_err(Failed::plain)?;
    let hour = Duration::from_hours(1);
    let answer = client.issue(&nobody, &[Scope::Chat], hour, DEADLINE).await;
    match answer {
        Err(error) if !matches!(error.class(), FailureClass::Gone | FailureClass::Refuse) => {
            Err(Failed::plain(error))
        }
        _ => Ok(format!(
            "answers and takes the key; its clock is {:+.1} s from ours",
            client.skew().as_secs_f64()
        )),
    }
}

async fn knock(sink: &WebhookSinkSettings, context: &Context) -> Result<String, Failed> {
    let knock = app::doctor::reach(sink, &context.clock)
        .await
        .map_err(Failed::plain)?;
    let clock = knock.ahead.map_or(String::new(), |ahead| {
        format!("; its clock is {:+} s from ours", ahead.as_secs())
    });
    Ok(format!("answers (to OPTIONS with {}){clock}", knock.status))
}

fn network(ca_file: Option<std::path::PathBuf>) -> Result<Transport, Failed> {
    let options = NetworkOptions {
        ca_file,
        ..NetworkOptions::default()
    };
    Transport::network(&options).map_err(Failed::usage)
}
