//! `renewd identity create`: a person's word that identities whose ids are not known may be created.

use crate::{api::client::wire::CreateMissing, model::Name};

use super::super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output,
};

/// Let identities be created whose ids are not known because the database was lost
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A database that was lost takes identities.jsonl over by itself. Who is declared and not in it may \
exist at ACS: it is not created, and `renewd status` names it. Import its id where it has one; this command says that \
it is new. Whoever it was before stays at ACS, with everything that hangs on it.\n\
Exit codes: 0 all may be created, 1 none of them waits, 4 some of them do not wait."
)]
pub(crate) struct Create {
    /// The identities
    #[arg(
        value_name = "NAME",
        required_unless_present = "all_missing",
        conflicts_with = "all_missing"
    )]
    names: Vec<Name>,
    /// All that wait
    #[arg(long)]
    all_missing: bool,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Create {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let asked = CreateMissing {
            names: self.names,
            all_missing: self.all_missing,
            reason: self.reason,
        };
        let done = client.create_missing(&asked).await?;
        if self.json {
            output::print_json(&done)?;
        } else {
            output::print(&match done.allowed {
                0 if self.all_missing => "nobody waits to be created\n".to_owned(),
                1 => "1 identity is created now\n".to_owned(),
                many => format!("{many} identities are created now\n"),
            })?;
            for row in &done.refused {
                let name = row.name.as_ref().map_or("", Name::as_str);
                output::aside(&format!("{name}: {}", row.reason));
            }
        }
        Ok(match (done.refused.is_empty(), done.allowed) {
            (true, _) => Exit::Done,
            (false, 0) => Exit::Failed,
            (false, _) => Exit::Partly,
        })
    }
}
