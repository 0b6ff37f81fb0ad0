//! What an answer from the database says of identities: the mirror of a node has to say the same before it goes out.

use super::{Consignment, Delivery, Holding, Led, Member};
use crate::model::{Name, Record, State, TokenDocument, Version};

/// What an answer says of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnsweredRow {
    pub(super) name: Name,
    /// None where it says that there is none.
    pub(super) version: Option<Version>,
    state: Option<State>,
    is_revoked: Option<bool>,
}

impl AnsweredRow {
    pub(super) fn absent(name: Name) -> Self {
        Self {
            name,
            version: None,
            state: None,
            is_revoked: None,
        }
    }

    /// Whether a row says the same: its version, whether its token was revoked, its state.
    pub(super) fn is_said_by(&self, row: Option<&(Version, bool, String)>) -> bool {
        match (self.version, row) {
            (None, None) => true,
            (Some(told), Some((version, is_revoked, state))) => {
                told == *version
                    && self.state.is_none_or(|told| told.as_str() == state)
                    && self.is_revoked.is_none_or(|told| told == *is_revoked)
            }
            _ => false,
        }
    }

    /// Whether a row says what came after: a higher version, or that the token of this one was revoked.
    pub(super) fn is_older_than(&self, (version, is_revoked, _): &(Version, bool, String)) -> bool {
        let revoked_since = *is_revoked && self.is_revoked == Some(false);
        self.version
            .is_some_and(|told| told < *version || (told == *version && revoked_since))
    }
}

/// What is answered from the database, and has to be in the mirror before.
pub(super) trait Answered {
    fn tell(&self, told: &mut Vec<AnsweredRow>);
}

impl Answered for Record {
    fn tell(&self, told: &mut Vec<AnsweredRow>) {
        told.push(AnsweredRow {
            name: self.spec.name.clone(),
            version: Some(self.version),
            state: Some(self.state),
            is_revoked: Some(self.revoked),
        });
    }
}

impl Answered for TokenDocument {
    fn tell(&self, told: &mut Vec<AnsweredRow>) {
        told.push(AnsweredRow {
            name: self.name.clone(),
            version: Some(self.version),
            state: Some(self.state),
            is_revoked: None,
        });
    }
}

impl Answered for Consignment {
    fn tell(&self, told: &mut Vec<AnsweredRow>) {
        self.document.tell(told);
        if let Some(last) = told.last_mut().filter(|_| self.document.token.is_some()) {
            last.is_revoked = Some(self.revoked);
        }
    }
}

impl Answered for Holding {
    fn tell(&self, told: &mut Vec<AnsweredRow>) {
        self.record.tell(told);
    }
}

impl Answered for Led {
    fn tell(&self, told: &mut Vec<AnsweredRow>) {
        if let Self::There(record) = self {
            record.tell(told);
        }
    }
}

impl Answered for Member {
    fn tell(&self, told: &mut Vec<AnsweredRow>) {
        self.consignment.tell(told);
    }
}

impl<T: Answered> Answered for Option<T> {
    fn tell(&self, told: &mut Vec<AnsweredRow>) {
        self.iter().for_each(|one| one.tell(told));
    }
}

impl<T: Answered, E> Answered for Result<T, E> {
    fn tell(&self, told: &mut Vec<AnsweredRow>) {
        self.iter().for_each(|one| one.tell(told));
    }
}

impl<T: Answered> Answered for Vec<T> {
    fn tell(&self, told: &mut Vec<AnsweredRow>) {
        self.iter().for_each(|one| one.tell(told));
    }
}

/// What names no version says nothing that could fall.
macro_rules! says_nothing {
    ($($kind:ty),*) => {
        $(impl Answered for $kind {
            fn tell(&self, _: &mut Vec<AnsweredRow>) {}
        })*
    };
}

says_nothing!(bool, i64, Delivery);
