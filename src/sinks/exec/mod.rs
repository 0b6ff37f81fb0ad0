//! Programs that are run with each new version: the document on standard input, no shell, a clean
//! environment, a deadline for the whole process group.
//!
//! A version is delivered when the program ends with status 0. The process itself (`process`) has no place in
//! simulated time.

mod process;

use std::{fmt, sync::Arc};

use super::{Delivery, Outcome, SinkFailure};
use crate::{config::ExecSinkSettings, model::Secret};

pub use process::PROGRAMS;

/// Why an exec sink cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// A process takes real time, whatever the clock says.
    #[error("programs run in real time only, and this clock is simulated")]
    Simulated,
    /// Its command is empty.
    #[error("the command names no program")]
    NoProgram,
}

/// A sink that runs a program.
#[derive(Clone)]
pub struct ExecSink(Arc<Inner>);

struct Inner {
    settings: ExecSinkSettings,
    program: String,
}

impl fmt::Debug for ExecSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ExecSink({} runs {})",
            self.settings().name,
            self.0.program
        )
    }
}

impl ExecSink {
    /// Makes the sink.
    ///
    /// # Errors
    /// When there is no program, or no real time to run it in.
    pub fn new(settings: &ExecSinkSettings, is_simulated: bool) -> Result<Self, ExecError> {
        if is_simulated {
            return Err(ExecError::Simulated);
        }
        let program = settings
            .command
            .first()
            .ok_or(ExecError::NoProgram)?
            .clone();
        Ok(Self(Arc::new(Inner {
            settings: settings.clone(),
            program,
        })))
    }

    /// What the configuration says of it.
    pub(super) fn settings(&self) -> &ExecSinkSettings {
        &self.0.settings
    }

    /// Runs the program with the document and waits until it has ended.
    ///
    /// # Errors
    /// When it could not be started, did not end in time, or ended with another status than 0.
    pub async fn deliver(&self, delivery: &Delivery) -> Result<Outcome, SinkFailure> {
        let Inner { settings, program } = &*self.0;
        let document = &delivery.document;
        let task = process::Task {
            program,
            arguments: &settings.command[1..],
            environment: process::environment(settings, document),
            input: document.to_json(),
            timeout: settings.timeout,
        };
        let run = process::run(task)
            .await
            .map_err(|error| process::not_started(program, &error))?;
        let token = document.token.as_ref().map(Secret::expose);
        let said = process::readable(&run.said, token);
        tracing::debug!(sink = %settings.name, identity = %document.name, said, "a program ended");
        process::judge(program, &run.end, &said)
    }
}
