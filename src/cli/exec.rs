//! `renewd exec`: runs a program with the current token, and lets it have every newer one.

mod folder;
mod handover;

use std::{ffi::OsString, process::ExitStatus, time::Duration};

use rustix::process::Signal;

use crate::{model::Name, systemd::Given};

use super::{
    Context,
    child::{Group, Program, Signals, asks_to_end, code, ended_by},
    daemon::daemon,
    duration,
    event_stream::{EventStream, Holding, News},
    exit::{Exit, Failed, Outcome},
    output,
};
use handover::Handover;

/// Run a program with the current token; restart or signal it on each new one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The token is in a file of mode 0600 in a private folder in memory, named in RENEWD_TOKEN_FILE; it is
replaced in one step. With --token-fd it is on the file descriptor whose number is in RENEWD_TOKEN_FD.
It is never in an argument or a variable.

Waits for the first token. Signals go on to the program, and this ends as the program ended.

  renewd exec support-bot -- /usr/bin/bot --serve
  renewd exec support-bot --on-change signal:HUP -- /usr/bin/bot
  renewd exec support-bot -- sh -c 'exec /usr/bin/bot --token-file \"$RENEWD_TOKEN_FILE\"'")]
pub(crate) struct Exec {
    /// The identity
    name: Name,
    /// Handover the token over in a private file, named in RENEWD_TOKEN_FILE (this is the default)
    #[arg(long, conflicts_with = "token_fd")]
    token_file: bool,
    /// Handover the token over on a file descriptor, numbered in RENEWD_TOKEN_FD
    #[arg(long)]
    token_fd: bool,
    /// Handover over the whole token document instead of the bare token
    #[arg(long)]
    json: bool,
    /// What happens on a new token: restart, signal:NAME (such as signal:HUP), none
    #[arg(long, default_value = "restart", value_parser = on_change, value_name = "WHAT")]
    on_change: OnChange,
    /// On a restart, the time between SIGTERM and SIGKILL
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    stop_timeout: Duration,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What happens to the program on a new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnChange {
    Restart,
    Signal(Signal),
    None,
}

fn on_change(text: &str) -> Result<OnChange, String> {
    match text {
        "restart" => return Ok(OnChange::Restart),
        "none" => return Ok(OnChange::None),
        _ => {}
    }
    let name = text.strip_prefix("signal:").unwrap_or_default();
    let signal = match name.strip_prefix("SIG").unwrap_or(name) {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "TERM" => Signal::TERM,
        "WINCH" => Signal::WINCH,
        _ => {
            return Err(
                "it is restart, none, or signal: with one of HUP INT QUIT USR1 USR2 TERM WINCH"
                    .to_owned(),
            );
        }
    };
    Ok(OnChange::Signal(signal))
}

/// How one life of the program ended.
enum Life {
    /// It ended, or was asked to end by whoever runs us.
    Over(ExitStatus),
    /// It was ended for this newer token.
    Replaced(Holding),
}

impl Exec {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if self.token_fd && self.on_change != OnChange::Restart {
            return Err(Failed::usage(
                "a file descriptor holds one token for ever, so --token-fd goes with --on-change restart",
            )
            .hint("leave --token-fd out: the file in RENEWD_TOKEN_FILE is replaced on each new token"));
        }
        let given = Given::put_aside().map_err(Failed::plain)?;
        let group = Group::fitting();
        let mut signals = Signals::listen(group)?;
        let mut event_stream =
            EventStream::new(daemon(context.socket), self.name.clone(), "renewd-exec");
        let mut handover = Handover::new(self.token_fd)?;
        let mut holding = tokio::select! {
            biased;
            signal = signals.next() => return Ok(ended_by(signal)),
            first = event_stream.first() => first?,
        };
        loop {
            handover.put(holding.content(self.json))?;
            let environment = handover.environment(&self.name);
            let mut program = Program::start_with(&given, &self.command, environment, group)?;
            event_stream.acknowledge(holding.version).await;
            match self
                .live(&mut program, &mut event_stream, &mut signals, &mut handover)
                .await?
            {
                Life::Over(status) => return Ok(Exit::As(code(status))),
                Life::Replaced(newer) => holding = newer,
            }
        }
    }

    /// One life of the program.
    async fn live(
        &self,
        program: &mut Program,
        event_stream: &mut EventStream,
        signals: &mut Signals,
        handover: &mut Handover,
    ) -> Result<Life, Failed> {
        loop {
            tokio::select! {
                biased;
                status = program.wait() => return Ok(Life::Over(status?)),
                signal = signals.next() => program.signal(signal),
                news = event_stream.next() => match (news?, self.on_change) {
                    (News::Withheld(why), _) => {
                        output::aside(&format!("the token is taken back: {why}"));
                        handover.clear();
                    }
                    (News::Token(newer), OnChange::Restart) => {
                        return self.replace(program, signals, newer).await;
                    }
                    (News::Token(newer), on_change) => match handover.put(newer.content(self.json)) {
                        Ok(()) => if let OnChange::Signal(signal) = on_change {
                            program.signal(signal);
                            event_stream.acknowledge(newer.version).await;
                        },
                        Err(error) => {
                            output::error(&error.to_string(), Some("the program keeps the old token; trying again"));
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            event_stream.again();
                        }
                    },
                },
            }
        }
    }

    /// Ends the program for a newer token, unless it is to end for good.
    async fn replace(
        &self,
        program: &mut Program,
        signals: &mut Signals,
        newer: Holding,
    ) -> Result<Life, Failed> {
        let mut for_good = false;
        let status = {
            let mut ending = std::pin::pin!(program.end(self.stop_timeout));
            loop {
                tokio::select! {
                    biased;
                    status = &mut ending => break status?,
                    signal = signals.next() => for_good |= asks_to_end(signal),
                }
            }
        };
        Ok(if for_good {
            Life::Over(status)
        } else {
            Life::Replaced(newer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_with_or_without_sig() {
        assert_eq!(on_change("signal:HUP"), Ok(OnChange::Signal(Signal::HUP)));
        assert_eq!(
            on_change("signal:SIGUSR1"),
            Ok(OnChange::Signal(Signal::USR1))
        );
        assert_eq!(on_change("none"), Ok(OnChange::None));
        assert!(on_change("HUP").is_err() && on_change("signal:KILL").is_err());
    }
}
