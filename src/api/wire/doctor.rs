//! What `doctor` found, as JSON.

use serde::{Deserialize, Serialize};

use super::Need;
use crate::{
    config::{Finding, Severity},
    model::Served,
};

/// `GET /v1/doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    /// Who looked.
    pub by: Examiner,
    /// The user that looked: what may be read and written depends on it.
    pub user: String,
    /// Who holds a live token; `None` where no daemon was asked, or it does not know.
    #[serde(default)]
    pub consumers: Option<Served>,
    /// What needs a person by what the daemon knows, the worst first; `None` where no daemon was asked.
    #[serde(default)]
    pub needs: Option<Vec<Need>>,
    /// What is wrong around it, the worst first.
    pub findings: Vec<Ailment>,
}

/// Who looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Examiner {
    /// The daemon, from inside its sandbox.
    Daemon,
    /// The command, with what its own user may see.
    Command,
}

/// One thing that is wrong, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ailment {
    /// Whether it cannot work, or only looks odd.
    pub severity: Gravity,
    /// The key of the configuration that it is about, such as `sink.file[0].path`.
    pub at: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do: a command or the lines of a drop-in.
    pub fix: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gravity {
    /// It can work, but is odd.
    Warning,
    /// It cannot work.
    Error,
}

impl Examination {
    /// Whether anything cannot work.
    pub fn any_error(&self) -> bool {
        let mut findings = self.findings.iter();
        let mut needs = self.needs.iter().flatten();
        findings.any(|finding| finding.severity == Gravity::Error)
            || needs.any(|need| need.kind.is_grave())
    }
}

impl From<Finding> for Ailment {
    fn from(finding: Finding) -> Self {
        Self {
            severity: match finding.severity {
                Severity::Warning => Gravity::Warning,
                Severity::Error => Gravity::Error,
            },
            at: finding.path,
            message: finding.message,
            fix: finding.hint,
        }
    }
}
