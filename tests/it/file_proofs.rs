//! Proofs of the way in which files are written: the order of its steps as the kernel sees them, and
//! what is left when a step fails, when the disk is read-only, and when the process is killed.
//!
//! Some tests run this very program again as a writer that is watched, disturbed or killed.

mod env;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use renewd::{
    config::{FileFormat, FileSinkSettings},
    model::{Secret, Timestamp, TokenDocument},
    sinks::{
        DeliveryOutcome, Receipt,
        file::{FileError, FileSink},
    },
};
use tempfile::TempDir;

use crate::samples::{delivery, document, token};

/// Tells the writer where to write; the number is the version to begin with.
const WRITER: &str = "RENEWD_TEST_WRITER";
/// Tells the writer to go on until it is killed.
const FOREVER: &str = "RENEWD_TEST_WRITER_FOREVER";

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    folder
}

fn sink(folder: &Path, below: &str, format: FileFormat) -> FileSink {
    let path = format!("{}/{below}", folder.display());
    let settings = FileSinkSettings {
        format,
        ..FileSinkSettings::new("files".parse().unwrap(), path)
    };
    FileSink::new(&settings, true).unwrap()
}

fn put(sink: &FileSink, document: TokenDocument) -> Result<DeliveryOutcome, FileError> {
    let delivery = delivery(document, &["65534"]);
    let put = sink.deliver(delivery, Timestamp::UNIX_EPOCH);
    futures_util::future::FutureExt::now_or_never(put)
        .expect("inline work never waits")
        .map(|receipt| receipt.outcome)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// This program once more, as the writer below, with other programs before it.
fn writer(before: &[&str], folder: &Path, version: u64) -> Command {
    writing(
        "file_proofs::a_write_follows_the_recipe",
        before,
        folder,
        version,
    )
}

/// The same for the writer of another test.
fn writing(test: &str, before: &[&str], folder: &Path, version: u64) -> Command {
    let exe = std::env::current_exe().unwrap();
    let line: Vec<_> = before
        .iter()
        .map(std::ffi::OsString::from)
        .chain([exe.into_os_string()])
        .collect();
    let mut command = Command::new(&line[0]);
    command
        .args(&line[1..])
        .args(["--exact", test])
        .env(WRITER, format!("{version}:{}", folder.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// What the process does that is started by [`writer`]; panics where the write is refused.
fn be_the_writer(what: &str) {
    let (version, folder) = what.split_once(':').unwrap();
    let mut version: u64 = version.parse().unwrap();
    let sink = sink(Path::new(folder), "{name}.json", FileFormat::Json);
    loop {
        put(&sink, document("bot", version)).unwrap();
        version += 1;
        if std::env::var_os(FOREVER).is_none() {
            return;
        }
    }
}

/// The calls on the files of a folder, in order, as strace tells of them.
fn traced(trace: &str) -> Vec<String> {
    let calls = [
        "openat(",
        "fchmod(",
        "fsetxattr(",
        "write(",
        "fsync(",
        "renameat(",
    ];
    let mut temporary = String::new();
    let mut folder = String::new();
    let mut seen = Vec::new();
    for line in trace.lines() {
        let line = line
            .split_once(' ')
            .map_or(line, |(_, line)| line.trim_start());
        let Some(call) = calls.iter().find(|call| line.starts_with(*call)) else {
            continue;
        };
        let on = line[call.len()..].split([',', ')']).next().unwrap();
        if *call == "openat(" && line.contains(".bot.json.renewd-") {
            for how in ["O_CREAT|O_EXCL", "O_NOFOLLOW|O_CLOEXEC, 0600)"] {
                assert!(line.contains(how), "{line}");
            }
            temporary = line.rsplit("= ").next().unwrap().to_owned();
            folder = on.to_owned();
            seen.push("open the temporary file".to_owned());
        } else if *call == "renameat(" {
            assert!(line.starts_with(&format!("renameat({folder}, \".bot.json.renewd-")));
            assert!(line.contains(&format!("{folder}, \"bot.json\"")), "{line}");
            seen.push("renameat".to_owned());
        } else if !temporary.is_empty() && on == temporary {
            seen.push(format!("{}file", call.replace('(', " ")));
        } else if !temporary.is_empty() && on == folder && *call == "fsync(" {
            seen.push("fsync folder".to_owned());
        }
    }
    seen
}

#[test]
fn a_write_follows_the_recipe() {
    if let Ok(what) = std::env::var(WRITER) {
        return be_the_writer(&what);
    }
    let folder = folder();
    let out = folder.path().join("trace");
    let told = out.display().to_string();
    let strace = ["strace", "-f", "-o", &told];
    let status = writer(&strace, folder.path(), 1).status().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(
        traced(&fs::read_to_string(&out).unwrap()),
        [
            "open the temporary file",
            "fchmod file",
            "fsetxattr file",
            "write file",
            "fsync file",
            "renameat",
            "fsync folder",
        ]
    );
}

/// So many files, which the writer of the next test writes at once.
const FILES: u64 = 5;

/// Writes them when all of them wait for the one thread that there is.
fn write_together(folder: &Path) -> Vec<Result<DeliveryOutcome, FileError>> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).build().unwrap();
    runtime.block_on(deliver_together(folder))
}

async fn deliver_together(folder: &Path) -> Vec<Result<DeliveryOutcome, FileError>> {
    let path = format!("{}/{{name}}.json", folder.display());
    let settings = FileSinkSettings::new("files".parse().unwrap(), path);
    let sink = FileSink::new(&settings, false).unwrap();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let thread = tokio::task::spawn_blocking(move || held.recv().is_err());
    let write = |number| {
        let document = document(&format!("bot{number}"), 1);
        sink.deliver(delivery(document, &[]), Timestamp::UNIX_EPOCH)
    };
    let all = futures_util::future::join_all((0..FILES).map(write));
    // All of them have been polled once, in order, when it comes to the end of what holds the thread up.
    let (written, ()) = tokio::join!(all, async move { drop(release) });
    assert!(thread.await.unwrap());
    let outcome = |written: Result<Receipt, _>| written.map(|receipt| receipt.outcome);
    written.into_iter().map(outcome).collect()
}

#[test]
fn files_of_one_folder_are_flushed_each_and_their_folder_once() {
    if let Ok(what) = std::env::var(WRITER) {
        let (_, folder) = what.split_once(':').unwrap();
        let written = write_together(Path::new(folder)).into_iter();
        return written.for_each(|outcome| assert_eq!(outcome.unwrap(), DeliveryOutcome::Written));
    }
    let (folder, other) = (folder(), folder());
    let out = other.path().join("trace");
    let told = out.display().to_string();
    let calls = "trace=openat,fsync,renameat";
    let strace = ["strace", "-f", "-y", "-e", calls, "-o", &told];
    let name = "file_proofs::files_of_one_folder_are_flushed_each_and_their_folder_once";
    let status = writing(name, &strace, folder.path(), 1).status().unwrap();
    assert!(status.success(), "{status}");
    let here = folder.path().display().to_string();
    let trace = fs::read_to_string(&out).unwrap();
    let seen: Vec<&str> = trace
        .lines()
        .filter(|line| line.contains(&here))
        .filter_map(|line| match line.contains(".renewd-") {
            true if line.contains("O_CREAT") => Some("make"),
            true if line.contains("fsync(") => Some("flush"),
            true if line.contains("renameat(") => Some("rename"),
            false if line.contains("fsync(") => Some("flush the folder"),
            _ => None,
        })
        .collect();
    let files = FILES as usize;
    let mut recipe = vec!["make"; files];
    recipe.extend(["flush", "rename"].repeat(files));
    recipe.push("flush the folder");
    assert_eq!(seen, recipe);
    assert_eq!(names(folder.path()).len(), files);
}

#[test]
fn one_that_cannot_be_written_fails_alone_among_many() {
    let folder = folder();
    let in_the_way = folder.path().join("bot2.json");
    fs::create_dir(&in_the_way).unwrap();
    for expected in [DeliveryOutcome::Written, DeliveryOutcome::Unchanged] {
        for (number, outcome) in write_together(folder.path()).into_iter().enumerate() {
            match number {
                2 => {
                    let error = outcome.unwrap_err().to_string();
                    assert!(error.contains("bot2.json"), "{error}");
                }
                _ => assert_eq!(outcome.unwrap(), expected),
            }
        }
        assert_eq!(
            names(folder.path()).len() as u64,
            FILES,
            "nothing is left beside them"
        );
    }
    fs::remove_dir(in_the_way).unwrap();
    let outcomes = write_together(folder.path()).into_iter();
    let written = outcomes.filter(|outcome| matches!(outcome, Ok(DeliveryOutcome::Written)));
    assert_eq!(written.count(), 1);
}

#[test]
fn a_new_folder_is_kept_together_with_its_name() {
    if let Ok(what) = std::env::var(WRITER) {
        return be_the_writer(&what);
    }
    let folder = folder();
    let out = folder.path().join("trace");
    let told = out.display().to_string();
    let strace = [
        "strace",
        "-f",
        "-y",
        "-e",
        "mkdirat,fsync,renameat",
        "-o",
        &told,
    ];
    let status = writer(&strace, &folder.path().join("a/b"), 1)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let here = folder.path().display().to_string();
    let seen: Vec<String> = fs::read_to_string(&out)
        .unwrap()
        .lines()
        .filter(|line| line.contains(&here))
        .map(|line| {
            let call = line
                .split_once(' ')
                .map_or(line, |(_, rest)| rest.trim_start());
            let call = call.replace(&here, "");
            let (name, rest) = call.split_once('(').unwrap();
            let (_, on) = rest.split_once('<').unwrap();
            format!("{name} {}", on.split('>').next().unwrap())
        })
        .filter(|call| !call.contains("bot.json"))
        .collect();
    assert_eq!(
        seen,
        [
            "mkdirat ",
            "fsync /a",
            "fsync ",
            "mkdirat /a",
            "fsync /a/b",
            "fsync /a",
            "renameat /a/b",
            "fsync /a/b",
        ]
    );
}

/// Each step fails as a full disk, a quota or a broken one would have it: the old file stays to the byte
/// and nothing lies beside it.
#[test]
fn whichever_step_fails_the_old_file_stays() {
    let folder = folder();
    let path = folder.path().join("bot.json");
    put(
        &sink(folder.path(), "{name}.json", FileFormat::Json),
        document("bot", 1),
    )
    .unwrap();
    let before = fs::read(&path).unwrap();
    for (call, error) in [
        ("fchmod", "EIO"),
        ("fsetxattr", "ENOSPC"),
        ("fsetxattr", "EDQUOT"),
        ("fsync", "ENOSPC"),
        ("fsync", "EDQUOT"),
        ("fsync", "EIO"),
        ("renameat", "EROFS"),
        ("renameat", "EBUSY"),
    ] {
        let inject = format!("inject={call}:error={error}:when=1");
        let strace = ["strace", "-f", "-o", "/dev/null", "-e", &inject];
        let status = writer(&strace, folder.path(), 2).status().unwrap();
        assert_eq!(
            status.code(),
            Some(101),
            "{call} {error}: the write was refused"
        );
        assert_eq!(fs::read(&path).unwrap(), before, "{call} {error}");
        assert_eq!(names(folder.path()), ["bot.json"], "{call} {error}");
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_file_and_the_next_start_no_other() {
    let folder = folder();
    let path = folder.path().join("bot.json");
    let sink = sink(folder.path(), "{name}.json", FileFormat::Json);
    put(&sink, document("bot", 1)).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(15);
    let (mut newest, mut leftovers) = (1, 0);
    let rounds = if std::env::var_os("RENEWD_TEST_SCALE").is_some() {
        1000
    } else {
        40
    };
    for _ in 0..rounds {
        let mut child = writer(&[], folder.path(), newest + 1)
            .env(FOREVER, "1")
            .spawn()
            .unwrap();
        let began = newest;
        // It has begun to write when the version has moved; then it is killed at some moment.
        while version(&path) == began {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_micros(rng.random_range(0..3000)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let now = version(&path);
        assert!(now > newest, "it goes on where it was");
        newest = now;
        leftovers += names(folder.path()).len() - 1;
        let swept = futures_util::future::FutureExt::now_or_never(sink.sweep());
        swept.unwrap().unwrap();
        assert_eq!(names(folder.path()), ["bot.json"]);
    }
    assert!(leftovers > 0, "some were killed in the middle");
}

/// The version that the file holds, which is whole whenever it is read.
fn version(path: &Path) -> u64 {
    let document: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let version = document["version"].as_u64().unwrap();
    assert_eq!(document["token"], token(version));
    version
}

/// A file system in memory, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn run(&self, program: &str, args: &[&str]) {
        let status = Command::new(program).args(args).arg(&self.0).status();
        assert!(status.unwrap().success(), "{program} {args:?} needs root");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().ok();
    }
}

#[test]
fn a_read_only_disk_keeps_the_old_file_and_says_what_to_do() {
    let folder = folder();
    let disk = Disk(folder.path().join("disk"));
    fs::create_dir(&disk.0).unwrap();
    disk.run(
        "mount",
        &["-t", "tmpfs", "-o", "size=64k,mode=711", "tmpfs"],
    );
    let sink = sink(&disk.0, "{name}", FileFormat::Token);
    put(&sink, document("bot", 1)).unwrap();
    disk.run("mount", &["-o", "remount,ro"]);
    let error = put(&sink, document("bot", 2)).unwrap_err().to_string();
    assert!(
        error.contains("Read-only") && error.contains("ReadWritePaths="),
        "{error}"
    );
    assert_eq!(fs::read_to_string(disk.0.join("bot")).unwrap(), token(1));
    assert_eq!(names(&disk.0), ["bot"]);
    disk.run("mount", &["-o", "remount,rw"]);
    put(&sink, document("bot", 2)).unwrap();
    assert_eq!(fs::read_to_string(disk.0.join("bot")).unwrap(), token(2));
}

#[test]
fn a_file_that_is_mounted_on_is_refused_and_the_option_named() {
    let folder = folder();
    let (real, mounted) = (folder.path().join("real"), folder.path().join("bot"));
    fs::write(&real, "").unwrap();
    fs::write(&mounted, "").unwrap();
    let mount = Command::new("mount")
        .arg("--bind")
        .arg(&real)
        .arg(&mounted)
        .status();
    assert!(mount.unwrap().success(), "needs root");
    let _unmounts = Disk(mounted.clone());
    let error = put(
        &sink(folder.path(), "{name}", FileFormat::Token),
        document("bot", 1),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("write = \"in-place\""), "{error}");
    assert_eq!(names(folder.path()), ["bot", "real"]);
    let settings = FileSinkSettings {
        format: FileFormat::Token,
        write: renewd::config::WriteMode::InPlace,
        ..FileSinkSettings::new("files".parse().unwrap(), mounted.display().to_string())
    };
    let in_place = FileSink::new(&settings, true).unwrap();
    // Longer and shorter ones: nothing of an old one is left.
    for version in [1, 49, 50, 99] {
        assert_eq!(
            put(&in_place, document("bot", version)).unwrap(),
            DeliveryOutcome::Written
        );
        assert_eq!(fs::read_to_string(&real).unwrap(), token(version));
        assert_eq!(
            put(&in_place, document("bot", version)).unwrap(),
            DeliveryOutcome::Unchanged
        );
    }
    let held = crate::samples::held("bot", 100);
    assert_eq!(
        put(&in_place, held.clone()).unwrap(),
        DeliveryOutcome::Removed
    );
    assert_eq!(
        fs::read_to_string(&real).unwrap(),
        "",
        "whoever mounted it loses the token"
    );
    assert_eq!(put(&in_place, held).unwrap(), DeliveryOutcome::Unchanged);
}

#[test]
fn a_file_is_given_to_its_owner_before_it_is_seen() {
    use std::os::unix::fs::MetadataExt;
    let folder = folder();
    let settings = FileSinkSettings {
        owner: Some("65534".to_owned()),
        group: Some("65533".to_owned()),
        mode: 0o400,
        ..FileSinkSettings::new(
            "files".parse().unwrap(),
            format!("{}/{{name}}", folder.path().display()),
        )
    };
    let sink = FileSink::new(&settings, true).unwrap();
    for version in [1, 2] {
        assert_eq!(
            put(&sink, document("bot", version)).unwrap(),
            DeliveryOutcome::Written
        );
        assert_eq!(
            put(&sink, document("bot", version)).unwrap(),
            DeliveryOutcome::Unchanged
        );
        let found = fs::metadata(folder.path().join("bot")).unwrap();
        assert_eq!((found.uid(), found.gid()), (65534, 65533));
    }
    let path = folder.path().join("bot");
    std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
    assert_eq!(
        put(&sink, document("bot", 2)).unwrap(),
        DeliveryOutcome::Written,
        "drift"
    );
    assert_eq!(fs::metadata(&path).unwrap().uid(), 65534);
}
