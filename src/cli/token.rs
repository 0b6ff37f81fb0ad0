//! `renewd token` prints the current token of an identity; `renewd wait` ends once there is one, for scripts
//! that start an app.

use std::time::Duration;

use super::{
    Context,
    daemon::{daemon, no_token},
    duration,
    exit::{Exit, Failed, Outcome},
    output,
};
use crate::{
    api::client::{Client, ClientError, ProblemType, TokenForm},
    model::Name,
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

/// The longest single question; the daemon answers earlier when there is a token.
const QUESTION: Duration = Duration::from_secs(55);
/// Between questions that were refused.
const AGAIN: Duration = Duration::from_millis(500);

/// Wait until an identity has a live token
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 0 when there is one, 5 when there is none in time, 3 when no daemon answers."
)]
pub(crate) struct Wait {
    /// The identity
    name: Name,
    /// How long to wait at most
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    timeout: Duration,
}

impl Wait {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let ends = context.clock.steady() + self.timeout;
        loop {
            let left = ends.saturating_sub(context.clock.steady());
            let error = match self.ask(&client, left).await {
                Ok(true) => return Ok(Exit::Done),
                Ok(false) => None,
                Err(error) if passes(&error) => Some(error),
                Err(error) => return Err(no_token(error)),
            };
            if left.is_zero() {
                return Err(error.map_or_else(|| self.too_late(), no_token));
            }
            tokio::time::sleep(AGAIN.min(left)).await;
        }
    }

    async fn ask(&self, client: &Client, left: Duration) -> Result<bool, ClientError> {
        let wait = (left.as_secs() > 0).then(|| left.min(QUESTION));
        let answer = client
            .token(&self.name, TokenForm::Json, wait, None)
            .await?;
        Ok(answer.is_some())
    }

    fn too_late(&self) -> Failed {
        Failed::new(
            Exit::NoToken,
            format!("{} has no live token yet", self.name),
        )
    }
}

/// Whether waiting may help.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::Broken { .. }
        | ClientError::Ended { .. }
        | ClientError::Silent { .. } => true,
        ClientError::Problem(problem) => matches!(
            problem.kind,
            ProblemType::Pending
                | ProblemType::Unreachable
                | ProblemType::Throttled
                | ProblemType::Busy
        ),
        ClientError::Unreadable { .. } => false,
    }
}
