//! Findings about folders, readers and receivers of this machine.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::Duration,
};

use super::*;
use crate::{
    config::{
        ContentType, DaemonSettings, EventBody, FileSinkSettings, Include, LoadedSecret, Renewal,
        SecretRef, Severity, StorePlace, StoreSettings, WebhookSinkSettings,
    },
    model::Secret,
};

fn settings(state_dir: &str, sink: SinkSettings) -> Settings {
    Settings {
        daemon: DaemonSettings {
            state_dir: state_dir.into(),
            listen: None,
            socket: "/run/renewd/renewd.sock".into(),
            instance: "web-1".to_owned(),
            admins: vec![
                "group:root".to_owned().into(),
                "no-such-user-here".to_owned().into(),
            ],
            page_names: false,
            heartbeat: None,
        },
        store: StoreSettings {
            place: StorePlace::File("/nowhere".into()),
            seal_key: None,
            keep_renewals: Duration::ZERO,
            keep_other: Duration::ZERO,
            owner: crate::config::Owner::default(),
            save_before_migration: true,
            node: None,
            withdrawn_copy: None,
        },
        cluster: None,
        renewal: Renewal::default(),
        resources: Vec::new(),
        identities: Vec::new(),
        sinks_elsewhere: Vec::new(),
        sources_elsewhere: Vec::new(),
        alike: None,
        sinks: vec![sink],
        jobs: Vec::new(),
        sources: Vec::new(),
        read_from: Vec::new(),
    }
}

/// What is found about a file sink there, readers aside.
fn of_path(state_dir: &str, path: &Path) -> Vec<Finding> {
    let sink = SinkSettings::File(FileSinkSettings::new(
        "files".parse().unwrap(),
        path.display().to_string(),
    ));
    let mut findings = check(&settings(state_dir, sink));
    findings.retain(|finding| finding.path == "sink.file[0].path");
    findings
}

#[test]
fn a_folder_that_will_do_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        of_path("/srv/renewd", &folder.path().join("not/yet/{name}")),
        []
    );
}

#[test]
fn a_link_is_named_with_the_path_to_write_instead() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("real")).unwrap();
    symlink(folder.path().join("real"), folder.path().join("link")).unwrap();
    let findings = of_path("/srv/renewd", &folder.path().join("link/tokens/{name}"));
    assert_eq!(findings[0].severity, Severity::Error);
    assert!(
        findings[0].message.contains("/link is a symbolic link"),
        "{findings:?}"
    );
    let instead = folder.path().join("real/tokens");
    assert_eq!(
        findings[0].hint,
        Some(format!("write {} instead", instead.display()))
    );
}

#[test]
fn a_shared_folder_and_a_file_in_the_way_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let findings = of_path("/srv/renewd", &shared.join("{name}"));
    assert!(
        findings[0].message.contains("every user may write"),
        "{findings:?}"
    );
    fs::create_dir(shared.join("below")).unwrap();
    let findings_below = of_path("/srv/renewd", &shared.join("below/{name}"));
    assert_eq!(
        findings_below, findings,
        "whoever owns the way owns the end"
    );
    fs::write(folder.path().join("file"), "").unwrap();
    let findings = of_path("/srv/renewd", &folder.path().join("file/{name}"));
    assert!(
        findings[0].message.ends_with("/file is not a folder"),
        "{findings:?}"
    );
}

#[test]
fn what_the_sandbox_closes_is_named_with_its_drop_in() {
    let of = |path| of_path("/var/lib/renewd", Path::new(path));
    assert_eq!(of("/run/renewd/tokens/{name}.json"), []);
    for (path, lines) in [
        ("/opt/app/{name}", "add `ReadWritePaths=/opt/app` below"),
        (
            "/srv/app/{name}",
            "add `InaccessiblePaths=` and `ReadWritePaths=/srv/app` below",
        ),
        (
            "/home/app/{name}",
            "add `ProtectHome=no` and `ReadWritePaths=/home/app` below",
        ),
        ("/tmp/tokens/{name}", "below /run/renewd"),
        ("/var/lib/renewd/tokens/{name}", "below /run/renewd"),
    ] {
        let findings = of(path);
        assert_eq!(findings[0].severity, Severity::Warning, "{path}");
        assert!(
            findings[0].hint.as_ref().unwrap().contains(lines),
            "{findings:?}"
        );
    }
    assert_eq!(
        of_path(
            "/home/anna/.local/state/renewd",
            Path::new("/opt/app/{name}")
        ),
        []
    );
}

