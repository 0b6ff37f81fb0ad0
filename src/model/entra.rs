//! What is known of the bearer that Entra ID gives for a resource without access keys: never the bearer itself.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ResourceName;

/// How tokens are named in `minted_by` that no access key minted. What begins so is no fingerprint: those are
/// hexadecimal.
const MINTER: &str = "entra:";

/// The `minted_by` of a client id.
pub fn entra_minter(client: &str) -> String {
    format!("{MINTER}{client}")
}

/// Whether a token was minted with a bearer. Then no access key's fate says anything of it.
pub fn is_entra_minter(minted_by: &str) -> bool {
    minted_by.starts_with(MINTER)
}

/// How a resource proves to Entra ID who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BearerKind {
    ManagedIdentity,
    WorkloadIdentity,
    ClientSecret,
    ClientCertificate,
}

impl BearerKind {
    /// The key of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ManagedIdentity => "managed_identity",
            Self::WorkloadIdentity => "workload_identity",
            Self::ClientSecret => "client_secret",
            Self::ClientCertificate => "client_certificate",
        }
    }
}

impl fmt::Display for BearerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BearerView {
    pub kind: BearerKind,
    /// The client id, once it is known.
    pub client: Option<String>,
    /// When the bearer in hand ends; `None` while there is none.
    pub ends: Option<Timestamp>,
    pub trouble: Option<BearerTrouble>,
    /// When the certificate ends that proves who we are, where one does.
    pub certificate_ends: Option<Timestamp>,
    /// Token requests made since the start.
    pub requests: u64,
}

impl BearerView {
    /// What it is and how long it lasts, in words.
    pub fn told(&self, now: Timestamp) -> String {
        let client = self.client.as_ref();
        let of = client.map_or(String::new(), |client| format!(" (client id {client})"));
        let lasts = match self.ends {
            Some(ends) if ends > now => format!("it lasts until {ends:.0}"),
            _ => "none is in hand".to_owned(),
        };
        format!("the bearer of {}{of}, {lasts}", self.kind)
    }

    /// What is wrong with it and until when that does no harm; `None` where nothing is.
    pub fn complaint(&self, now: Timestamp) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        let clause = trouble.cause.clause(self.kind);
        Some(match self.usable_until(now) {
            Some(ends) => format!(
                "{clause}: the bearer in hand lasts until {ends:.0}, and calls go on until then"
            ),
            None => format!("{clause}: nothing is issued, revoked or deleted until that is over"),
        })
    }

    /// Until when calls can be made; `None` where none can.
    pub fn usable_until(&self, now: Timestamp) -> Option<Timestamp> {
        let refused = [BearerCause::MissingRole, BearerCause::Challenged];
        let trouble = self.trouble.as_ref();
        let is_taken = trouble.is_none_or(|trouble| !refused.contains(&trouble.cause));
        self.ends.filter(|ends| is_taken && *ends > now)
    }

    /// What is to be done where somebody else may call in its name, or before its proof ends.
    pub fn replacement(&self, resource: &ResourceName) -> String {
        match self.kind {
            BearerKind::ManagedIdentity | BearerKind::WorkloadIdentity => format!(
                "take its role on {resource} away, or delete its federated credential, where somebody else has it; there \
                 is no secret to replace"
            ),
            BearerKind::ClientSecret => format!(
                "make a new client secret (az ad app credential reset --id CLIENT_ID --append), put it in place \
                 (`renewd key set {resource} --entra`), then delete the old one"
            ),
            BearerKind::ClientCertificate => format!(
                "register a new certificate (az ad app credential reset --id CLIENT_ID --cert @NAME.crt --append), put it \
                 in place (`renewd key set {resource} --entra`), then delete the old one"
            ),
        }
    }
}

impl BearerTrouble {
    /// The reason and what can be done about it.
    pub fn advice(&self, resource: &ResourceName) -> String {
        let told = self.told.trim_end_matches('.');
        format!("{told}. {}", self.cause.remedy(resource))
    }
}

/// Why there is no new bearer, or why the one in hand is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BearerTrouble {
    pub since: Timestamp,
    pub cause: BearerCause,
    /// The reason in a sentence, without a secret.
    pub told: String,
}

