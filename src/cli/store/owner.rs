//! The user whom the store belongs to. Root becomes that user before it opens anything there, so that
//! no file ends up in other hands and no link that lies there leads root astray.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, ExitStatus},
};

use super::super::exit::{Exit, Failed};

/// Whom to become.
pub(super) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// The owner of the state directory, where this is root and that is somebody else.
    pub(super) fn to_become(state_dir: &Path) -> Result<Option<Self>, Failed> {
        let found = match fs::metadata(state_dir) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !rustix::process::geteuid().is_root() {
                    return Ok(None);
                }
                return Err(Failed::usage(format!(
                    "there is no {}, and root does not know whose it shall be",
                    state_dir.display()
                ))
                .hint(format!(
                    "install -d -m 700 -o renewd -g renewd {}",
                    state_dir.display()
                )));
            }
            Err(error) => {
                let message = format!("cannot open {}: {error}", state_dir.display());
                return Err(Failed::usage(message));
            }
        };
        let other = found.uid() != rustix::process::geteuid().as_raw();
        let root = rustix::process::geteuid().is_root();
        Ok((root && other).then(|| Self {
            uid: found.uid(),
            gid: found.gid(),
        }))
    }

    /// This very program as that user.
    pub(super) fn renewd<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Command, Failed> {
        #[expect(
            clippy::disallowed_methods,
            reason = "it is this very program, as the user who may touch the store"
        )]
        let mut command = Command::new("/proc/self/exe");
        command
            .args(args)
            .uid(self.uid)
            .gid(self.gid)
            .current_dir("/");
        Ok(command)
    }
}

/// What a program that ran came to; it has said itself what is wrong.
pub(super) fn succeeded(status: io::Result<ExitStatus>) -> Result<(), Failed> {
    let status = status
        .map_err(|error| Failed::plain(format!("cannot become the owner of the store: {error}")))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Err(Failed::new(
        code.map_or(Exit::Failed, Exit::As),
        "nothing was changed here",
    ))
}
