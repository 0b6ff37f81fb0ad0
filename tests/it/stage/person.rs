//! Somebody with a home and nothing of systemd: `nobody` where the tests run as root.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::RENEWD;

pub struct Person {
    home: tempfile::TempDir,
    /// A copy of the program that everybody may run.
    pub program: PathBuf,
    pub id: u32,
}

impl Person {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid();
        let id = if own.is_root() { 65534 } else { own.as_raw() };
        let program = home.path().join("renewd");
        // By a process of its own: what this one has open for writing, a fork of another test keeps open, and
        // then the copy cannot be run.
        let copied = Command::new("cp")
            .arg(RENEWD)
            .arg(&program)
            .status()
            .unwrap();
        assert!(copied.success());
        let person = Self { home, program, id };
        person.own(person.home.path());
        person
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.home.path().join(inside)
    }

    /// Makes a file or folder theirs.
    pub fn own(&self, path: &Path) {
        chown(path, Some(self.id), Some(self.id)).unwrap();
    }

    pub fn mode(&self, inside: &str) -> u32 {
        fs::metadata(self.path(inside))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    }

    /// A program as them, with their home and these variables alone.
    pub fn runs(&self, program: &Path, variables: &[(&str, &Path)]) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.home.path());
        command.current_dir(self.home.path());
        command.envs(variables.iter().copied());
        if rustix::process::geteuid().is_root() {
            command.uid(self.id).gid(self.id);
        }
        command
    }

    pub fn command(&self, args: &[&str], variables: &[(&str, &Path)]) -> Command {
        let mut command = self.runs(&self.program, variables);
        command.args(args);
        command
    }

    pub fn renewd(&self, args: &[&str], variables: &[(&str, &Path)]) -> Output {
        self.command(args, variables).output().unwrap()
    }
}
