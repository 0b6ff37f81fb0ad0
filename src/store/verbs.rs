//! The verbs of [`Store`](super::Store), as the rest of the daemon speaks them, by who speaks them. Each
//! is one transaction or one read.

mod campaigns;
mod deliveries;
mod identities;
mod keys;

pub use identities::Holding;

/// What a verb answers.
type Answer<T> = Result<T, super::StoreError>;
