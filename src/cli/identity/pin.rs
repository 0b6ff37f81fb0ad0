//! `renewd identity pin`: writes the ids of identities into the configuration's own text, so that the
//! file alone says who everybody is.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};

use crate::{
    config::{self, Pinned, Source},
    model::{IdentityId, Name, Origin, text_of},
};

use super::{
    super::{
        Context,
        exit::{Exit, Failed, Outcome},
        output::{self, DIM, GOOD, STRONG, paint},
    },
    Place,
};

/// Write the ids of declared identities into the configuration, comments kept
#[derive(Debug, clap::Args)]
pub(crate) struct Pin {
    /// Only these; all that have no id yet where left out
    names: Vec<Name>,
    /// Show what would be written; nothing is changed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

impl Pin {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let source = Source::of_process(self.place.config.clone());
        let known = self.place.known(&context).await?.everything(now).await?;
        let wanted = |name: &Name| self.names.is_empty() || self.names.contains(name);
        let declared = known
            .into_iter()
            .filter(|one| one.origin == Origin::File && wanted(&one.name));
        let ids: BTreeMap<Name, IdentityId> = declared
            .filter_map(|one| Some((one.name, one.id?)))
            .collect();
        let (mut written, mut unknown) = (0, Vec::new());
        for path in files(&source.path)? {
            let cannot = |what: &str, why: &dyn std::fmt::Display| {
                Failed::plain(format!("cannot {what} {}: {why}", path.display()))
            };
            let bytes = fs::read(&path).map_err(|error| cannot("read", &error))?;
            let text = text_of(&bytes).map_err(|error| cannot("read", &error))?;
            let pinned = config::pin(text, &ids).map_err(|error| cannot("understand", &error))?;
            written += pinned.names.len();
            unknown.extend(pinned.unknown.iter().filter(|name| wanted(name)).cloned());
            if pinned.names.is_empty() {
                continue;
            }
            output::print(&difference(&path, text, &pinned))?;
            if !self.dry_run {
                replace(&path, &pinned.text).map_err(|error| cannot("write", &error))?;
            }
        }
        for name in &unknown {
            output::aside(&format!("{name} has no id yet"));
        }
        let said = if self.dry_run {
            "would be written; nothing was changed"
        } else {
            "written; reload to take them over"
        };
        output::print(&format!("{written} ids {said}\n"))?;
        Ok(if unknown.is_empty() {
            Exit::Done
        } else {
            Exit::Partly
        })
    }
}

/// The main file, and `conf.d/*.toml` beside it.
fn files(main: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut files = vec![main.to_owned()];
    let beside = main.parent().unwrap_or(Path::new("")).join("conf.d");
    if let Ok(entries) = fs::read_dir(beside) {
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        files.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "toml")));
    }
    files[1..].sort();
    // A link stays a link: what it leads to is replaced.
    let real = files.iter().map(|path| {
        fs::canonicalize(path)
            .map_err(|error| Failed::plain(format!("cannot find {}: {error}", path.display())))
    });
    real.collect()
}

/// The lines that are added, each with its number and the line before it.
fn difference(path: &Path, old: &str, pinned: &Pinned) -> String {
    let mut text = format!("{}\n", paint(STRONG, path.display()));
    let mut old = old.lines().peekable();
    let mut before = "";
    for (number, line) in (1..).zip(pinned.text.lines()) {
        if old.peek() == Some(&line) {
            before = line;
            old.next();
            continue;
        }
        if line.starts_with("identity") || line.contains(", id = ") {
            // In an inline table the line itself changed.
            old.next();
        }
        text.push_str(&format!(
            "{}\n",
            paint(DIM, format!("{:>5}  {before}", number - 1))
        ));
        text.push_str(&format!(
            "{}\n",
            paint(GOOD, format!("{number:>5} +{line}"))
        ));
    }
    text
}

/// Replaces a file at once, with the mode and the owner that it has.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.renewd-{}", std::process::id()));
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).open(&beside)?;
        file.set_permissions(metadata.permissions())?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
            fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        fs::remove_file(&beside).ok();
    }
    written
}
