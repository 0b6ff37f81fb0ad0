//! Token files: complete at every instant, readable by exactly whom they are for, never through a
//! link.

mod losing;
mod ways;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use renewd::{
    config::{FileFormat, FileSinkSettings},
    model::{State, Timestamp, TokenDocument},
    sinks::{
        DeliveryOutcome,
        file::{FileError, FileSink},
    },
};
use tempfile::TempDir;

use crate::samples::{delivery, document, held, token};

const NOBODY: u32 = 65_534;
const SOMEBODY: u32 = 65_533;

/// A folder that everyone may pass through, in memory where there is such.
fn folder() -> TempDir {
    let shm = Path::new("/dev/shm");
    passable(
        if shm.is_dir() {
            TempDir::new_in(shm)
        } else {
            TempDir::new()
        }
        .unwrap(),
    )
}

fn folder_on_disk() -> TempDir {
    passable(TempDir::new().unwrap())
}

fn passable(folder: TempDir) -> TempDir {
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    folder
}

fn sink(folder: &TempDir, below: &str, format: FileFormat) -> FileSink {
    let settings = FileSinkSettings {
        format,
        ..FileSinkSettings::new(
            "files".parse().unwrap(),
            format!("{}/{below}", folder.path().display()),
        )
    };
    FileSink::new(&settings, true).unwrap()
}

async fn put(
    sink: &FileSink,
    document: TokenDocument,
    readers: &[&str],
) -> Result<DeliveryOutcome, FileError> {
    let delivered = sink.deliver(delivery(document, readers), Timestamp::UNIX_EPOCH);
    delivered.await.map(|receipt| receipt.outcome)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn acl(path: &Path) -> Option<Vec<u8>> {
    let mut value = [0; 512];
    let length = rustix::fs::getxattr(path, "system.posix_acl_access", &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

/// What only root can set up is not passed over: `make test` runs as root.
fn needs_root() {
    assert_eq!(renewd::accounts::own_uid(), 0, "this test needs root");
}

/// Does something on a thread that touches files as this user.
fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    needs_root();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::unistd::setfsgid(uid.into());
            nix::unistd::setfsuid(uid.into());
            work()
        });
        thread.join().unwrap()
    })
}

#[tokio::test]
async fn a_reader_of_another_user_sees_complete_files_only() {
    let rotations = if std::env::var_os("RENEWD_TEST_SCALE").is_some() {
        100_000
    } else {
        10_000
    };
    let folder = folder();
    let sink = sink(&folder, "tokens/{name}.json", FileFormat::Json);
    put(&sink, document("bot", 1), &["65534"]).await.unwrap();
    let (path, done) = (
        folder.path().join("tokens/bot.json"),
        AtomicBool::new(false),
    );
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| as_user(NOBODY, || read_until(&path, &done)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        scope
            .spawn(move || {
                for version in 2..=rotations {
                    runtime
                        .block_on(put(&sink, document("bot", version), &["65534"]))
                        .unwrap();
                }
            })
            .join()
            .unwrap();
        done.store(true, Ordering::Release);
        reader.join().unwrap()
    });
    assert_eq!(seen, rotations, "the last version arrived");
    assert_eq!(names(&folder.path().join("tokens")), ["bot.json"]);
}

/// Reads the file over and over; panics when it is ever missing, cut, mixed or older than before.
fn read_until(path: &Path, done: &AtomicBool) -> u64 {
    let mut newest = 0;
    loop {
        let is_last = done.load(Ordering::Acquire);
        let bytes = fs::read(path).expect("always there and always ours to read");
        let document: serde_json::Value = serde_json::from_slice(&bytes).expect("always complete");
        let version = document["version"].as_u64().unwrap();
        assert_eq!(
            document["token"],
            token(version),
            "always one version's content"
        );
        assert!(version >= newest, "never older");
        newest = version;
        if is_last {
            return newest;
        }
    }
}

