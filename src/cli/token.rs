//! `renewd token`: the current token of an identity, from the daemon.

use crate::{api::client::TokenForm, model::Name};

use super::{
    Context,
    daemon::{daemon, no_token},
    exit::{Exit, Failed, Outcome},
    output,
};

/// Print the current token of an identity
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with 5 when there is no live token: held, deleted, or not to be had.")]
pub(crate) struct Token {
    /// The identity
    name: Name,
    /// Print the whole token document
    #[arg(long)]
    json: bool,
}

impl Token {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let form = if self.json {
            TokenForm::Json
        } else {
            TokenForm::Bare
        };
        let client = daemon(context.socket);
        let answer = client.token(&self.name, form, None, None).await;
        let nothing = || Failed::new(Exit::NoToken, format!("{} has no live token", self.name));
        let token = answer.map_err(no_token)?.ok_or_else(nothing)?;
        output::print_secret(&token)?;
        Ok(Exit::Done)
    }
}
