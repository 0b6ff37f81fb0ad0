//! The files of certificates that are trusted (`ca_file`): read again every hour, so that a new one is taken up and one
//! that ends is told of, without a word from anybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use crate::{
    api::Command,
    clock::Clock,
    config,
    model::TrustFile,
    transport::{LARGEST_CA_FILE, first_end},
    worker::Task,
};

/// Between two looks at files of trust.
const EVERY: Duration = Duration::from_hours(1);

pub(super) struct TrustFiles {
    files: watch::Receiver<BTreeSet<PathBuf>>,
    found: watch::Sender<BTreeMap<PathBuf, TrustFile>>,
    commands: mpsc::Sender<Command>,
    clock: Clock,
    /// What each held at the last look.
    seen: BTreeMap<PathBuf, Vec<u8>>,
}

impl TrustFiles {
    pub(super) fn new(
        files: watch::Receiver<BTreeSet<PathBuf>>,
        found: watch::Sender<BTreeMap<PathBuf, TrustFile>>,
        commands: mpsc::Sender<Command>,
        clock: Clock,
    ) -> Self {
        Self {
            files,
            found,
            commands,
            clock,
            seen: BTreeMap::new(),
        }
    }

    /// What lies there now; whether it is something else than before.
    fn look(&mut self, path: &Path) -> (TrustFile, bool) {
        let content = match config::read_regular(path, LARGEST_CA_FILE) {
            Ok(content) => content,
            Err(error) => {
                let found = TrustFile {
                    ends: None,
                    trouble: Some(error.to_string()),
                };
                return (found, false);
            }
        };
        let ends = first_end(&content, self.clock.now());
        let found = TrustFile {
            ends,
            trouble: ends.is_none().then(|| "it holds no certificate".to_owned()),
        };
        let before = self.seen.insert(path.to_owned(), content.clone());
        let is_other = before.is_some_and(|before| before != content);
        (found, is_other && ends.is_some())
    }
}

impl Task for TrustFiles {
    async fn step(&mut self) -> Duration {
        let files = self.files.borrow_and_update().clone();
        self.seen.retain(|path, _| files.contains(path));
        let (mut found, mut is_other) = (BTreeMap::new(), false);
        for path in files {
            let (file, other) = self.look(&path);
            is_other |= other;
            found.insert(path, file);
        }
        self.found.send_replace(found);
        // Nobody listens any more at the end.
        if is_other && self.commands.send(Command::Retrust).await.is_err() {
            tracing::debug!("a file of authorities changed at the end");
        }
        EVERY
    }

    /// Other files are trusted.
    async fn woken(&mut self) {
        // The sender lives as long as the daemon.
        if self.files.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::worker;

    const CERTIFICATE: &str = include_str!("../../tests/it/fixtures/authority.pem");

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_taken_up_within_the_hour_and_one_that_is_gone_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, CERTIFICATE).unwrap();
        let (_files, files) = watch::channel(BTreeSet::from([path.clone()]));
        let found = watch::Sender::default();
        let (commands, mut asked) = mpsc::channel(8);
        let task = TrustFiles::new(
            files,
            found.clone(),
            commands,
            Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap()),
        );
        let stop = CancellationToken::new();
        let running = tokio::spawn(worker::repeat(task, stop.clone()));
        let hour = async || tokio::time::sleep(EVERY + Duration::from_secs(1)).await;
        let now = || found.borrow()[&path].clone();
        hour().await;
        assert!(now().ends.is_some() && now().trouble.is_none());
        assert!(asked.try_recv().is_err(), "it is as it was");
        std::fs::write(&path, format!("{CERTIFICATE}{CERTIFICATE}")).unwrap();
        hour().await;
        assert!(matches!(asked.try_recv(), Ok(Command::Retrust)));
        std::fs::write(&path, "nothing").unwrap();
        hour().await;
        assert_eq!(now().trouble.as_deref(), Some("it holds no certificate"));
        std::fs::remove_file(&path).unwrap();
        hour().await;
        assert!(now().trouble.is_some() && now().ends.is_none());
        assert!(asked.try_recv().is_err(), "what was trusted stays");
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
