//! Sources of identities: how they are, and a wish that a list be taken over.

use serde::{Deserialize, Serialize};

use crate::model::SourceView;

/// `GET /v1/sources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Those that are configured, and those that no longer are and still list identities.
    pub sources: Vec<SourceView>,
}

/// `POST /v1/sources/{name}/apply`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplySource {
    /// Whether `max_removal`, and what protects like it, is set aside this once.
    #[serde(default)]
    pub yes: bool,
}
