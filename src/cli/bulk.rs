//! The verbs that start bulk work: which identities (named, selected, or listed in a file: one per line, CSV with a
//! heading, JSON lines), what it would do, asking before much is done, and starting the campaign. A list is
//! understood whole before anything is done.
//!
//! | verb | what it does |
//! |---|---|
//! | hold | tokens are withheld from every consumer; ACS is not called |
//! | release | the hold ends and the engine issues a token; a planned deletion is undone |
//! | renew | asks the engine for new tokens now; the old ones stay good |
//! | revoke | all tokens of an identity die at ACS; then a new one, or none |
//! | offboard | withheld and revoked now, deleted later; release undoes what can still be undone |

mod progress;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use self::progress::said;
use super::{
    Context,
    daemon::{Patience, daemon},
    duration,
    exit::{Exit, Failed, Outcome},
    output,
};
use crate::{
    api::client::{
        DaemonClient,
        wire::{CampaignAction, CampaignPlan, CampaignRequest},
    },
    clock::Clock,
    model::{
        Fields, IdentityId, Lines, Name, ResourceName, Then, Timestamp, other_delimiter, text_of,
    },
};

pub(crate) use progress::failed;
pub(crate) use progress::follow;

/// More than so many are asked about.
const MANY: u64 = 100;

/// Which identities, and what goes with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Chosen {
    /// The identities
    #[arg(required_unless_present_any = ["all", "select", "ids"])]
    names: Vec<Name>,
    /// Every identity
    #[arg(long, conflicts_with_all = ["names", "select", "ids"])]
    all: bool,
    /// Those that match, such as "label.team = 'guest' and state in (late, held)"
    #[arg(long, value_name = "EXPR", conflicts_with_all = ["names", "ids"])]
    select: Option<String>,
    /// Names or ACS ids from a file, `-` for standard input: one per line, CSV or JSON lines
    #[arg(long, value_name = "FILE", conflicts_with = "names")]
    ids: Option<PathBuf>,
    /// Whose ACS ids these are, where there are several resources
    #[arg(long, value_name = "NAME", requires = "ids")]
    resource: Option<ResourceName>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Before everything but renewals that are urgent themselves
    #[arg(long)]
    urgent: bool,
    #[command(flatten)]
    how: How,
}

/// How a bulk command goes about it.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct How {
    /// Say what it would do, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave it running in the daemon and return at once
    #[arg(long)]
    detach: bool,
    /// Do not ask before doing it to more than 100 or to all, or before deleting
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON document: what it would do, or the campaign
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
}

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub(crate) action: CampaignAction,
    pub(crate) then: Option<Then>,
    /// In the past tense: `revoked`.
    pub(crate) verb: &'static str,
    pub(crate) starts_at: Option<Timestamp>,
}

impl Task {
    pub(crate) fn new(action: CampaignAction, then: Option<Then>, verb: &'static str) -> Self {
        Self {
            action,
            then,
            verb,
            starts_at: None,
        }
    }
}

/// Does it to what was chosen and follows it to its end.
pub(crate) async fn run(context: Context, chosen: Chosen, task: Task) -> Outcome {
    let (how, all, new) = (chosen.how, chosen.all, asked(chosen, task)?);
    let client = daemon(context.socket);
    carry_out(&client, context.clock, (new, all), how, task).await
}

/// Asks where it is much or where `all` are meant, starts the campaign and follows it to its end.
pub(crate) async fn carry_out(
    client: &DaemonClient,
    clock: Clock,
    (new, all): (CampaignRequest, bool),
    how: How,
    task: Task,
) -> Outcome {
    let sure = how.yes || !(all || task.action == CampaignAction::Delete || is_many(&new));
    if how.dry_run || !sure {
        let plan = client.plan_campaign(&new).await?;
        if how.dry_run {
            return shown(&plan, task, how.json);
        }
        confirmed(&plan, task, all)?;
    }
    let started = client.start_campaign(&new).await?;
    if how.detach || task.starts_at.is_some() {
        return said(&started, how.json);
    }
    follow(client, clock, started, task.verb, (how.patience, how.json)).await
}

/// A selection may mean many: only the plan knows.
fn is_many(new: &CampaignRequest) -> bool {
    new.select.is_some() || (new.names.len() + new.ids.len()) as u64 > MANY
}

