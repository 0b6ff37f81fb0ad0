//! A named pipe: programs write to it, a test waits for what they say.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use nix::{sys::stat::Mode, unistd::mkfifo};

pub(super) struct Pipe {
    path: PathBuf,
}

impl Pipe {
    pub(super) fn new(path: PathBuf) -> Self {
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All that the next writer says until it closes the pipe.
    pub(super) async fn heard(&self) -> String {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            File::open(path).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        reading.await.unwrap()
    }
}
