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
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let core = limit_core_files(none);
    let dumpable = keep_debuggers_out();
    core.map_err(|source| HardeningError {
        what: "forbid core files",
        source,
    })?;
    dumpable
}

/// Makes what the process and the programs that it starts create private, where nobody says otherwise.
pub fn make_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// What a process was given before it hardened itself, for programs that are not ours: their core files
/// and the modes of their files are their owner's matter.
#[derive(Debug)]
pub struct Given {
    core: Rlimit,
    mask: Mode,
}

impl Given {
    /// As [`harden`] and [`make_private`] together, such that a program can be given all of it back.
    ///
    /// # Errors
    /// As [`harden`].
    pub fn put_aside() -> Result<Self, HardeningError> {
        let core = getrlimit(Resource::Core);
        let mask = umask(Mode::RWXG | Mode::RWXO);
        let none = Rlimit {
            current: Some(0),
            ..core
        };
        limit_core_files(none).map_err(|source| HardeningError {
            what: "forbid core files",
            source,
        })?;
        keep_debuggers_out()?;
        Ok(Self { core, mask })
    }

    /// Starts a program by `start`, which inherits what was put aside.
    pub fn lend<T>(&self, start: impl FnOnce() -> T) -> T {
        let ours = getrlimit(Resource::Core);
        // Where the limit cannot be lifted again, the program just leaves no core file.
        limit_core_files(self.core).ok();
        let mask = umask(self.mask);
        let started = start();
        umask(mask);
        limit_core_files(ours).ok();
        started
    }
}

fn keep_debuggers_out() -> Result<(), HardeningError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|source| HardeningError {
        what: "keep debuggers of its own user out",
        source: source.into(),
    })
}

/// The unit has `LimitCORE=0` and its sandbox refuses `setrlimit`, so a limit of 0 is left alone.
fn limit_core_files(limit: Rlimit) -> io::Result<()> {
    if getrlimit(Resource::Core) == limit {
        return Ok(());
    }
    Ok(setrlimit(Resource::Core, limit)?)
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
