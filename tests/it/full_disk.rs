//! The disk of the store runs full under the daemon: renewals and withdrawals go on with the reserve, a
//! person is told, and all is as before once there is room.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;

use crate::stage::{Daemon, Emulator, Stage, identities};

/// A disk of its own for the state directory.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf, mib: u32) -> Self {
        fs::create_dir_all(&at).unwrap();
        let size = format!("size={mib}m,mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&at)
            .status();
        assert!(mounted.unwrap().success(), "root can mount a small disk");
        Self(at)
    }

    /// Leaves nothing free.
    fn fill(&self) {
        let block = vec![0x5a_u8; 64 * 1024];
        let mut filler = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.filler())
            .unwrap();
        while std::io::Write::write_all(&mut filler, &block).is_ok() {}
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount")
            .arg("--lazy")
            .arg(&self.0)
            .status()
            .ok();
    }
}

/// Waits until the daemon's status says so of the disk.
async fn until(stage: &Stage, daemon: &Daemon, full: bool) {
    let told = async {
        loop {
            let status = daemon.status(&stage.path("renewd.sock"));
            let needs = status["needs"].as_array().cloned().unwrap_or_default();
            if needs.iter().any(|need| need["kind"] == "disk_full") == full {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), told).await;
    assert!(
        waited.is_ok(),
        "status never said disk_full = {full}: {}",
        daemon.log()
    );
}

async fn renewed(stage: &Stage, name: &str) {
    let waited = tokio::time::timeout(Duration::from_secs(60), stage.renewed(name)).await;
    assert!(
        waited.is_ok(),
        "{name} was not renewed: {}",
        stage.explain(name)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_renewals_and_withdrawals_go_on_with_the_reserve() {
    let emulator = Emulator::start(&["--token-ttl", "10s"]);
    let stage = Stage::new(&emulator);
    let disk = Disk::mount(stage.path("state"), 64);
    let config =
        stage.base_config() + &stage.sinks_config(None) + &identities("bot", 20, &["files"]);
    let daemon = Daemon::start(&stage.configure(&config)).await;
    stage.there("bot-0").await;
    let reserve = disk.0.join("renewd.reserve");
    assert_eq!(
        fs::metadata(&reserve).unwrap().len(),
        8 << 20,
        "an eighth of the disk"
    );
    until(&stage, &daemon, false).await;

    disk.fill();
    until(&stage, &daemon, true).await;
    assert!(!reserve.exists(), "the reserve was given back");
    renewed(&stage, "bot-0").await;
    renewed(&stage, "bot-19").await;
    let held = stage.renewd(&["hold", "bot-3", "--yes"]);
    assert!(
        held.status.success(),
        "{}",
        String::from_utf8_lossy(&held.stderr)
    );
    assert_eq!(stage.document("bot-3").unwrap()["token"], Value::Null);
    // A start on the full disk goes as well.
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&stage.path("renewd.toml")).await;
    until(&stage, &daemon, true).await;
    renewed(&stage, "bot-0").await;

    fs::remove_file(disk.filler()).unwrap();
    until(&stage, &daemon, false).await;
    assert_eq!(fs::metadata(&reserve).unwrap().len(), 8 << 20);
    let told = stage.renewd(&["hold", "bot-4", "--yes"]);
    assert!(told.status.success());
    assert!(daemon.stop().success());
}
