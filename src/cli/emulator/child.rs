//! Runs a program with the emulator in its environment, and ends as it ended.

use std::ffi::OsString;

use tokio::sync::oneshot;

use crate::{
    cli::{
        child::{Group, Program, Signals, code},
        exit::{Exit, Outcome},
    },
    emulator::{Serving, child_environment},
};

/// Serves while the program runs. Signals to stop go on to it.
pub(super) async fn run(command: &[OsString], serving: Serving) -> Outcome {
    let mut signals = Signals::listen(Group::Shared)?;
    let mut program = Program::start(command, child_environment(&serving), Group::Shared)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serving.run_until(async {
        stopped.await.ok();
    }));
    let status = loop {
        tokio::select! {
            biased;
            status = program.wait() => break status?,
            signal = signals.next() => program.signal(signal),
        }
    };
    // The server may have ended by itself only by a panic, which was logged.
    stop.send(()).ok();
    server.await.ok();
    Ok(Exit::As(code(status)))
}
