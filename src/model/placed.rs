//! Where a file was put and what was in it, so that it can be taken back without taking anything else.

use std::path::PathBuf;

/// A file that a sink has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of what was written.
    pub digest: [u8; 32],
}
