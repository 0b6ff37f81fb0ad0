//! The unit file against systemd's own checks. `systemd-analyze verify` ends with 0 even for a key
//! that it does not know, so nothing at all may be printed.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const UNIT: &str = include_str!("../../systemd/renewd.service");
const PROGRAM: &str = "/usr/bin/renewd";

/// Runs `systemd-analyze`, which has to be there (`tests/prerequisites`), on the unit with the program
/// put where this build has it.
fn analyze(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("renewd.service");
    fs::write(&unit, UNIT.replace(PROGRAM, env!("CARGO_BIN_EXE_renewd"))).unwrap();
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(&unit)
        .env("SYSTEMD_COLORS", "0")
        .output()
        .unwrap()
}

#[test]
fn the_socket_unit_is_clean_and_names_the_usual_place() {
    let socket = include_str!("../../systemd/renewd.socket");
    for promise in [
        "ListenStream=/run/renewd/renewd.sock",
        "SocketMode=0666",
        "DirectoryMode=0711",
        "StopPropagatedFrom=renewd.service",
        "ConditionPathExists=/etc/renewd/renewd.toml",
    ] {
        assert!(socket.lines().any(|line| line == promise), "{promise}");
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("renewd.service");
    fs::write(&unit, UNIT.replace(PROGRAM, env!("CARGO_BIN_EXE_renewd"))).unwrap();
    fs::write(folder.path().join("renewd.socket"), socket).unwrap();
    let analyzed = Command::new("systemd-analyze")
        .args(["--man=no", "verify"])
        .arg(folder.path().join("renewd.socket"))
        .env("SYSTEMD_COLORS", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&analyzed.stderr);
    assert!(analyzed.status.success() && said.is_empty(), "{said}");
}

#[test]
fn verify_prints_nothing() {
    let output = analyze(&["--man=no", "verify"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_drop_in_for_a_database_is_clean_and_closes_the_network() {
    let drop_in = include_str!("../../systemd/renewd-database.conf");
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("renewd.service");
    fs::write(&unit, UNIT.replace(PROGRAM, env!("CARGO_BIN_EXE_renewd"))).unwrap();
    let beside = folder.path().join("renewd.service.d");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("database.conf"), drop_in).unwrap();
    let analyzed = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .arg(&unit)
            .env("SYSTEMD_COLORS", "0")
            .output()
            .unwrap();
        assert!(output.status.success());
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    assert_eq!(analyzed(&["--man=no", "verify"]), ["", ""]);
    let [table, _] = analyzed(&["security", "--offline=true", "--no-pager"]);
    let row = table
        .lines()
        .find(|line| line.contains("IPAddressDeny="))
        .unwrap();
    assert!(row.contains("allow list"), "{row}");
}

#[test]
fn the_exposure_is_at_most_1_2() {
    let output = analyze(&["security", "--offline=true", "--threshold=12"]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}");
}

#[test]
fn the_promises_of_the_unit_are_in_it() {
    let lines: Vec<&str> = UNIT.lines().collect();
    for promise in [
        "Type=notify",
        "Wants=renewd.socket",
        "ConditionPathExists=/etc/renewd/renewd.toml",
        "ExecStart=/usr/bin/renewd run",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "WatchdogSec=30s",
        "Restart=always",
        "StartLimitIntervalSec=0",
        "RestartPreventExitStatus=2",
        "RuntimeDirectoryMode=0711",
        "RuntimeDirectoryPreserve=yes",
        "User=renewd",
    ] {
        assert!(lines.contains(&promise), "{promise}");
    }
    assert!(
        !lines.iter().any(|line| line.starts_with("PrivateUsers=")),
        "it hides socket peers"
    );
}

#[test]
fn users_and_folders_are_declared_beside_the_unit() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let users = fs::read_to_string(folder.join("renewd.sysusers")).unwrap();
    assert!(users.lines().any(|line| line.starts_with("u renewd - ")));
    let folders = fs::read_to_string(folder.join("renewd.tmpfiles")).unwrap();
    assert!(
        folders
            .lines()
            .any(|line| line.starts_with("d /run/renewd         0711 "))
    );
}