/// What trouble with a bearer is about. Only the first two go away without a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BearerCause {
    /// Whoever gives bearers does not answer.
    Unanswered,
    /// It answers, and asks us to wait.
    Throttled,
    WrongSecret,
    CertificateExpired,
    WrongCertificate,
    /// The machine does not have this managed identity.
    UnknownIdentity,
    /// The tenant does not have this application.
    UnknownClient,
    /// ACS does not take the bearer.
    MissingRole,
    /// Whatever else is refused until somebody changes something.
    Misconfigured,
    /// ACS asked for another bearer, and did not take that one either.
    Challenged,
}

impl BearerCause {
    pub const ALL: [Self; 10] = [
        Self::Unanswered,
        Self::Throttled,
        Self::WrongSecret,
        Self::CertificateExpired,
        Self::WrongCertificate,
        Self::UnknownIdentity,
        Self::UnknownClient,
        Self::MissingRole,
        Self::Misconfigured,
        Self::Challenged,
    ];

    /// The word in JSON and in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::Throttled => "throttled",
            Self::WrongSecret => "wrong_secret",
            Self::CertificateExpired => "certificate_expired",
            Self::WrongCertificate => "wrong_certificate",
            Self::UnknownIdentity => "unknown_identity",
            Self::UnknownClient => "unknown_client",
            Self::MissingRole => "missing_role",
            Self::Misconfigured => "misconfigured",
            Self::Challenged => "challenged",
        }
    }

    /// What is wrong, in a clause.
    fn clause(self, kind: BearerKind) -> &'static str {
        let is_machine = kind == BearerKind::ManagedIdentity;
        match self {
            Self::Unanswered if is_machine => {
                "Entra ID does not answer by the metadata service of this machine"
            }
            Self::Unanswered => "Entra ID does not answer",
            Self::Throttled => "Entra ID asks to wait",
            Self::WrongSecret => "Entra ID refuses the client secret",
            Self::CertificateExpired => "the certificate that proves who calls has ended",
            Self::WrongCertificate => "Entra ID refuses the certificate",
            Self::UnknownIdentity => "this machine does not have the managed identity",
            Self::UnknownClient => "Entra ID does not know the app in this tenant",
            Self::MissingRole => {
                "ACS refuses whom Entra ID says is calling, most likely for want of a role"
            }
            Self::Misconfigured => "Entra ID gives no bearer",
            Self::Challenged => "ACS asks for another bearer again and again",
        }
    }

    /// Whether it is an outage, which ends by itself.
    pub fn is_outage(self) -> bool {
        matches!(self, Self::Unanswered | Self::Throttled)
    }

    /// What can be done about it, in a sentence.
    pub fn remedy(self, resource: &ResourceName) -> String {
        let take_up = format!("`renewd key set {resource} --entra`");
        match self {
            Self::Unanswered => {
                "It is asked again by itself; see that this machine reaches it.".to_owned()
            }
            Self::Throttled => "It is asked again as soon as it allows that.".to_owned(),
            Self::WrongSecret => {
                format!("Make a new client secret in Entra ID and put it in place, {take_up}.")
            }
            Self::CertificateExpired => {
                format!("Register a new certificate in Entra ID and put it in place, {take_up}.")
            }
            Self::WrongCertificate => format!(
                "Register this certificate with the application in Entra ID, or put a registered one in place, {take_up}."
            ),
            Self::UnknownIdentity => format!(
                "Assign the managed identity to this machine, or correct client_id, object_id or resource_id in \
                 [resource.entra] of {resource}."
            ),
            Self::UnknownClient => {
                format!("Correct tenant and client_id in [resource.entra] of {resource}.")
            }
            Self::MissingRole => format!(
                "Give this identity a role on the Communication Services resource of {resource} that lets it read and \
                 write there (docs/entra.md names it); an assignment takes some minutes to be in force."
            ),
            Self::Misconfigured => format!(
                "Correct what the reason names, in [resource.entra] of {resource} or in Entra ID (docs/entra.md)."
            ),
            Self::Challenged => {
                "Look at the Conditional Access policies that apply to this identity.".to_owned()
            }
        }
    }
}