fn shown(plan: &CampaignPlan, task: Task, json: bool) -> Outcome {
    if json {
        output::print_json(plan)?;
    } else {
        output::print(&progress::render(plan, task, output::width()))?;
    }
    Ok(Exit::Done)
}

/// Shows what would be done and asks, where it is much.
fn confirmed(plan: &CampaignPlan, task: Task, all: bool) -> Result<(), Failed> {
    let always = all || task.action == CampaignAction::Delete;
    if plan.total <= MANY && !always && plan.total > 0 && plan.seconds < 60.0 {
        return Ok(());
    }
    output::aside(progress::render(plan, task, output::width_of_asides()).trim_end());
    if plan.total == 0 {
        return Ok(());
    }
    let question = format!("{} will be {}. Go on?", counted(plan.total), task.verb);
    if output::confirm(&question)? {
        return Ok(());
    }
    Err(Failed::unconfirmed())
}

pub(crate) fn counted(n: u64) -> String {
    match n {
        1 => "1 identity".to_owned(),
        n => format!("{n} identities"),
    }
}

fn asked(chosen: Chosen, task: Task) -> Result<CampaignRequest, Failed> {
    let Listed { names, ids } = match &chosen.ids {
        Some(path) => read(path)?,
        None => Listed {
            names: chosen.names,
            ids: Vec::new(),
        },
    };
    Ok(CampaignRequest {
        names,
        ids,
        resource: chosen.resource,
        select: chosen.select,
        all: chosen.all,
        urgent: chosen.urgent,
        starts_at: task.starts_at,
        reason: chosen.reason,
        ..CampaignRequest::new(task.action, task.then)
    })
}

/// What a person told to do to exactly these, now; for commands made of several.
pub(crate) async fn start(
    client: &DaemonClient,
    task: Task,
    names: &[Name],
    reason: Option<&str>,
) -> Result<crate::api::client::wire::CampaignProgress, Failed> {
    let new = CampaignRequest {
        names: names.to_vec(),
        starts_at: task.starts_at,
        reason: reason.map(str::to_owned),
        ..CampaignRequest::new(task.action, task.then)
    };
    Ok(client.start_campaign(&new).await?)
}

/// The largest file of names that is read.
const LARGEST: u64 = 64 * 1024 * 1024;
/// At most so many refused lines are shown.
const SHOWN: usize = 20;

/// What a file named.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listed {
    pub(super) names: Vec<Name>,
    pub(super) ids: Vec<IdentityId>,
}

/// Reads a file, or standard input for `-`.
fn read(path: &Path) -> Result<Listed, Failed> {
    let shown = path.display();
    let failed =
        |error: &dyn std::fmt::Display| Failed::usage(format!("cannot read {shown}: {error}"));
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(LARGEST + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
    };
    if read.map_err(|error| failed(&error))? as u64 > LARGEST {
        return Err(Failed::usage(format!(
            "{shown} is larger than 64 MiB; split it"
        )));
    }
    let text = text_of(&bytes).map_err(|error| failed(&error))?;
    parse(text).map_err(|refused| {
        let some = refused.iter().take(SHOWN);
        let some: Vec<String> = some
            .map(|why| output::item(why, output::width_of_asides()))
            .collect();
        let more = match refused.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!("\n  … and {more} more"),
        };
        Failed::usage(format!(
            "{shown} cannot be used, so nothing was done:\n{}{more}",
            some.join("\n")
        ))
    })
}

