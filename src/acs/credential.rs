//! What proves to a resource who calls: its access keys, or a bearer of Entra ID. What each signs with, what mints a
//! token, and what a refusal says of it.
//!
//! | | access keys | bearer |
//! |---|---|---|
//! | a request carries | an HMAC over it, with its date | the bearer |
//! | a token is minted by | the fingerprint of the key | `entra:` and the client id |
//! | 401 `Denied` | this key is refused: the other one is tried | after it was taken, another bearer is tried, once |
//! | 401 with claims | – | another bearer with those claims is tried, once |
//! | 403 | – | the identity has no role there |

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{AccessKey, ErrorCause, answer::Challenge, keys::KeyPair, request::Authorization};
use crate::{
    entra::{Bearer, Bearers},
    model::{BearerCause, KeyRole},
};

#[derive(Debug)]
pub(super) enum Credential {
    Keys(Mutex<KeyPair>),
    Entra(Bearers),
}

impl Credential {
    pub(super) fn keys(&self) -> Option<MutexGuard<'_, KeyPair>> {
        match self {
            Self::Keys(keys) => Some(keys.lock().unwrap_or_else(PoisonError::into_inner)),
            Self::Entra(_) => None,
        }
    }

    pub(super) fn bearers(&self) -> Option<&Bearers> {
        match self {
            Self::Keys(_) => None,
            Self::Entra(bearers) => Some(bearers),
        }
    }

    /// What a call begins with.
    pub(super) fn signer(&self) -> Signer {
        match self {
            Self::Keys(keys) => {
                let (role, key) = keys.lock().unwrap_or_else(PoisonError::into_inner).in_use();
                Signer::Key(KeySigner {
                    role,
                    key,
                    other_tried: false,
                })
            }
            Self::Entra(bearers) => Signer::Bearer(BearerSigner {
                bearers: bearers.clone(),
                bearer: None,
                challenged: false,
                replaced: false,
            }),
        }
    }
}

/// What one call is made with.
pub(super) enum Signer {
    Key(KeySigner),
    Bearer(BearerSigner),
}

pub(super) struct KeySigner {
    pub(super) role: KeyRole,
    pub(super) key: Arc<AccessKey>,
    pub(super) other_tried: bool,
}

pub(super) struct BearerSigner {
    bearers: Bearers,
    /// `None` until the first request.
    bearer: Option<Arc<Bearer>>,
    /// A challenge was answered.
    challenged: bool,
    /// Another one was tried because the first was refused.
    replaced: bool,
}

impl Signer {
    /// What the next request carries, within the call that ends at `ends`.
    pub(super) async fn authorization(
        &mut self,
        ends: std::time::Duration,
    ) -> Result<Authorization, ErrorCause> {
        match self {
            Self::Key(signer) => Ok(Authorization::Key(signer.key.clone())),
            Self::Bearer(signer) => {
                let bearer = match signer.bearer.take() {
                    Some(bearer) => bearer,
                    None => {
                        let asked = signer.bearers.bearer(ends).await;
                        asked.map_err(|error| ErrorCause::NoBearer(Box::new(error)))?
                    }
                };
                signer.bearer = Some(bearer.clone());
                Ok(Authorization::Bearer(bearer))
            }
        }
    }

    /// What tokens are minted by that come of this.
    pub(super) fn minter(&self) -> String {
        match self {
            Self::Key(signer) => signer.key.fingerprint().to_owned(),
            Self::Bearer(signer) => match &signer.bearer {
                Some(bearer) => bearer.minter().to_owned(),
                None => signer.bearers.minter(),
            },
        }
    }
}

impl BearerSigner {
    /// ACS took the bearer.
    pub(super) fn taken(&self) {
        if let Some(bearer) = &self.bearer {
            self.bearers.taken(bearer);
        }
    }

    /// After a refusal, another bearer, if one is to be had and was not tried yet; whether one more try is worth it.
    pub(super) async fn replace(
        &mut self,
        cause: &ErrorCause,
        challenge: Option<&Challenge>,
        ends: std::time::Duration,
    ) -> bool {
        if refusal(cause, challenge) != Some(BearerRefusal::Bearer) {
            return false;
        }
        let claims = challenge.and_then(|challenge| challenge.claims.as_deref());
        let tried = match claims {
            Some(_) => &mut self.challenged,
            None => &mut self.replaced,
        };
        if std::mem::replace(tried, true) {
            return false;
        }
        let Some(bearer) = &self.bearer else {
            return false;
        };
        let another = self.bearers.another(bearer, claims, ends).await;
        let found = another.is_some();
        self.bearer = another.or_else(|| self.bearer.take());
        found
    }
}

/// What a refusal of a call with a bearer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BearerRefusal {
    /// 401: this bearer.
    Bearer,
    /// 403: what its identity may do, or whom the call was for.
    Rights,
}

/// What a failed call with a bearer says of it; nothing, where it is none of the resource's own answers, such as a page
/// of something in between.
pub(super) fn refusal(cause: &ErrorCause, challenge: Option<&Challenge>) -> Option<BearerRefusal> {
    let ours = match cause {
        ErrorCause::Rejected(rejection) => !rejection.proves_key(),
        ErrorCause::Unreadable { .. } => challenge.is_some(),
        ErrorCause::NoAnswer(_) | ErrorCause::Unsent(_) | ErrorCause::NoBearer(_) => false,
    };
    match cause.status() {
        Some(401) if ours => Some(BearerRefusal::Bearer),
        Some(403) if ours => Some(BearerRefusal::Rights),
        _ => None,
    }
}

/// What people are told of a refusal that stands.
pub(super) fn trouble(challenge: Option<&Challenge>) -> BearerCause {
    match challenge.is_some_and(|challenge| challenge.claims.is_some()) {
        true => BearerCause::Challenged,
        false => BearerCause::MissingRole,
    }
}
