//! `renewd identity show`.

use jiff::Timestamp;

use crate::{
    api::client::wire::Identity,
    model::{Name, short_duration},
};

use super::{
    super::{
        Context,
        exit::{Exit, Outcome},
        output::{self, DIM, STRONG, paint, relative, state_style},
        table::{Cell, Table},
    },
    list::joined,
};

/// Show everything that is known of an identity
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The identity
    name: Name,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: super::Place,
}

impl Show {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let known = self.place.known(&context).await?;
        let identity = known.one(&self.name, now).await?;
        if self.json {
            output::print_json(&identity)?;
        } else {
            output::print(&render(&identity, now, output::width()))?;
        }
        Ok(Exit::Done)
    }
}

/// How the token stands, and what that means.
fn about_token(standing: &str) -> &str {
    match standing {
        "doubtful" => {
            "may be dead: its access key is refused or no longer configured; it is minted anew"
        }
        "dead" => "dead: it ended or was revoked; the next one is awaited",
        word => word,
    }
}

pub(super) fn render(of: &Identity, now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&["", ""]);
    let mut fact = |what: &'static str, value: String| {
        if !value.is_empty() {
            table.row([Cell::styled(what, DIM), value.into()]);
        }
    };
    let moment = |text: &Option<String>| {
        let at = text
            .as_ref()
            .and_then(|text| text.parse::<Timestamp>().ok());
        at.map_or_else(String::new, |at| format!("{} ({at})", relative(at, now)))
    };
    fact(
        "id",
        of.id
            .as_ref()
            .map_or_else(|| "not created yet".to_owned(), ToString::to_string),
    );
    fact("resource", of.resource.to_string());
    fact("token", about_token(&of.standing).to_owned());
    fact("token ends", moment(&of.expires_at));
    fact("issued", moment(&of.issued_at));
    fact(
        "next look",
        of.due.map_or_else(String::new, |due| relative(due.at, now)),
    );
    if of.failures > 0 {
        fact("failures", format!("{} in a row", of.failures));
    }
    fact("version", of.version.to_string());
    fact("scopes", joined(&of.scopes));
    fact(
        "lifetime",
        short_duration(std::time::Duration::from_secs(of.lifetime_seconds)),
    );
    fact(
        "labels",
        of.labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join(" "),
    );
    fact("readers", joined(&of.readers));
    fact("sinks", joined(&of.sinks));
    fact(
        "revoked",
        of.revoked_at
            .map_or_else(String::new, |at| relative(at, now)),
    );
    format!(
        "{} {}\n\n{}",
        paint(STRONG, &of.name),
        paint(state_style(of.state), of.state),
        table.render(2, width)
    )
}