/// All that a text names, or every line that cannot be understood with its number and the reason.
fn parse(text: &str) -> Result<Listed, Vec<String>> {
    let (mut listed, mut refused) = (Listed::default(), Vec::new());
    let lines = Lines::of(text.as_bytes()).filter_map(Result::ok);
    // It was read as text, and no end of a line is a part of a character.
    let lines = lines.filter_map(|(at, line)| Some((at, String::from_utf8(line).ok()?)));
    let mut lines = lines.filter(|(_, line)| is_content(line.trim())).peekable();
    let first = lines.peek().map(|(_, line)| line.trim().to_owned());
    let columns = first
        .as_deref()
        .and_then(Columns::of)
        .transpose()
        .map_err(|why| vec![why])?;
    let heading = columns.is_some();
    if heading {
        lines.next();
    }
    for (at, line) in lines {
        let found = match &columns {
            Some(columns) => columns.pick(&line),
            None if line.trim_start().starts_with('{') => from_json(&line),
            None => Ok(line.trim().to_owned()),
        };
        let added = found.and_then(|word| listed.add(&word));
        if let Err(why) = added {
            refused.push(format!("line {at}: {why}"));
        }
    }
    if refused.is_empty() && listed == Listed::default() {
        refused.push("it holds no name and no id".to_owned());
    }
    let word = first.as_deref().and_then(other_delimiter);
    if let (Some(word), false, false) = (word, heading, refused.is_empty()) {
        refused.push(format!(
            "{word} separate the columns of its first line, and commas are wanted"
        ));
    }
    if refused.is_empty() {
        Ok(listed)
    } else {
        Err(refused)
    }
}

fn is_content(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}

impl Listed {
    fn add(&mut self, word: &str) -> Result<(), String> {
        if word.starts_with("8:") {
            self.ids.push(word.parse().map_err(|e| format!("{e}"))?);
        } else {
            self.names.push(word.parse().map_err(|e| format!("{e}"))?);
        }
        Ok(())
    }
}

/// Where name and id stand in a CSV file.
struct Columns {
    name: Option<usize>,
    id: Option<usize>,
}

impl Columns {
    /// The columns, if a line is a heading.
    fn of(line: &str) -> Option<Result<Self, String>> {
        let cells = cells(line)?;
        let place = |word: &str| cells.iter().position(|cell| cell.trim() == word);
        let (name, id) = (place("name"), place("id"));
        if name.is_none() && id.is_none() {
            return None;
        }
        let twice = |word: &str| cells.iter().filter(|cell| cell.trim() == word).count() > 1;
        Some(match ["name", "id"].into_iter().find(|word| twice(word)) {
            Some(word) => Err(format!("its first line has the column `{word}` twice")),
            None => Ok(Self { name, id }),
        })
    }

    fn pick(&self, line: &str) -> Result<String, String> {
        let cells = cells(line).ok_or("it is not CSV")?;
        let cell = |at: Option<usize>| {
            let cell = cells.get(at?)?.trim();
            (!cell.is_empty()).then(|| cell.to_owned())
        };
        cell(self.name)
            .or_else(|| cell(self.id))
            .ok_or_else(|| "it has neither name nor id".to_owned())
    }
}

fn cells(line: &str) -> Option<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(line.as_bytes());
    let record = reader.records().next()?.ok()?;
    Some(record.iter().map(str::to_owned).collect())
}

fn from_json(line: &str) -> Result<String, String> {
    let fields = Fields::read(line.as_bytes()).map_err(|e| format!("not a JSON object: {e}"))?;
    let word = |key| match fields.only(key) {
        Ok(value) => Ok(value.and_then(serde_json::Value::as_str)),
        Err(key) => Err(format!("the key {key:?} stands there twice")),
    };
    let word = word("name")?.or(word("id")?).map(str::to_owned);
    word.ok_or_else(|| "it has neither name nor id".to_owned())
}

/// Withhold the tokens of identities from every consumer until they are released
#[derive(Debug, clap::Args)]
pub(crate) struct Hold {
    #[command(flatten)]
    chosen: Chosen,
}

impl Hold {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Hold, None, "held");
        run(context, self.chosen, task).await
    }
}

/// End the hold of identities: they get tokens again
#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    #[command(flatten)]
    chosen: Chosen,
}

impl Release {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Release, None, "released");
        run(context, self.chosen, task).await
    }
}

/// Renew tokens now; the old ones stay good until they expire
#[derive(Debug, clap::Args)]
pub(crate) struct Renew {
    #[command(flatten)]
    chosen: Chosen,
}

impl Renew {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Renew, None, "renewed");
        run(context, self.chosen, task).await
    }
}

/// Revoke all tokens of identities
#[derive(Debug, clap::Args)]
#[command(
    after_help = "ACS may take up to 15 minutes until a revoked token is refused everywhere."
)]
pub(crate) struct Revoke {
    #[command(flatten)]
    chosen: Chosen,
    /// What follows: a new token (reissue), or none until release (hold)
    #[arg(long, default_value = "reissue", value_name = "reissue|hold")]
    then: Then,
}

