//! The unit as systemd would read it.

use super::*;

fn with(drop_in: &str) -> Unit {
    Unit::of([SHIPPED.to_owned(), format!("[Service]\n{drop_in}\n")])
}

#[test]
fn the_unit_runs_nothing_but_what_a_drop_in_names() {
    let hook = Path::new("/usr/local/bin/on-token");
    assert!(!with("").runs(hook));
    assert!(with("").runs(Path::new("/usr/bin/renewd")));
    assert!(with("ExecPaths=/usr/local/bin/on-token /bin/x").runs(hook));
    assert!(with("ExecPaths=-/usr/local/bin").runs(hook));
    assert!(!with("ExecPaths=/usr/local/bin\nExecPaths=").runs(hook));
    assert!(with("NoExecPaths=").runs(hook));
    assert_eq!(
        with("").missing_for_running(hook),
        ["ExecPaths=/usr/local/bin/on-token"]
    );
}

#[test]
fn run_time_compilers_need_more() {
    let node = Path::new("/opt/no/such/node");
    let both = ["ExecPaths=/opt/no/such/node", "MemoryDenyWriteExecute=no"];
    assert_eq!(with("").missing_for_running(node), both);
    let one = with("MemoryDenyWriteExecute=no").missing_for_running(node);
    assert_eq!(one, both[..1]);
}

#[test]
fn exactly_the_missing_lines_are_named() {
    assert_eq!(with("").missing(&CHOWN), CHOWN);
    let partly =
        with("AmbientCapabilities=CAP_NET_ADMIN CAP_CHOWN\nCapabilityBoundingSet = CAP_CHOWN");
    assert_eq!(partly.missing(&CHOWN), ["SystemCallFilter=@chown"]);
    assert!(with(&CHOWN.join("\n")).missing(&CHOWN).is_empty());
    let reset = with(&(CHOWN.join("\n") + "\nAmbientCapabilities="));
    assert_eq!(reset.missing(&CHOWN), CHOWN[..1]);
    assert_eq!(
        with("#AmbientCapabilities=CAP_CHOWN").missing(&CHOWN),
        CHOWN
    );
}

#[test]
fn what_is_hidden_is_named_with_the_line_that_shows_it() {
    let lines = |unit: &Unit, path: &str| -> Vec<&str> {
        let hidden = unit.hides(Path::new(path)).into_iter();
        hidden.map(|hidden| hidden.line).collect()
    };
    let shipped = with("");
    assert_eq!(lines(&shipped, "/home/app/db"), ["ProtectHome=read-only"]);
    assert_eq!(lines(&shipped, "/srv/app/db"), ["InaccessiblePaths="]);
    let both = ["ProtectHome=read-only", "InaccessiblePaths="];
    assert_eq!(lines(&shipped, "/root/db"), both);
    assert_eq!(lines(&shipped, "/var/tmp/db"), ["PrivateTmp=no"]);
    assert!(lines(&shipped, "/var/lib/app/db").is_empty());
    assert!(lines(&with("ProtectHome=read-only"), "/home/app/db").is_empty());
    assert!(lines(&with("InaccessiblePaths="), "/srv/app/db").is_empty());
}

#[test]
fn a_folder_is_opened_by_what_is_missing_alone() {
    let lines = |drop_in, path| with(drop_in).missing_for_writing(Path::new(path));
    assert_eq!(lines("", "/opt/app"), ["ReadWritePaths=/opt/app"]);
    assert!(lines("ReadWritePaths=/opt", "/opt/app").is_empty());
    let home = ["ProtectHome=no", "ReadWritePaths=/home/app"];
    assert_eq!(lines("", "/home/app"), home);
    assert_eq!(lines("ProtectHome=read-only", "/home/app"), home);
    let open = "ProtectHome=no\nReadWritePaths=/home/app";
    assert!(lines(open, "/home/app").is_empty());
    assert!(lines("ProtectSystem=no", "/opt/app").is_empty());
}

#[test]
fn drop_ins_count_by_name_and_the_operators_place_wins() {
    let folder = tempfile::tempdir().unwrap();
    let places = [folder.path().join("usr"), folder.path().join("etc")];
    let write = |place: &Path, name: &str, text: &str| {
        fs::create_dir_all(place.join("renewd.service.d")).unwrap();
        fs::write(place.join(name), text).unwrap();
    };
    write(&places[0], "renewd.service", "Place=usr");
    write(&places[0], "renewd.service.d/10-a.conf", "A=usr");
    write(&places[0], "renewd.service.d/20-b.conf", "B=usr");
    write(&places[1], "renewd.service", "Place=etc");
    write(&places[1], "renewd.service.d/20-b.conf", "B=etc");
    write(&places[1], "renewd.service.d/30-c.conf~", "C=etc");
    let texts = texts(places.iter().map(PathBuf::as_path));
    assert_eq!(texts, ["Place=etc", "A=usr", "B=etc"]);
}

#[test]
fn a_daemon_with_its_state_elsewhere_is_run_by_something_else() {
    assert!(Unit::running(Path::new("/home/anna/.local/state/renewd")).is_none());
    assert!(Unit::running(Path::new("/var/lib/renewd")).is_some());
}
