//! `renewd store verify`: whether a backup is whole, what it holds, and which key opens it.

use std::{fs, path::PathBuf};

use serde::Serialize;
use zeroize::Zeroizing;

use super::super::{
    Context,
    exit::{Exit, Failed, Outcome},
    output,
};
use crate::{
    model::short_duration,
    store::{Contents, seal_key_id, verify_backup},
};

/// Look a backup through: whether it is whole, how old it is, what it holds, which key opens it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 it is whole, and the key fits where one was given; 1 it is not; 2 it is no backup, or of a \
newer renewd."
)]
pub(super) struct Verify {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A copy of the seal key, to see whether it opens this backup
    #[arg(long, value_name = "KEYFILE")]
    key: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What a backup holds, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    made_at: String,
    version: String,
    schema: i64,
    seal_key: String,
    identities: u64,
    tokens: u64,
    files: std::collections::BTreeMap<String, u64>,
    last: bool,
}

/// For programs.
pub(super) fn document(contents: &Contents) -> Document {
    Document {
        made_at: crate::model::whole_seconds(contents.made_at),
        version: contents.version.clone(),
        schema: contents.schema,
        seal_key: contents.seal_key.clone(),
        identities: contents.identities,
        tokens: contents.tokens,
        files: contents.files.iter().cloned().collect(),
        last: contents.last,
    }
}

impl Verify {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let contents = verify_backup(&self.file)?;
        let key = self.key.as_ref().map(key_file).transpose()?;
        if self.json {
            output::print_json(&document(&contents))?;
        } else {
            let age = context.clock.now().duration_since(contents.made_at);
            let age = short_duration(age.try_into().unwrap_or_default());
            let mut text = format!("{} is whole\n\n", self.file.display());
            let mut line = |name: &str, value: String| text += &format!("  {name:<11} {value}\n");
            line(
                "made",
                format!(
                    "{age} ago ({:.0}), by renewd {}",
                    contents.made_at, contents.version
                ),
            );
            line("schema", contents.schema.to_string());
            line(
                "identities",
                format!(
                    "{}, {} of them with a token",
                    contents.identities, contents.tokens
                ),
            );
            for (name, lines) in &contents.files {
                line("file", format!("{name}, {lines} lines"));
            }
            line("sealed with", format!("the key {}", contents.seal_key));
            if contents.last {
                line(
                    "retired",
                    "its store ended with it: nothing was withdrawn since".to_owned(),
                );
            }
            output::print(&text)?;
        }
        match key {
            Some(text) if seal_key_id(&text).as_ref() != Some(&contents.seal_key) => Err(
                Failed::plain("the key that was given does not open this backup"),
            ),
            Some(_) if !self.json => {
                output::print("\nthe key that was given opens it\n")?;
                Ok(Exit::Done)
            }
            _ => Ok(Exit::Done),
        }
    }
}

/// The text of a copy of the seal key.
pub(super) fn key_file(path: &PathBuf) -> Result<Zeroizing<String>, Failed> {
    fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| Failed::usage(format!("cannot read the key {}: {error}", path.display())))
}