#[tokio::test]
async fn readers_are_granted_and_nobody_else() {
    for folder in [folder(), folder_on_disk()] {
        let sink = sink(&folder, "{name}", FileFormat::Token);
        put(&sink, document("bot", 1), &["nobody", "group:1234"])
            .await
            .unwrap();
        let path = folder.path().join("bot");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640, "the mask stands in the group's place");
        let acl = acl(&path).unwrap();
        assert_eq!(acl.len(), 4 + 6 * 8);
        assert_eq!(
            acl[12..20],
            [2, 0, 4, 0, 0xfe, 0xff, 0, 0],
            "nobody may read"
        );
        assert_eq!(
            acl[28..36],
            [8, 0, 4, 0, 0xd2, 4, 0, 0],
            "group 1234 may read"
        );
        let read = |uid| as_user(uid, || fs::read_to_string(&path).map_err(|e| e.kind()));
        assert_eq!(read(NOBODY).unwrap(), token(1));
        assert_eq!(read(SOMEBODY), Err(std::io::ErrorKind::PermissionDenied));
    }
}

#[tokio::test]
async fn without_readers_an_inherited_acl_goes() {
    let folder = folder_on_disk();
    // u::rwx, u:65534:rwx, g::---, m::rwx, o::--- as the default for new files.
    let default: Vec<u8> = [
        [2, 0, 0, 0].as_slice(),
        &[1, 0, 7, 0],
        &[255; 4],
        &[2, 0, 7, 0, 0xfe, 0xff, 0, 0],
        &[4, 0, 0, 0],
        &[255; 4],
        &[16, 0, 7, 0],
        &[255; 4],
        &[32, 0, 0, 0],
        &[255; 4],
    ]
    .concat();
    rustix::fs::setxattr(
        folder.path(),
        "system.posix_acl_default",
        &default,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let sink = sink(&folder, "{name}", FileFormat::Token);
    put(&sink, document("bot", 1), &[]).await.unwrap();
    let path = folder.path().join("bot");
    assert_eq!(acl(&path), None);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o600
    );
}

#[tokio::test]
async fn what_is_right_already_is_left_alone() {
    let folder = folder();
    let sink = sink(&folder, "{name}.json", FileFormat::Json);
    let path = folder.path().join("bot.json");
    assert_eq!(
        put(&sink, document("bot", 1), &["65534"]).await.unwrap(),
        DeliveryOutcome::Written
    );
    let inode = fs::metadata(&path).unwrap().ino();
    assert_eq!(
        put(&sink, document("bot", 1), &["65534"]).await.unwrap(),
        DeliveryOutcome::Unchanged
    );
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(
        put(&sink, document("bot", 1), &[]).await.unwrap(),
        DeliveryOutcome::Written,
        "readers count"
    );
}

#[tokio::test]
async fn drift_of_access_and_content_is_mended() {
    let folder = folder();
    let sink = sink(&folder, "{name}", FileFormat::Token);
    let path = folder.path().join("bot");
    put(&sink, document("bot", 1), &["65534"]).await.unwrap();
    let right = acl(&path);
    type Drift = (&'static str, fn(&Path));
    let drifts: [Drift; 4] = [
        ("mode", |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap()
        }),
        ("acl", |path| {
            rustix::fs::removexattr(path, "system.posix_acl_access").unwrap()
        }),
        ("content", |path| fs::write(path, "x").unwrap()),
        ("a pipe in its place", |path| {
            fs::remove_file(path).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                path,
                rustix::fs::FileType::Fifo,
                0o600.into(),
                0,
            )
            .unwrap();
        }),
    ];
    for (what, spoil) in drifts {
        spoil(&path);
        assert_eq!(
            put(&sink, document("bot", 1), &["65534"]).await.unwrap(),
            DeliveryOutcome::Written,
            "{what}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), token(1), "{what}");
        assert_eq!(acl(&path), right, "{what}");
    }
}

