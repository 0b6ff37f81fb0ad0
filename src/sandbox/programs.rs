//! What has to be executed when a program is run.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// Runtimes that make machine code while they run, which `MemoryDenyWriteExecute=` forbids.
const COMPILERS: [&str; 8] = [
    "node", "nodejs", "java", "dotnet", "pwsh", "luajit", "deno", "bun",
];

/// The path with its links resolved, where it exists.
pub(super) fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The program, and the interpreter that its first line names.
pub(super) fn wanted(program: &Path) -> Vec<PathBuf> {
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

/// Whether this is a runtime that compiles.
pub(super) fn compiles(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| COMPILERS.contains(&name))
}
