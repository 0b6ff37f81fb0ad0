//! What the process does to itself, so that nobody can read its memory.

use std::io;

use rustix::{
    fs::Mode,
    process::{
        DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
    },
};

/// A protection that could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the process could not {what}, and does not read secrets without this protection")]
pub struct HardeningError {
    what: &'static str,
    source: io::Error,
}

/// Forbids core files and debuggers of the same user: both would show tokens. To be called before
/// a secret is read. Every protection is tried; the first that failed is returned.
pub fn harden() -> Result<(), HardeningError> {
    let core = forbid_core_files();
    let dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    core.map_err(|source| HardeningError {
        what: "forbid core files",
        source,
    })?;
    dumpable.map_err(|source| HardeningError {
        what: "keep debuggers of its own user out",
        source: source.into(),
    })
}

/// Makes what the process and the programs that it starts create private, where nobody says otherwise.
pub fn make_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// The unit has `LimitCORE=0` and its sandbox refuses `setrlimit`, so a limit of 0 is left alone.
fn forbid_core_files() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if getrlimit(Resource::Core) == none {
        return Ok(());
    }
    Ok(setrlimit(Resource::Core, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardening_twice_is_fine() {
        harden().unwrap();
        harden().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}
