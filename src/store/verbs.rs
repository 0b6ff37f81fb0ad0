//! The verbs of [`Store`](super::Store), as the rest of the house speaks them, by who speaks them. Each
//! is one transaction or one read.

mod access;
mod campaigns;
mod declaring;
mod delivering;
mod keeping;
mod keys;
mod ledger;
mod looking;
mod placing;
mod renewing;
mod scheduled;
mod sourcing;
mod watching;

pub use watching::Holding;

/// What a verb answers.
type Answer<T> = Result<T, super::StoreError>;
