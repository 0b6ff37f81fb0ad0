//! What kind of failure a cause is. A cause may quote whatever a receiver, a program or the service said, and the page
//! does not know who looks: it shows the kind, in words of our own.

/// What a cause says, and the kind that it is then. Of several the first that it says decides: our own words come
/// before those that are quoted.
const KINDS: [(&str, &str); 35] = [
    ("connection refused", "connection refused"),
    ("connection reset", "connection broken"),
    ("the connection broke", "connection broken"),
    ("broken pipe", "connection broken"),
    ("network is unreachable", "network unreachable"),
    ("no route to host", "network unreachable"),
    ("host is unreachable", "network unreachable"),
    ("failed to lookup address", "name not found"),
    ("name or service not known", "name not found"),
    ("name resolution", "name not found"),
    ("is not an address that", "address refused"),
    ("no complete answer", "no answer in time"),
    ("no answer within", "no answer in time"),
    ("timed out", "no answer in time"),
    ("did not end within", "program too slow"),
    ("tls handshake", "TLS refused"),
    ("certificate", "TLS refused"),
    ("no bearer", "no bearer"),
    ("bearer", "bearer refused"),
    ("no access key", "access key refused"),
    ("access key", "access key refused"),
    ("cannot be read:", "answer not understood"),
    ("the answer is larger", "answer not understood"),
    ("no space left", "disk full"),
    ("disk quota exceeded", "disk full"),
    ("disk is full", "disk full"),
    ("permission denied", "permission denied"),
    ("operation not permitted", "permission denied"),
    ("read-only file system", "read-only file system"),
    ("no such file", "file missing"),
    ("ended with status", "program failed"),
    ("was ended by signal", "program failed"),
    ("cannot run", "program failed"),
    ("symbolic link", "path not safe"),
    ("renewd itself failed", "fault of renewd"),
];
/// The kind where none is known.
const OTHER: &str = "see renewd status";
/// What stands before the status of an answer.
const ANSWERED: &str = "answered ";

/// The kind of a cause, in two or three words.
pub(super) fn kind(cause: &str) -> String {
    let cause = cause.to_lowercase();
    let said = KINDS.iter().filter_map(|(says, kind)| {
        let at = cause.find(says)?;
        Some((at, (*kind).to_owned()))
    });
    let found = said.chain(answered(&cause)).min_by_key(|(at, _)| *at);
    match found {
        Some((_, kind)) => kind,
        None if cause.contains("no connection to") || cause.contains("cannot connect") => {
            "no connection".to_owned()
        }
        None => OTHER.to_owned(),
    }
}

/// The status that somebody answered, and where the cause says so.
fn answered(cause: &str) -> Option<(usize, String)> {
    let at = cause.find(ANSWERED);
    let at = at.map(|at| (at, at + ANSWERED.len()));
    // The service's answer begins with its status.
    let (at, begins) = at.or(Some((0, 0)))?;
    let said = cause.get(begins..)?;
    let ends = said.find(|c: char| !c.is_ascii_digit());
    let status = said.get(..ends.unwrap_or(said.len()))?;
    (status.len() == 3).then(|| (at, format!("answered {status}")))
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn a_cause_is_shown_as_its_kind_and_never_quoted() {
        for (cause, expected) in [
            (
                "cannot post to https://crm.example: no connection to crm.example: Connection refused (os error 111)",
                "connection refused",
            ),
            (
                "cannot post to https://crm.example: the receiver answered 503",
                "answered 503",
            ),
            (
                "the receiver answered 500: it said: connection refused by canary",
                "answered 500",
            ),
            (
                "500 InternalServerError from contoso.communication.azure.com: certificate canary",
                "answered 500",
            ),
            (
                "no complete answer from contoso within 20s",
                "no answer in time",
            ),
            (
                "/usr/local/bin/tell ended with status 7; it said: permission denied",
                "program failed",
            ),
            (
                "cannot write /run/renewd/anna.json: No space left on device (os error 28); the file is as it was",
                "disk full",
            ),
            ("TLS handshake with crm refused: …", "TLS refused"),
            ("no connection to crm: canary", "no connection"),
            ("canary", "see renewd status"),
            ("", "see renewd status"),
            ("50", "see renewd status"),
            ("ok", "see renewd status"),
        ] {
            assert_eq!(kind(cause), expected, "{cause}");
        }
    }
}
