//! How a program's end is judged: status 0 is success, everything else is told and tried again.

use std::{io, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use super::super::{Outcome, SinkFailure};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It had not ended after so long and was ended, its whole group with it.
    TimedOut(Duration),
}

/// Whether the version is delivered. `said` is the masked end of what the program printed.
pub(super) fn judge(program: &str, end: &End, said: &str) -> Result<Outcome, SinkFailure> {
    let how = match end {
        End::Exited(status) if status.success() => return Ok(Outcome::Ran),
        End::Exited(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with status {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended in an unknown way".to_owned(),
        },
        End::TimedOut(timeout) => format!(
            "had not ended after {} s (`timeout`), so it and what it started were ended",
            timeout.as_secs()
        ),
    };
    let said = match said {
        "" => " and said nothing".to_owned(),
        said => format!("; it said: {said}"),
    };
    Err(SinkFailure::new(format!("{program} {how}{said}")))
}

/// The program could not be started at all.
pub(super) fn not_started(program: &str, error: &io::Error) -> SinkFailure {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; is it installed, and the interpreter that it names?",
        io::ErrorKind::PermissionDenied => {
            "; the sandbox of the shipped unit runs nothing that a drop-in with ExecPaths= does not \
             name: `renewd check` prints it"
        }
        _ => "",
    };
    SinkFailure::new(format!("cannot run {program}: {error}{advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(raw: i32, said: &str) -> String {
        let end = End::Exited(ExitStatus::from_raw(raw));
        judge("/bin/x", &end, said).unwrap_err().message
    }

    #[test]
    fn only_status_0_is_success() {
        let well = End::Exited(ExitStatus::from_raw(0));
        assert_eq!(judge("/bin/x", &well, "noise"), Ok(Outcome::Ran));
        assert_eq!(
            message(3 << 8, ""),
            "/bin/x ended with status 3 and said nothing"
        );
        assert_eq!(
            message(9, "oh"),
            "/bin/x was ended by signal 9; it said: oh"
        );
        let late = End::TimedOut(Duration::from_secs(30));
        let late = judge("/bin/x", &late, "").unwrap_err().message;
        assert!(
            late.starts_with("/bin/x had not ended after 30 s"),
            "{late}"
        );
    }

    #[test]
    fn what_cannot_start_names_the_way_out() {
        let refused = not_started("/bin/x", &io::Error::from_raw_os_error(13));
        assert!(refused.message.contains("ExecPaths="), "{refused}");
    }
}
