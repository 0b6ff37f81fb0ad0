//! From files to settings: read, parse, take the sections, hold them against each other.

use std::path::{Path, PathBuf};

use super::{
    Place, Places, Problem, Problems, Settings, Severity, Source,
    file::{File, Unreadable},
    links,
    reader::{Reading, Section},
    report::Report,
    sections, syntax,
    tree::Span,
};

/// A configuration that can work.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// Where it says so.
    pub places: Places,
    /// What can work but is odd.
    pub warnings: Vec<Problem>,
}

/// Reads the main file, then `conf.d/*.toml` beside it, and every secret they refer to.
///
/// Files add to each other: lists of sections follow one another in the order of the files, and a
/// key that is set in two files is an error, so no order decides what wins.
///
/// # Errors
/// With every mistake at once, and the warnings between them.
pub fn load(source: &Source) -> Result<Loaded, Problems> {
    let report = Report::default();
    let files = read_files(&source.path, &report);
    let root = syntax::parse(&files, &report);
    let settings = if files.is_empty() {
        None
    } else {
        let reading = Reading {
            files: &files,
            environment: &source.environment,
            report: &report,
        };
        let section = Section::new(&sections::ROOT, Span::new(0, 0..0), &root, &reading);
        let drafts = sections::read(section, &reading);
        // What was not read is not missing.
        (!report.is_full())
            .then(|| links::link(drafts, &report))
            .flatten()
    };
    let mut problems = report.into_problems(&files);
    let failed = Places::any_error(&problems);
    match settings {
        Some(settings) if !failed => Ok(Loaded {
            settings,
            places: Places { files, root },
            warnings: problems,
        }),
        _ => {
            if !failed {
                problems.push(incomplete(&source.path));
            }
            Err(Problems(problems))
        }
    }
}

/// The main file and those beside it, without those that cannot be read: they are told of.
fn read_files(main: &Path, report: &Report) -> Vec<File> {
    let hint = "say where it is with --config PATH, and make it readable for this user";
    let Some(first) = read_file(main, Some(hint), report) else {
        return Vec::new();
    };
    let beside = main.parent().unwrap_or(Path::new("")).join("conf.d");
    let more = parts(&beside, report);
    let more = more.iter().filter_map(|path| read_file(path, None, report));
    std::iter::once(first).chain(more).collect()
}

fn read_file(path: &Path, hint: Option<&str>, report: &Report) -> Option<File> {
    match File::read(path) {
        Ok(file) => Some(file),
        Err(Unreadable { message, at }) => {
            report.add_file(place(path, at), message, hint.filter(|_| at.is_none()));
            None
        }
    }
}

/// `*.toml` in a directory in the order of their names, without hidden ones.
fn parts(directory: &Path, report: &Report) -> Vec<PathBuf> {
    let entries =
        match std::fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                let message = format!("cannot list this directory: {error}");
                report.add_file(place(directory, None), message, None);
                return Vec::new();
            }
        };
    let visible = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        name.ends_with(".toml") && !name.starts_with('.')
    };
    let mut paths: Vec<_> = entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(visible)
        .collect();
    paths.sort();
    paths
}

fn place(path: &Path, at: Option<(usize, usize)>) -> Place {
    let (line, column) = at.unwrap_or_default();
    Place {
        path: path.to_owned(),
        line,
        column,
        excerpt: None,
    }
}

/// Never seen as long as every part that is missing was told of.
fn incomplete(path: &Path) -> Problem {
    Problem {
        severity: Severity::Error,
        place: Some(place(path, None)),
        message: "this configuration is incomplete in a way that renewd cannot name".to_owned(),
        hint: Some("this is a mistake in renewd; please report it with the file".to_owned()),
        related: Vec::new(),
    }
}
