//! `renewd identity import`: takes over which name has which id, so that nobody is created again.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use crate::store::{ImportLine, Imported, Store};

use super::super::{
    Context,
    exit::{Exit, Failed, Outcome},
    offline::Offline,
    output::{self, WARN, paint},
};

/// Lines in one transaction.
const BATCH: usize = 1000;
/// At most so many refused lines are shown.
const SHOWN: usize = 20;

/// Take over names and ids from identities.jsonl, while no daemon runs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each line: {\"name\":\"bot\",\"resource\":\"contoso\",\"id\":\"8:acs:…\"}\n\
Stop the daemon first, and run this as its user."
)]
pub(crate) struct Import {
    /// JSON lines, such as the identities.jsonl beside a lost database
    file: PathBuf,
    #[command(flatten)]
    place: super::Place,
}

impl Import {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let lines = read(&self.file)?;
        let now = context.clock.now();
        let offline = Offline::open(self.place.config, now)?;
        let imported = take_over(&offline.store, lines, &context).await?;
        output::print(&render(&imported))?;
        Ok(
            match (
                imported.refused.len(),
                imported.adopted + imported.remembered + imported.unchanged,
            ) {
                (0, _) => Exit::Done,
                (_, 0) => Exit::Failed,
                _ => Exit::Partly,
            },
        )
    }
}

/// Every line, or the numbers and reasons of those that cannot be read; then nothing is taken over.
fn read(file: &Path) -> Result<Vec<ImportLine>, Failed> {
    let cannot = |error| Failed::plain(format!("cannot read {}: {error}", file.display()));
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    let opened = std::fs::File::open(file).map_err(cannot)?;
    for (number, line) in BufReader::new(opened).lines().enumerate() {
        let line = line.map_err(cannot)?;
        match serde_json::from_str(&line) {
            Ok(read) => lines.push(read),
            Err(_) if line.trim().is_empty() => {}
            Err(error) => wrong.push(format!("{}:{}: {error}", file.display(), number + 1)),
        }
    }
    if wrong.is_empty() {
        return Ok(lines);
    }
    wrong
        .iter()
        .take(SHOWN)
        .for_each(|line| output::aside(line));
    Err(Failed::usage(format!(
        "nothing was imported; lines that cannot be read: {}",
        wrong.len()
    )))
}

async fn take_over(
    store: &Store,
    lines: Vec<ImportLine>,
    context: &Context,
) -> Result<Imported, Failed> {
    let mut whole = Imported::default();
    // An empty file still ends the wait for an import: whoever imports it says that nobody existed.
    let mut batches: Vec<Vec<ImportLine>> = lines.chunks(BATCH).map(<[_]>::to_vec).collect();
    batches.resize_with(batches.len().max(1), Vec::new);
    for batch in batches {
        let imported = store.import(batch, context.clock.now()).await?;
        whole.adopted += imported.adopted;
        whole.remembered += imported.remembered;
        whole.unchanged += imported.unchanged;
        whole.refused.extend(imported.refused);
    }
    Ok(whole)
}

fn render(of: &Imported) -> String {
    let mut text = format!(
        "ids given back: {}, remembered until they are declared: {}, known before: {}\n",
        of.adopted, of.remembered, of.unchanged
    );
    for refusal in of.refused.iter().take(SHOWN) {
        text.push_str(&format!(
            "  {} {}: {}\n",
            paint(WARN, "refused"),
            refusal.name,
            refusal.reason
        ));
    }
    if of.refused.len() > SHOWN {
        text.push_str(&format!(
            "  … and {} more refused\n",
            of.refused.len() - SHOWN
        ));
    }
    text
}