impl Revoke {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Revoke, Some(self.then), "revoked");
        run(context, self.chosen, task).await
    }
}

/// Withhold and revoke identities now, delete them at ACS later
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Until then `renewd release NAME` undoes it: the planned deletion is cancelled, and a token is issued."
)]
pub(crate) struct Offboard {
    /// The identities
    #[arg(required = true)]
    names: Vec<Name>,
    /// When to delete them at ACS
    #[arg(long, default_value = "30d", value_parser = duration::parse, value_name = "DURATION")]
    delete_after: Duration,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    patience: Patience,
}

impl Offboard {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let client = daemon(context.socket);
        let starts_at = now.checked_add(self.delete_after).map_err(Failed::usage)?;
        let who = counted(self.names.len() as u64);
        let question = format!(
            "{who} will be withheld and revoked now, and deleted at ACS at {starts_at:.0}. Go on?"
        );
        if !self.yes && !output::confirm(&question)? {
            return Err(Failed::unconfirmed());
        }
        let reason = self.reason.as_deref();
        let revoke = Task::new(CampaignAction::Revoke, Some(Then::Hold), "held and revoked");
        let started = start(&client, revoke, &self.names, reason).await?;
        let delete = Task {
            starts_at: Some(starts_at),
            ..Task::new(CampaignAction::Delete, None, "deleted")
        };
        let planned = start(&client, delete, &self.names, reason).await?;
        let how = (self.patience, false);
        let ended = follow(&client, context.clock, started, revoke.verb, how).await?;
        output::print(&format!(
            "{who} will be deleted at ACS at {starts_at:.0} by campaign {}; until then `renewd release NAME` undoes it\n",
            planned.campaign.id
        ))?;
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> (Vec<String>, Vec<String>) {
        let listed = parse(text).unwrap();
        let names = listed.names.iter().map(ToString::to_string).collect();
        (names, listed.ids.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn three_formats_name_the_same() {
        let wanted = (vec!["anna".to_owned()], vec!["8:acs:x".to_owned()]);
        for text in [
            "# stolen\nanna\n\n8:acs:x\n",
            "name,resource,id\nanna,contoso,8:acs:a\n,contoso,\"8:acs:x\"\n",
            "{\"name\":\"anna\",\"id\":\"8:acs:a\"}\n{\"id\":\"8:acs:x\",\"labels\":{}}\n",
        ] {
            assert_eq!(words(text), wanted, "{text}");
        }
    }

    #[test]
    fn every_wrong_line_is_told_by_its_number() {
        let refused = parse("anna\na b\n{\"nme\":1}\n{oops\n8:\u{e4}\n").unwrap_err();
        let starts: Vec<&str> = refused.iter().map(|line| &line[..7]).collect();
        assert_eq!(starts, ["line 2:", "line 3:", "line 4:", "line 5:"]);
        for end in ["\r\n", "\r"] {
            let refused =
                parse(&["", "anna", "", "a b", "{\"name\":\"x\",\"name\":\"y\"}"].join(end))
                    .unwrap_err();
            let starts: Vec<&str> = refused.iter().map(|line| &line[..7]).collect();
            assert_eq!(starts, ["line 4:", "line 5:"], "{refused:?}");
        }
        assert!(parse("name,id,name\na,,b\n").unwrap_err()[0].contains("twice"));
        assert_eq!(
            parse("# nobody\n").unwrap_err(),
            ["it holds no name and no id"]
        );
        let semicolons = parse("name;id\nanna;8:acs:x\n").unwrap_err();
        assert!(
            semicolons[2].starts_with("semicolons separate"),
            "{semicolons:?}"
        );
    }

    #[test]
    fn a_mark_is_skipped_and_utf16_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        for text in ["anna\n", "name,id\nanna,\n", "{\"name\":\"anna\"}\n"] {
            std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
            assert_eq!(
                read(&path).unwrap().names,
                ["anna".parse().unwrap()],
                "{text}"
            );
        }
        std::fs::write(&path, b"\xff\xfea\0\n\0").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("UTF-16"));
    }
}
