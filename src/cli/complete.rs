//! `renewd complete`: what a shell asks while somebody types, so that names are completed which only the daemon
//! knows; and the scripts of the shells, which ask it. It says nothing where nothing is to be said: no daemon, no
//! right to ask it, no name wanted there.

use std::{any::TypeId, ffi::OsString, path::PathBuf, time::Duration};

use clap_complete::Shell;

use super::{
    Context,
    daemon::daemon,
    definition,
    exit::{Exit, Outcome},
    output,
};
use crate::{
    api::client::{ClientError, DaemonClient, wire::CampaignId},
    model::{JobName, Name, NodeName, ResourceName, SinkName, SourceName},
};

/// The names that may stand where a word is being typed
#[derive(Debug, clap::Args)]
pub(crate) struct Complete {
    /// The words after the program's name; the last as far as it is typed
    #[arg(last = true)]
    words: Vec<OsString>,
}

/// Whoever types waits no longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many are told at most.
const MOST: usize = 1000;

/// What of the daemon's has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noun {
    Identity,
    Sink,
    Campaign,
    Job,
    Resource,
    Source,
    Node,
}

/// The type of an argument says what it names.
fn noun(argument: &clap::Arg) -> Option<Noun> {
    let holds = argument.get_value_parser().type_id();
    // A number alone could be anything.
    if holds == TypeId::of::<CampaignId>() {
        return (argument.get_id() == "id").then_some(Noun::Campaign);
    }
    let known = [
        (TypeId::of::<Name>(), Noun::Identity),
        (TypeId::of::<SinkName>(), Noun::Sink),
        (TypeId::of::<JobName>(), Noun::Job),
        (TypeId::of::<ResourceName>(), Noun::Resource),
        (TypeId::of::<SourceName>(), Noun::Source),
        (TypeId::of::<NodeName>(), Noun::Node),
    ];
    let found = known.into_iter().find(|(id, _)| holds == *id);
    found.map(|(_, noun)| noun)
}

/// What is wanted at the end of a line.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    noun: Noun,
    /// What is typed of it.
    begun: String,
    /// The socket that the line names.
    socket: Option<PathBuf>,
}

/// Reads a line as far as it is typed; `None` where no name is wanted at its end.
fn wanted(mut command: &clap::Command, words: &[String]) -> Option<Wanted> {
    let (begun, before) = words.split_last()?;
    let root = command;
    let (mut places, mut socket) = (0, None);
    let mut option: Option<&clap::Arg> = None;
    for word in before {
        if let Some(argument) = option.take() {
            if argument.get_id() == "socket" {
                socket = Some(PathBuf::from(word));
            }
        } else if word == "--" {
            return None;
        } else if word.starts_with('-') {
            let named = [command, root].into_iter().find_map(|of| named(of, word));
            option = named.filter(|argument| argument.get_action().takes_values());
        } else if let Some(below) = command.find_subcommand(word).filter(|_| places == 0) {
            command = below;
        } else {
            places += 1;
        }
    }
    let argument = match option {
        Some(argument) => argument,
        None if begun.starts_with('-') => return None,
        None => {
            let all = || command.get_positionals();
            let last = all().last().filter(|last| is_list(last));
            all().nth(places).or(last)?
        }
    };
    Some(Wanted {
        noun: noun(argument)?,
        begun: begun.clone(),
        socket,
    })
}

fn is_list(argument: &clap::Arg) -> bool {
    let many = argument
        .get_num_args()
        .is_some_and(|range| range.max_values() > 1);
    many || matches!(argument.get_action(), clap::ArgAction::Append)
}

/// The option of this spelling; none where its value stands in the same word.
fn named<'a>(command: &'a clap::Command, word: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().find(|argument| {
        let long = argument.get_long();
        let short = argument.get_short();
        long.is_some_and(|long| word.strip_prefix("--") == Some(long))
            || short.is_some_and(|short| word.strip_prefix('-') == Some(&short.to_string()))
    })
}

impl Complete {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let words: Option<Vec<String>> = self
            .words
            .into_iter()
            .map(|word| word.into_string().ok())
            .collect();
        let mut whole = definition();
        whole.build();
        let Some(wanted) = words.and_then(|words| wanted(&whole, &words)) else {
            return Ok(Exit::Done);
        };
        let client = daemon(wanted.socket.clone().or(context.socket));
        let asked = tokio::time::timeout(PATIENCE, names(&client, &wanted)).await;
        let found = asked.ok().and_then(Result::ok).unwrap_or_default();
        let fits = found
            .into_iter()
            .filter(|name| name.starts_with(&wanted.begun));
        let lines: String = fits.take(MOST).map(|name| name + "\n").collect();
        output::print_data(&lines)?;
        Ok(Exit::Done)
    }
}

