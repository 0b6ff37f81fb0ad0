//! Who is taken out keeps nothing: neither an open file nor a link to it shows the next token.

use std::{fs::File, io::Read};

use renewd::config::WriteMode;

use super::*;

fn settings(folder: &TempDir) -> FileSinkSettings {
    FileSinkSettings {
        format: FileFormat::Token,
        write: WriteMode::InPlace,
        ..FileSinkSettings::new(
            "files".parse().unwrap(),
            format!("{}/{{name}}", folder.path().display()),
        )
    }
}

fn all_of(file: &mut File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

/// A change of the sink's settings and of the readers, and whether somebody loses by it.
type Change = (
    &'static str,
    fn(&mut FileSinkSettings),
    &'static [&'static str],
    bool,
);

const CHANGES: [Change; 9] = [
    ("one reader of two", |_| {}, &["65534"], true),
    ("the last reader", |_| {}, &[], true),
    ("another reader", |_| {}, &["65534", "65532"], true),
    (
        "the mode",
        |sink| sink.mode = 0o600,
        &["65534", "65533"],
        true,
    ),
    (
        "the owner",
        |sink| sink.owner = None,
        &["65534", "65533"],
        true,
    ),
    (
        "the group",
        |sink| sink.group = None,
        &["65534", "65533"],
        true,
    ),
    (
        "a reader by group",
        |sink| sink.mode = 0o640,
        &["65534", "group:65533"],
        true,
    ),
    ("nobody", |_| {}, &["65534", "65533"], false),
    ("one more", |_| {}, &["65532", "65534", "65533"], false),
];

#[tokio::test]
async fn whoever_loses_access_does_not_see_the_next_token() {
    needs_root();
    for (what, change, readers, loses) in CHANGES {
        let folder = folder();
        let path = folder.path().join("bot");
        let mut settings = settings(&folder);
        settings.mode = 0o640;
        settings.owner = Some("65530".to_owned());
        settings.group = Some("65531".to_owned());
        let before = FileSink::new(&settings, true).unwrap();
        put(&before, document("bot", 1), &["65534", "65533"])
            .await
            .unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let mut held = as_user(SOMEBODY, || File::open(&path).unwrap());
        fs::hard_link(&path, folder.path().join("link")).unwrap();

        change(&mut settings);
        let after = FileSink::new(&settings, true).unwrap();
        put(&after, document("bot", 2), readers).await.unwrap();
        let now = fs::metadata(&path).unwrap().ino();
        assert_eq!(now != inode, loses, "{what}");
        assert_eq!(fs::read_to_string(&path).unwrap(), token(2), "{what}");
        let seen = if loses { String::new() } else { token(2) };
        assert_eq!(all_of(&mut held), seen, "{what}: what was open");
        let linked = fs::read_to_string(folder.path().join("link")).unwrap();
        assert_eq!(linked, seen, "{what}: another name");

        put(&after, document("bot", 3), readers).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), now, "{what}: once");
        assert_eq!(names(folder.path()), ["bot", "link"], "{what}");
    }
}

#[tokio::test]
async fn a_loss_while_the_file_is_empty_counts_too() {
    needs_root();
    let folder = folder();
    let path = folder.path().join("bot");
    let sink = FileSink::new(&settings(&folder), true).unwrap();
    put(&sink, document("bot", 1), &["65534", "65533"])
        .await
        .unwrap();
    let mut held_open = as_user(SOMEBODY, || File::open(&path).unwrap());
    put(&sink, held("bot", 2), &["65534", "65533"])
        .await
        .unwrap();
    put(&sink, document("bot", 3), &["65534"]).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), token(3));
    assert_eq!(all_of(&mut held_open), "");
}

/// A group that the configuration does not name any more reads no file, however it is written.
#[tokio::test]
async fn a_group_that_is_taken_out_goes_at_once() {
    needs_root();
    for write in [WriteMode::Replace, WriteMode::InPlace] {
        let folder = folder();
        let mut settings = settings(&folder);
        (settings.write, settings.mode) = (write, 0o640);
        settings.group = Some("65531".to_owned());
        let before = FileSink::new(&settings, true).unwrap();
        put(&before, document("bot", 1), &[]).await.unwrap();
        settings.group = None;
        let after = FileSink::new(&settings, true).unwrap();
        let done = put(&after, document("bot", 1), &[]).await.unwrap();
        assert_eq!(done, DeliveryOutcome::Written, "{write:?}");
        assert_eq!(fs::metadata(folder.path().join("bot")).unwrap().gid(), 0);
        let done = put(&after, document("bot", 1), &[]).await.unwrap();
        assert_eq!(done, DeliveryOutcome::Unchanged, "{write:?}");
    }
}