#[tokio::test]
async fn a_held_identity_keeps_its_document_and_loses_its_token() {
    let folder = folder();
    let sinks = [FileFormat::Json, FileFormat::Token, FileFormat::Env]
        .map(|format| sink(&folder, &format!("{{name}}.{format:?}"), format));
    for sink in &sinks {
        put(sink, document("bot", 1), &[]).await.unwrap();
    }
    assert_eq!(names(folder.path()), ["bot.Env", "bot.Json", "bot.Token"]);
    for sink in &sinks {
        put(sink, held("bot", 2), &[]).await.unwrap();
    }
    assert_eq!(names(folder.path()), ["bot.Json"]);
    let text = fs::read_to_string(folder.path().join("bot.Json")).unwrap();
    assert!(
        text.contains(r#""state":"held","token":null"#) && text.contains(r#""version":2"#),
        "{text}"
    );
    for state in [State::Gone, State::Deleted] {
        let ended = TokenDocument {
            state,
            ..held("bot", 3)
        };
        put(&sinks[0], ended, &[]).await.unwrap();
        assert_eq!(names(folder.path()), Vec::<String>::new());
        put(&sinks[0], held("bot", 2), &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = folder();
    let sink = sink(&folder, "{name}", FileFormat::Token);
    let in_the_way = folder.path().join("bot/x");
    fs::create_dir_all(&in_the_way).unwrap();
    let error = put(&sink, document("bot", 1), &[]).await.unwrap_err();
    assert!(error.to_string().contains("cannot replace"), "{error}");
    assert_eq!(names(folder.path()), ["bot"]);
    let error = put(&sink, document("bot2", 1), &["no-such-user-here"])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no-such-user-here"), "{error}");
    assert_eq!(names(folder.path()), ["bot"]);
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_file_and_nothing_else() {
    let folder = folder();
    needs_root();
    let disk = SmallDisk::mount(folder.path().join("disk")).expect("root can mount a small disk");
    let sink = sink(&folder, "disk/{name}", FileFormat::Token);
    put(&sink, document("bot", 1), &[]).await.unwrap();
    fs::write(disk.0.join("filler"), vec![0; 1 << 20]).unwrap_err();
    let error = put(&sink, document("bot", 2), &[]).await.unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(fs::read_to_string(disk.0.join("bot")).unwrap(), token(1));
    assert_eq!(names(&disk.0), ["bot", "filler"]);
    fs::remove_file(disk.0.join("filler")).unwrap();
    put(&sink, document("bot", 2), &[]).await.unwrap();
    assert_eq!(fs::read_to_string(disk.0.join("bot")).unwrap(), token(2));
}

/// A file system of a few pages, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let run = |program: &str, args: &[&str]| {
            let status = std::process::Command::new(program)
                .args(args)
                .arg(&at)
                .status();
            status.is_ok_and(|status| status.success())
        };
        run(
            "mount",
            &["-t", "tmpfs", "-o", "size=64k,mode=711", "tmpfs"],
        )
        .then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        std::process::Command::new("umount")
            .arg(&self.0)
            .status()
            .ok();
    }
}

#[tokio::test]
async fn leftovers_are_swept_and_nothing_else() {
    let folder = folder();
    let sink = sink(&folder, "{resource}/x-{name}/token", FileFormat::Token);
    put(&sink, document("bot", 1), &[]).await.unwrap();
    let inside = folder.path().join("contoso/x-bot");
    fs::write(inside.join(".token.renewd-4242-7"), "half").unwrap();
    fs::write(inside.join(".token.swp"), "an editor's").unwrap();
    symlink("/etc", folder.path().join("link")).unwrap();
    assert_eq!(sink.sweep().await.unwrap(), 1);
    assert_eq!(names(&inside), [".token.swp", "token"]);
    assert_eq!(sink.sweep().await.unwrap(), 0);
}

#[tokio::test]
async fn production_writes_on_threads_of_its_own() {
    let folder = folder();
    let settings = FileSinkSettings {
        format: FileFormat::Token,
        ..FileSinkSettings::new(
            "files".parse().unwrap(),
            format!("{}/{{name}}", folder.path().display()),
        )
    };
    let sink = FileSink::new(&settings, false).unwrap();
    let written = put(&sink, document("bot", 1), &[]).await.unwrap();
    assert_eq!(written, DeliveryOutcome::Written);
    assert_eq!(
        fs::read_to_string(folder.path().join("bot")).unwrap(),
        token(1)
    );
}