#[test]
fn whom_the_system_does_not_know_is_named() {
    let sink = WebhookSinkSettings {
        rate: None,
        name: "crm".parse().unwrap(),
        url: "https://crm.example/s3cret".to_owned(),
        allow_http: false,
        allow_private: false,
        proxy: None,
        secrets: vec![LoadedSecret {
            from: SecretRef::Env("X".to_owned()),
            secret: Secret::new("whsec_c2hvcnQ=".to_owned()),
        }],
        include: Include::Token,
        content_type: ContentType::CloudEvents,
        body: EventBody::Event,
        events: vec!["token.*".to_owned()],
        ca_file: None,
        timeout: Duration::from_secs(15),
    };
    let findings = check(&settings("/srv/renewd", SinkSettings::Webhook(sink)));
    let found: Vec<&str> = findings
        .iter()
        .map(|finding| finding.path.as_str())
        .collect();
    assert_eq!(found, ["daemon.admins[1]", "sink.webhook[0].secrets[0]"]);
    assert!(
        findings[0]
            .message
            .contains("no user \"no-such-user-here\""),
        "{findings:?}"
    );
}

#[test]
fn folders_that_others_could_swap_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let chmod = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let (a, b) = (folder.path().join("a"), folder.path().join("a/b"));
    fs::create_dir_all(&b).unwrap();
    let told = |state_dir: &Path| {
        let found = of_path(state_dir.to_str().unwrap(), &b.join("{name}"));
        let told = found
            .into_iter()
            .map(|f| format!("{} {}", f.message, f.hint.unwrap()));
        told.collect::<Vec<_>>().join("\n")
    };
    let nowhere = Path::new("/srv/renewd");
    for (path, mode, is_fine) in [
        (&a, 0o755, true),
        (&a, 0o775, false),
        (&a, 0o1775, true),
        (&b, 0o770, false),
        (&b, 0o1770, true),
        (&b, 0o700, true),
    ] {
        chmod(path, mode);
        let found = told(nowhere);
        assert_eq!(found.is_empty(), is_fine, "{mode:o}: {found}");
        if !is_fine {
            let shown = path.display();
            assert!(found.contains(&format!("chmod g-w {shown},")), "{found}");
        }
        chmod(path, 0o755);
    }
    std::os::unix::fs::chown(&a, Some(65_533), None).unwrap();
    let found = told(nowhere);
    assert!(found.contains("its owner 65533 could"), "{found}");
    assert!(
        found.contains(&format!("chown root {},", a.display())),
        "{found}"
    );
    // What belongs to the daemon's user, as its state folder tells, is as good.
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65_533), None).unwrap();
    assert_eq!(told(&state), "");
}

#[test]
fn a_sink_that_none_of_the_declared_names_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("{name}").display().to_string();
    let sink = SinkSettings::File(FileSinkSettings::new("files".parse().unwrap(), path));
    let mut settings = settings("/srv/renewd", sink);
    let told = |settings: &Settings| {
        let found = check(settings);
        found.iter().any(|found| found.path == "sink.file[0].name")
    };
    assert!(!told(&settings), "all come by an import");
    let spec = |sinks: &[&str]| crate::model::Spec {
        name: "bot".parse().unwrap(),
        resource: "contoso".parse().unwrap(),
        origin: crate::model::Origin::File,
        declared: crate::model::Declaration {
            id: None,
            scopes: vec![crate::model::Scope::Chat],
            lifetime: Duration::from_hours(24),
            renew_at: 0.5,
            spread: 0.0,
            on_removal: crate::model::OnRemoval::Hold,
            readers: Vec::new(),
            sinks: sinks.iter().map(|name| name.parse().unwrap()).collect(),
            labels: std::collections::BTreeMap::new(),
        },
    };
    settings.identities = vec![spec(&[])];
    assert!(told(&settings));
    settings.identities.push(spec(&["files"]));
    assert!(!told(&settings));
}
