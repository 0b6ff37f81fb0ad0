//! Certificates that somebody shows us, or that we trust: which of them a person should look after, and whether what
//! was told of one is over.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::wire::{Need, NeedKind};
use crate::model::{DispatcherView, RenewerView, ResourceName, SinkAt, TrustFile};

/// Before a certificate ends a person is told, so long before: first, and again.
pub(super) const ENDING: SignedDuration = SignedDuration::from_hours(30 * 24);
pub(super) const ENDING_SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

pub(super) struct Certificates<'a> {
    pub(super) renewers: &'a BTreeMap<ResourceName, RenewerView>,
    pub(super) dispatchers: &'a BTreeMap<SinkAt, DispatcherView>,
    pub(super) trusted: &'a BTreeMap<PathBuf, TrustFile>,
    pub(super) now: Timestamp,
}

struct Certificate<'a> {
    /// The resource, the sink or the file.
    of: String,
    /// What it is, in words.
    what: &'static str,
    ends: Option<Timestamp>,
    /// Why it cannot be read.
    trouble: Option<&'a str>,
    /// What is to be done before it ends.
    remedy: String,
}

/// Before the name of a resource whose caller proves itself by a certificate.
const CLIENT: &str = "client_certificate of";

impl<'a> Certificates<'a> {
    fn all(&self) -> impl Iterator<Item = Certificate<'a>> {
        let shown = |of: String, what, ends: Option<Timestamp>| Certificate {
            of,
            what,
            ends,
            trouble: None,
            remedy: "have it renewed; a file is read again every hour".to_owned(),
        };
        let peers = self.renewers.iter().map(move |(resource, renewer)| {
            let what = "the certificate of its endpoint";
            shown(resource.to_string(), what, renewer.peer_ends)
        });
        let receivers = self.dispatchers.iter().map(move |(sink, dispatcher)| {
            let what = "the certificate of its receiver";
            shown(sink.to_string(), what, dispatcher.peer_ends)
        });
        let trusted = self.trusted.iter().map(move |(path, file)| Certificate {
            trouble: file.trouble.as_deref(),
            ..shown(
                path.display().to_string(),
                "a certificate in this `ca_file`",
                file.ends,
            )
        });
        let clients = self.renewers.iter().filter_map(move |(resource, renewer)| {
            let ends = renewer.bearer.as_ref()?.certificate_ends?;
            Some(Certificate {
                remedy: format!(
                    "register another one in Entra ID and put it in place, `renewd key set {resource} --entra`"
                ),
                ..shown(
                    format!("{CLIENT} {resource}"),
                    "the certificate that proves to Entra ID who calls",
                    Some(ends),
                )
            })
        });
        peers.chain(receivers).chain(trusted).chain(clients)
    }

    /// What a person should look after.
    pub(super) fn needs(&self) -> Vec<Need> {
        let all = self.all();
        all.filter_map(|one| one.need(self.now)).collect()
    }

    /// Whether what was told of one is over: one that lasts for so long was seen in its place, or nobody shows it or
    /// trusts it any more. That none was seen since a start says nothing.
    pub(super) fn last_again(&self, of: &str, within: SignedDuration) -> bool {
        let mut all = self.all().filter(|one| one.of == of).peekable();
        let lasts = |one: Certificate<'_>| {
            let left = one.ends.map(|ends| ends.duration_since(self.now));
            one.trouble.is_none() && left.is_some_and(|left| left >= within)
        };
        all.peek().is_none() || all.any(lasts)
    }
}

impl Certificate<'_> {
    fn need(&self, now: Timestamp) -> Option<Need> {
        let left = self.ends.map(|ends| ends.duration_since(now));
        let kind = match (self.trouble, left) {
            (Some(_), _) => NeedKind::CertificateEndsSoon,
            (None, Some(left)) if left < ENDING_SOON => NeedKind::CertificateEndsSoon,
            (None, Some(left)) if left < ENDING => NeedKind::CertificateEnds,
            (None, _) => return None,
        };
        Some(Need {
            kind,
            subject: self.of.clone(),
            message: self.message(now),
            because: self.trouble.map(str::to_owned),
            names: Vec::new(),
            since: None,
            command: None,
        })
    }

    fn message(&self, now: Timestamp) -> String {
        let what = self.what;
        match self.ends {
            None => "this `ca_file` cannot be read any more: what was read before is trusted until renewd ends"
                .to_owned(),
            Some(ends) if ends <= now => {
                format!("{what} ended at {ends:.0}: calls that need it fail, once a connection is made anew")
            }
            Some(ends) => format!("{what} ends at {ends:.0}: {}", self.remedy),
        }
    }
}
