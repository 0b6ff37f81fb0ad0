//! How an emulator is set up.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::StatusCode;

use renewd_acs_wire::Secret;

use super::{faults::Limits, mint::TokenAlg};

/// How an emulator is set up; the default is as near to the service as can be.
#[derive(Debug, Clone)]
pub struct EmulatorOptions {
    /// Everything random that is not a signature follows from it: keys, ids, faults.
    pub seed: u64,
    /// The resource's immutable id, a lower-case GUID; made from the seed if left out.
    pub resource_id: Option<String>,
    /// The primary access key, base64; made from the seed if left out.
    pub primary_key: Option<Secret>,
    /// The secondary access key, likewise.
    pub secondary_key: Option<Secret>,
    /// Every token lives this long, whatever is asked for.
    pub token_ttl: Option<Duration>,
    /// How tokens are signed.
    pub token_alg: TokenAlg,
    /// How many calls are let through.
    pub limits: Limits,
    /// How far a request's date may be off, each way.
    pub date_margin: Duration,
    /// What an identity that does not exist answers with.
    pub deleted_status: DeletedStatus,
    /// Takes unknown ids of its own resource for existing ones, and tokens of another emulator with
    /// the same resource id for its own: as if it had kept its state over a restart.
    pub adopt: bool,
    /// What the control door asks for; open if left out.
    pub control_secret: Option<Secret>,
}

impl Default for EmulatorOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            resource_id: None,
            primary_key: None,
            secondary_key: None,
            token_ttl: None,
            token_alg: TokenAlg::default(),
            limits: Limits::default(),
            date_margin: Duration::from_secs(300),
            deleted_status: DeletedStatus::default(),
            adopt: false,
            control_secret: None,
        }
    }
}

/// The status for an identity that does not exist. The service's is not established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedStatus(u16);

impl Default for DeletedStatus {
    fn default() -> Self {
        Self(404)
    }
}

impl DeletedStatus {
    pub(super) fn code(self) -> StatusCode {
        StatusCode::from_u16(self.0).unwrap_or(StatusCode::NOT_FOUND)
    }
}

impl std::str::FromStr for DeletedStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(status @ 400..=499) => Ok(Self(status)),
            _ => Err(format!("{text:?} is not a status from 400 to 499")),
        }
    }
}

/// An access key that cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {0} access key is not standard base64 of at least one byte")]
pub struct UnlikeAKey(pub(super) &'static str);

impl EmulatorOptions {
    /// Takes the keys from the text of a key file: the primary on the first line, the secondary on
    /// the second if there is one; both base64.
    ///
    /// # Errors
    /// When a line is not a key; the text is never quoted.
    pub fn with_key_file(mut self, text: &str) -> Result<Self, UnlikeAKey> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut key = |name| match lines.next() {
            None => Ok(None),
            Some(line) => match BASE64_STANDARD.decode(line) {
                Ok(bytes) if !bytes.is_empty() => Ok(Some(Secret::new(line.to_owned()))),
                _ => Err(UnlikeAKey(name)),
            },
        };
        let primary = key("primary")?.ok_or(UnlikeAKey("primary"))?;
        let secondary = key("secondary")?;
        self.primary_key = Some(primary);
        self.secondary_key = secondary;
        Ok(self)
    }
}
