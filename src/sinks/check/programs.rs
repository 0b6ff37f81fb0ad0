//! Programs that are not there, or that the shipped unit's sandbox does not let run: with the drop-in
//! that does.

mod sandbox;

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::config::{ExecSinkSettings, Finding, Settings, Severity};

/// Folders that the shipped unit hides or replaces.
const HIDDEN: [&str; 10] = [
    "/home",
    "/root",
    "/run/user",
    "/boot",
    "/lost+found",
    "/media",
    "/mnt",
    "/srv",
    "/tmp",
    "/var/tmp",
];
/// Programs that gain privileges, which `NoNewPrivileges=` forbids.
const PRIVILEGED: [&str; 4] = ["sudo", "su", "pkexec", "doas"];

/// What is odd about one exec sink. None of it is an error: the program may come later than the
/// daemon, and no token waits for it.
pub(super) fn check(sink: &ExecSinkSettings, path: &str, settings: &Settings) -> Vec<Finding> {
    let Some(program) = sink.command.first().map(Path::new) else {
        return Vec::new();
    };
    let odd = |(message, hint): (String, String)| Finding {
        path: format!("{path}.command"),
        severity: Severity::Warning,
        message,
        hint: Some(hint),
    };
    if let Some(problem) = missing(program).or_else(|| replaceable(program)) {
        return vec![odd(problem)];
    }
    if !super::files::is_run_by_unit(settings) {
        return Vec::new();
    }
    let closed = hidden(program)
        .or_else(|| privileged(program))
        .or_else(|| not_executable(program));
    closed
        .into_iter()
        .chain(needs_polkit(sink))
        .map(odd)
        .collect()
}

type Oddity = (String, String);

fn missing(program: &Path) -> Option<Oddity> {
    let shown = program.display();
    match fs::metadata(program) {
        Err(error) => Some((
            format!("the program {shown} cannot be found: {error}"),
            "install it, or correct its path".to_owned(),
        )),
        Ok(metadata) if !metadata.is_file() => Some((
            format!("{shown} is not a file"),
            "name the program itself".to_owned(),
        )),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => Some((
            format!("{shown} is not executable"),
            format!("run chmod +x {shown}"),
        )),
        Ok(_) => None,
    }
}

/// Whoever can replace the program gets the tokens.
fn replaceable(program: &Path) -> Option<Oddity> {
    let real = fs::canonicalize(program).ok()?;
    let is_open = |path: &&Path| {
        let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode());
        mode & 0o002 != 0 && mode & 0o1000 == 0
    };
    let open = real.ancestors().find(is_open)?;
    Some((
        format!(
            "every user may write to {}, so anyone could put a program of their own there and get the tokens",
            open.display()
        ),
        "run chmod o-w on it, or install the program elsewhere".to_owned(),
    ))
}

fn hidden(program: &Path) -> Option<Oddity> {
    let real = fs::canonicalize(program).ok()?;
    let folder = HIDDEN.into_iter().find(|folder| real.starts_with(folder))?;
    Some((
        format!("the sandbox of the shipped unit hides everything below {folder}"),
        "install the program elsewhere, such as in /usr/local/bin".to_owned(),
    ))
}

fn privileged(program: &Path) -> Option<Oddity> {
    let name = program.file_name()?.to_str()?;
    PRIVILEGED.contains(&name).then(|| {
        (
            format!("{name} cannot gain privileges under the shipped unit"),
            "let the consumer act by itself: the unit renewd-notify@.path, `renewd exec` or `renewd follow`"
                .to_owned(),
        )
    })
}

/// The unit runs only what `ExecPaths=` names; a script needs its interpreter, too.
fn not_executable(program: &Path) -> Option<Oddity> {
    let permitted = sandbox::Permitted::of_this_machine();
    let wanted = wanted(program);
    let missing: Vec<String> = wanted
        .iter()
        .filter(|path| !permitted.allows(path))
        .map(|path| path.display().to_string())
        .collect();
    let compiles = wanted.iter().any(|path| compiles_at_run_time(path));
    let mut lines = Vec::new();
    if !missing.is_empty() {
        lines.push(format!("ExecPaths={}", missing.join(" ")));
    }
    if compiles && !permitted.may_compile {
        lines.push("MemoryDenyWriteExecute=no".to_owned());
    }
    if lines.is_empty() {
        return None;
    }
    let drop_in = lines.join("` and `");
    Some((
        format!(
            "the sandbox of the shipped unit does not run {}",
            program.display()
        ),
        format!(
            "run `systemctl edit renewd`, add `{drop_in}` below [Service], then `systemctl restart renewd`; \
             whatever else the program runs has to be named there, too"
        ),
    ))
}

/// The program, and the interpreter that its first line names.
fn wanted(program: &Path) -> Vec<PathBuf> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut wanted = vec![real(program)];
    let mut start = [0; 256];
    let read = File::open(program).and_then(|mut file| file.read(&mut start));
    let text = String::from_utf8_lossy(&start[..read.unwrap_or(0)]).into_owned();
    let Some(line) = text.strip_prefix("#!").and_then(|rest| rest.lines().next()) else {
        return wanted;
    };
    let mut words = line.split_whitespace();
    let Some(interpreter) = words.next() else {
        return wanted;
    };
    wanted.push(real(Path::new(interpreter)));
    if interpreter.ends_with("/env") {
        let name = words.find(|word| !word.starts_with('-') && !word.contains('='));
        wanted.extend(name.and_then(search).map(|found| real(&found)));
    }
    wanted
}

/// Where a program without a place is found.
fn search(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/local/bin", "/usr/bin", "/bin"];
    let mut places = folders
        .into_iter()
        .map(|folder| Path::new(folder).join(name));
    places.find(|place| place.exists())
}

/// Runtimes that make machine code while they run, which `MemoryDenyWriteExecute=` forbids.
fn compiles_at_run_time(program: &Path) -> bool {
    let names = [
        "node", "nodejs", "java", "dotnet", "pwsh", "luajit", "deno", "bun",
    ];
    let name = program.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| names.contains(&name))
}

/// A unit that is reloaded by another user than root: polkit decides, and says no unless told.
fn needs_polkit(sink: &ExecSinkSettings) -> Option<Oddity> {
    const RULES: &str = "/etc/polkit-1/rules.d/50-renewd.rules";
    let (program, arguments) = sink.command.split_first()?;
    if !program.ends_with("/systemctl") || Path::new(RULES).exists() {
        return None;
    }
    let mut words = arguments.iter().filter(|word| !word.starts_with('-'));
    let (verb, unit) = (words.next()?, words.next()?);
    let unit = if unit.contains('.') {
        unit.clone()
    } else {
        format!("{unit}.service")
    };
    Some((
        format!("polkit does not let the user renewd {verb} {unit}"),
        format!(
            "write into {RULES}: polkit.addRule(function (action, subject) {{ \
             if (action.id == \"org.freedesktop.systemd1.manage-units\" && subject.user == \"renewd\" \
             && action.lookup(\"unit\") == \"{unit}\" && action.lookup(\"verb\") == \"{verb}\") \
             return polkit.Result.YES; }}); or use the unit renewd-notify@.path, which needs none of this"
        ),
    ))
}