/// The names of a kind, of identities those from what is typed on.
async fn names(client: &DaemonClient, wanted: &Wanted) -> Result<Vec<String>, ClientError> {
    Ok(match wanted.noun {
        Noun::Identity => {
            let begun: Option<Name> = wanted.begun.parse().ok();
            let itself = match &begun {
                Some(name) => client.identity(name).await.ok(),
                None => None,
            };
            let page = client.identities(begun.as_ref().map(Name::as_str)).await?;
            let all = itself.into_iter().chain(page.items);
            all.map(|one| one.name.to_string()).collect()
        }
        Noun::Sink => {
            let all = client.sinks().await?.sinks;
            all.into_iter().map(|one| one.name.to_string()).collect()
        }
        Noun::Campaign => {
            let all = client.campaigns(None).await?.items;
            all.into_iter()
                .map(|one| one.campaign.id.to_string())
                .collect()
        }
        Noun::Job => {
            let all = client.jobs().await?.jobs;
            all.into_iter().map(|one| one.name.to_string()).collect()
        }
        Noun::Resource => {
            let all = client.all_keys().await?;
            all.into_iter()
                .map(|one| one.resource.to_string())
                .collect()
        }
        Noun::Source => {
            let all = client.sources().await?.sources;
            all.into_iter().map(|one| one.name.to_string()).collect()
        }
        Noun::Node => {
            let all = client.nodes().await?.nodes;
            all.into_iter().map(|one| one.name.to_string()).collect()
        }
    })
}

/// The script of a shell: its verbs and options, and of the common ones also names, for which they ask
/// `renewd complete`.
pub(crate) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition(), "renewd", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script + BASH,
        Shell::Fish => script + FISH,
        // The file is a function of its own when zsh loads it by its name, so the names come first in it.
        Shell::Zsh => script.replacen("\n_renewd() {", &format!("{ZSH}\n_renewd_words() {{"), 1),
        _ => script,
    }
}

/// Words are taken from the line itself: bash would part names at `@` and `:`.
const BASH: &str = r#"
_renewd_names() {
    _renewd "$@"
    local line=${COMP_LINE:0:COMP_POINT} words=() names=() before
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    mapfile -t names < <(renewd complete -- "${words[@]:1}" 2>/dev/null)
    if ((${#names[@]})); then
        before=${words[-1]%"$2"}
        COMPREPLY=("${names[@]#"$before"}")
    fi
}
complete -F _renewd_names -o nosort -o bashdefault -o default renewd
"#;

const ZSH: &str = r#"
_renewd() {
    local -a names
    names=(${(f)"$(renewd complete -- ${(Q)words[2,CURRENT-1]} "$PREFIX" 2>/dev/null)"})
    if (( $#names )); then
        compadd -a names
    else
        _renewd_words "$@"
    fi
}
"#;

const FISH: &str = r#"
complete -c renewd -a '(renewd complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn at_the_end_of(line: &str) -> Option<(Noun, String)> {
        let mut whole = definition();
        whole.build();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        wanted(&whole, &words).map(|wanted| (wanted.noun, wanted.begun))
    }

    #[test]
    fn the_place_in_a_line_says_what_is_wanted() {
        for (line, noun) in [
            ("why ", Noun::Identity),
            ("token a", Noun::Identity),
            ("renew bot-1 bot-2 ", Noun::Identity),
            ("--socket /run/x hold ", Noun::Identity),
            ("identity show ", Noun::Identity),
            ("delivery list --sink ", Noun::Sink),
            ("sink pause ", Noun::Sink),
            ("campaign show ", Noun::Campaign),
            ("job run ", Noun::Job),
            ("key roll ", Noun::Resource),
            ("source test ", Noun::Source),
            ("node drain ", Noun::Node),
        ] {
            assert_eq!(
                at_the_end_of(line).map(|found| found.0),
                Some(noun),
                "{line}"
            );
        }
        assert_eq!(
            at_the_end_of("revoke --reason why bo"),
            Some((Noun::Identity, "bo".to_owned()))
        );
        for line in [
            "",
            "wh",
            "why bot ",
            "why -",
            "--socket ",
            "exec bot -- ",
            "nonsense ",
        ] {
            assert_eq!(at_the_end_of(line), None, "{line}");
        }
    }
}
