//! Programs that are not there, or that the unit's sandbox does not let run: with the drop-in that does.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::{
    config::{ExecSinkSettings, Finding, Settings, Severity},
    sandbox::{self, Unit},
};

use super::Trusted;

/// Programs that gain privileges, which `NoNewPrivileges=` forbids.
const PRIVILEGED: [&str; 4] = ["sudo", "su", "pkexec", "doas"];

/// What is odd about one exec sink. None of it is an error: the program may come later than the
/// daemon, and no token waits for it.
pub(super) fn check(
    sink: &ExecSinkSettings,
    path: &str,
    settings: &Settings,
    trusted: &Trusted,
) -> Vec<Finding> {
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
    let real = fs::canonicalize(program).unwrap_or_default();
    let exposed = trusted.exposed(real.parent(), &format!("{path}.command"));
    let Some(unit) = Unit::running(&settings.daemon.state_dir) else {
        return exposed;
    };
    let closed = hidden(program, &unit)
        .or_else(|| privileged(program))
        .or_else(|| not_executable(program, &unit));
    closed
        .into_iter()
        .chain(needs_polkit(sink))
        .map(odd)
        .chain(exposed)
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

fn hidden(program: &Path, unit: &Unit) -> Option<Oddity> {
    let real = fs::canonicalize(program).ok()?;
    let hidden = unit.hides(&real).into_iter().next()?;
    Some((
        format!(
            "the sandbox of the unit hides everything below {}",
            hidden.folder
        ),
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
fn not_executable(program: &Path, unit: &Unit) -> Option<Oddity> {
    let lines = unit.missing_for_running(program);
    if lines.is_empty() {
        return None;
    }
    let message = format!("the sandbox of the unit does not run {}", program.display());
    let more = "whatever else the program runs has to be named there, too";
    Some((message, format!("{}; {more}", sandbox::remedy(&lines))))
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
