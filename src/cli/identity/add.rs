//! `renewd identity add`.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use crate::{
    api::client::wire::{Identity, NewIdentity},
    model::{IdentityId, Name, OnRemoval, Reader, ResourceName, Scope, SinkName},
};

use super::{
    super::{
        Context, duration,
        exit::{Exit, Failed, Outcome},
        offline::Offline,
        output,
    },
    Known, Place, show,
};

/// Add an identity that no configuration file declares
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// Our name of it
    name: Name,
    /// Its resource; may be left out where there is one
    #[arg(long)]
    resource: Option<ResourceName>,
    /// What ACS calls it; left out, it is created
    #[arg(long)]
    id: Option<IdentityId>,
    /// What its tokens may be used for; may be given more than once
    #[arg(long = "scope", value_name = "SCOPE", default_value = "chat")]
    scopes: Vec<Scope>,
    /// How long its tokens shall live, 1h to 24h
    #[arg(long, value_parser = duration::parse)]
    lifetime: Option<Duration>,
    /// A free word to select by; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// A user, or group:NAME, who may read its token
    #[arg(long = "reader", value_name = "USER")]
    readers: Vec<String>,
    /// Where its tokens go; may be given more than once
    #[arg(long = "sink", value_name = "SINK")]
    sinks: Vec<SinkName>,
    /// What happens when it is removed: hold, forget or revoke
    #[arg(long, default_value = "hold", value_parser = on_removal)]
    on_removal: OnRemoval,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Add {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let json = self.json;
        let now = context.clock.now();
        let (place, wish) = self.parts();
        let added = match place.known(&context).await? {
            Known::Daemon(client) => client.add(&wish).await?,
            Known::Store(offline) => declare(&offline, wish, now).await?,
        };
        if json {
            output::print_json(&added)?;
        } else {
            output::print(&show::render(&added, now, output::width()))?;
        }
        Ok(Exit::Done)
    }

    fn parts(self) -> (Place, NewIdentity) {
        let wish = NewIdentity {
            name: self.name,
            resource: self.resource,
            id: self.id,
            scopes: self.scopes,
            lifetime_seconds: self.lifetime.map(|lifetime| lifetime.as_secs()),
            labels: self.labels.into_iter().collect::<BTreeMap<_, _>>(),
            readers: self.readers.into_iter().map(Reader::from).collect(),
            sinks: self.sinks,
            on_removal: self.on_removal,
        };
        (self.place, wish)
    }
}

/// Writes it into the store; the daemon obtains its token when it next starts.
async fn declare(offline: &Offline, wish: NewIdentity, now: Timestamp) -> Result<Identity, Failed> {
    let spec = wish.spec(&offline.surroundings()).map_err(Failed::usage)?;
    let name = spec.name.clone();
    if offline.store.record(&name).await?.is_some() {
        return Err(Failed::plain(format!("{name} exists already")));
    }
    let taken = offline.store.declare(vec![spec], now).await?;
    if let Some(refusal) = taken.refused.first() {
        return Err(Failed::plain(format!(
            "{name} was not taken: {}",
            refusal.reason
        )));
    }
    let record = offline.store.record(&name).await?;
    let record = record.ok_or_else(|| Failed::plain(format!("{name} was not taken")))?;
    Ok(Identity::offline(&record, now))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn on_removal(text: &str) -> Result<OnRemoval, String> {
    let quoted = serde_json::Value::String(text.to_owned());
    serde_json::from_value(quoted).map_err(|_| "it is one of hold, forget, revoke".to_owned())
}
