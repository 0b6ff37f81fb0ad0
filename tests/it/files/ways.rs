//! Links and folders on the way to a file.

use super::*;

#[tokio::test]
async fn a_link_in_place_of_the_file_is_replaced_not_followed() {
    let folder = folder();
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, folder.path().join("bot")).unwrap();
    let sink = sink(&folder, "{name}", FileFormat::Token);
    put(&sink, document("bot", 1), &[]).await.unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(
        fs::symlink_metadata(folder.path().join("bot"))
            .unwrap()
            .is_file()
    );
}

/// Whoever owns a folder may put another name of any file into it: what is written in place would go there.
#[tokio::test]
async fn another_name_of_a_file_in_a_folder_of_others_is_not_written_into() {
    needs_root();
    let folder = folder();
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let theirs = folder.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65_530), None).unwrap();
    fs::hard_link(&victim, theirs.join("bot")).unwrap();
    let path = format!("{}/{{name}}", theirs.display());
    let settings = FileSinkSettings {
        write: renewd::config::WriteMode::InPlace,
        ..FileSinkSettings::new("files".parse().unwrap(), path)
    };
    let sink = FileSink::new(&settings, true).unwrap();
    let error = put(&sink, document("bot", 1), &["65534"])
        .await
        .unwrap_err();
    assert!(matches!(error, FileError::Linked(_)), "{error}");
    let error = sink
        .withdraw(&"bot".parse().unwrap(), &"contoso".parse().unwrap())
        .await;
    assert!(matches!(error, Err(FileError::Linked(_))));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    fs::remove_file(theirs.join("bot")).unwrap();
    put(&sink, document("bot", 1), &["65534"]).await.unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[tokio::test]
async fn a_link_on_the_way_stops_the_delivery() {
    let folder = folder();
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, folder.path().join("contoso")).unwrap();
    for below in ["{resource}/{name}", "{resource}/deeper/{name}"] {
        let sink = sink(&folder, below, FileFormat::Token);
        let error = put(&sink, document("bot", 1), &[]).await.unwrap_err();
        assert!(matches!(error, FileError::Symlink(_)), "{error}");
        assert!(
            error.to_string().contains("/contoso is a symbolic link"),
            "{error}"
        );
        let error = sink
            .withdraw(&"bot".parse().unwrap(), &"contoso".parse().unwrap())
            .await;
        assert!(matches!(error, Err(FileError::Symlink(_))));
    }
    assert_eq!(names(&elsewhere), Vec::<String>::new());
}

#[tokio::test]
async fn a_folder_that_anyone_may_write_is_refused() {
    let folder = folder();
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let sink = sink(&folder, "shared/{name}", FileFormat::Token);
    for (mode, is_fine) in [(0o777, false), (0o1777, true), (0o775, true)] {
        fs::set_permissions(&shared, fs::Permissions::from_mode(mode)).unwrap();
        let done = put(&sink, document("bot", 1), &[]).await;
        assert_eq!(done.is_ok(), is_fine, "{mode:o}: {done:?}");
    }
}

#[tokio::test]
async fn missing_folders_are_made_passable_not_listable() {
    let folder = folder();
    let sink = sink(&folder, "a/{resource}/{name}/token", FileFormat::Token);
    let withdrawn = sink
        .withdraw(&"bot".parse().unwrap(), &"contoso".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(withdrawn, DeliveryOutcome::Unchanged);
    assert_eq!(
        names(folder.path()),
        Vec::<String>::new(),
        "removing makes no folder"
    );
    put(&sink, document("bot", 1), &[]).await.unwrap();
    for made in ["a", "a/contoso", "a/contoso/bot"] {
        let mode = fs::metadata(folder.path().join(made))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o711, "{made}");
    }
}

/// Writes and takes back many times, while somebody swaps a folder for a link; how often it was written and refused.
fn written_while_swapped(sink: &FileSink, theirs: &Path, link: &Path) -> (u32, u32) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let stop = AtomicBool::new(false);
    let (mut written, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, theirs, CWD, link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let writes = async {
            // Until each was met, which may take a while on a busy machine.
            for version in 1..=100_000 {
                if version > 400 && written > 0 && refused > 0 {
                    break;
                }
                match put(sink, document("bot", version), &["65534"]).await {
                    Ok(_) => written += 1,
                    Err(_) => refused += 1,
                }
                let name = "bot".parse().unwrap();
                sink.withdraw(&name, &"contoso".parse().unwrap()).await.ok();
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(writes));
        stop.store(true, Ordering::Relaxed);
    });
    (written, refused)
}

/// A folder that somebody swaps for a link to another one, and back, as fast as it can be done: whatever the moment,
/// the token is written into the folder or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_swapped_for_a_link_while_files_are_written_leads_nowhere() {
    needs_root();
    let folder = folder();
    let [theirs, victim, link] = ["theirs", "victim", "link"].map(|name| folder.path().join(name));
    let owner = 65_530;
    for made in [
        &theirs,
        &theirs.join("deeper"),
        &victim,
        &victim.join("deeper"),
    ] {
        fs::create_dir(made).unwrap();
    }
    fs::write(victim.join("bot"), "precious").unwrap();
    std::os::unix::fs::chown(folder.path(), Some(owner), None).unwrap();
    symlink(&victim, &link).unwrap();
    for (below, mode) in [
        ("theirs/{name}", renewd::config::WriteMode::Replace),
        ("theirs/{name}", renewd::config::WriteMode::InPlace),
        ("theirs/deeper/{name}", renewd::config::WriteMode::Replace),
        (
            "theirs/deeper/new/{name}",
            renewd::config::WriteMode::Replace,
        ),
    ] {
        let settings = FileSinkSettings {
            write: mode,
            ..FileSinkSettings::new(
                "files".parse().unwrap(),
                format!("{}/{below}", folder.path().display()),
            )
        };
        let sink = FileSink::new(&settings, true).unwrap();
        let (written, refused) = written_while_swapped(&sink, &theirs, &link);
        println!("{below}: {written} written, {refused} refused");
        assert!(
            written > 0 && refused > 0,
            "both were met: {written}, {refused}"
        );
        assert_eq!(names(&victim), ["bot", "deeper"], "{below}");
        assert_eq!(
            names(&victim.join("deeper")),
            Vec::<String>::new(),
            "{below}"
        );
        assert_eq!(fs::read_to_string(victim.join("bot")).unwrap(), "precious");
    }
}
