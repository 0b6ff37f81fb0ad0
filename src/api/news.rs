//! The notices that what needs a person is worth: one when it begins, and its twin when it is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::SignedDuration;

use super::{
    certificates::{ENDING, ENDING_SOON},
    needs::{BEHIND, ODD_CLOCK, Observed, TOLD_AFTER, certificates},
    wire::{Need, NeedKind},
};
use crate::model::{KeyStanding, KeyView, Notice, NoticeKind};

/// So many failures in a row, and everybody who hears notices is told.
const FAILING_FOR_LONG: u32 = 10;
/// After a start 429s are waited for so long before it is told that none come any more.
const LOOKED_AT: SignedDuration = SignedDuration::from_mins(10);

/// What is told of by notices from here: the kind of need, the word of its key, the kinds of notice that begin and end
/// it. Of everything else those tell who notice it, in the commit that makes it true.
pub(super) const TOLD: [(NeedKind, &str, NoticeKind, NoticeKind); 23] = [
    (
        NeedKind::CertificateEnds,
        CERTIFICATE,
        NoticeKind::CertificateEnding,
        NoticeKind::CertificateRenewed,
    ),
    (
        NeedKind::CertificateEndsSoon,
        LAST_WEEK,
        NoticeKind::CertificateEnding,
        NoticeKind::CertificateRenewed,
    ),
    (
        NeedKind::Clock,
        "time of",
        NoticeKind::ClockOff,
        NoticeKind::ClockRight,
    ),
    (
        NeedKind::Contention,
        "use of",
        NoticeKind::ResourceContended,
        NoticeKind::ResourceUncontended,
    ),
    (
        NeedKind::CreationsWait,
        "creations of",
        NoticeKind::CreateRefused,
        NoticeKind::CreateAllowed,
    ),
    (
        NeedKind::JobFailed,
        "job",
        NoticeKind::JobFailed,
        NoticeKind::JobSucceeded,
    ),
    (
        NeedKind::KeyRefused,
        "key of",
        NoticeKind::KeyRefused,
        NoticeKind::KeyAccepted,
    ),
    (
        NeedKind::MapUnwritable,
        "writing of",
        NoticeKind::MapUnwritable,
        NoticeKind::MapWritable,
    ),
    (
        NeedKind::NoMirror,
        "keeping of",
        NoticeKind::MirrorLost,
        NoticeKind::MirrorKept,
    ),
    (
        NeedKind::NodeAmiss,
        "node",
        NoticeKind::NodeAmiss,
        NoticeKind::NodeWell,
    ),
    (
        NeedKind::NodeDead,
        "silence of",
        NoticeKind::NodeDead,
        NoticeKind::NodeBack,
    ),
    (
        NeedKind::NotTakenOver,
        "declarations of",
        NoticeKind::DeclarationRefused,
        NoticeKind::DeclarationAccepted,
    ),
    (
        NeedKind::ReloadRefused,
        "reload of",
        NoticeKind::ReloadRefused,
        NoticeKind::ReloadAccepted,
    ),
    (
        NeedKind::SealKeyGone,
        "key of",
        NoticeKind::SealKeyGone,
        NoticeKind::SealKeyFound,
    ),
    (
        NeedKind::SinkBehind,
        "behind",
        NoticeKind::SinkBehind,
        NoticeKind::SinkCaughtUp,
    ),
    (
        NeedKind::SinkFailing,
        "failing",
        NoticeKind::SinkFailing,
        NoticeKind::SinkRecovered,
    ),
    (
        NeedKind::SocketMoved,
        "file of",
        NoticeKind::SocketMoved,
        NoticeKind::SocketFound,
    ),
    (
        NeedKind::StoreMoved,
        "file of",
        NoticeKind::StoreMoved,
        NoticeKind::StoreFound,
    ),
    (
        NeedKind::Unbound,
        "address",
        NoticeKind::ListenRefused,
        NoticeKind::ListenAccepted,
    ),
    (
        NeedKind::Unconfigured,
        "configuration of",
        NoticeKind::ResourceUnconfigured,
        NoticeKind::ResourceConfigured,
    ),
    (
        NeedKind::Unreadable,
        "rows of",
        NoticeKind::RowsUnreadable,
        NoticeKind::RowsReadable,
    ),
    (
        NeedKind::WithdrawalWaits,
        "withdrawals at",
        NoticeKind::WithdrawalWaiting,
        NoticeKind::WithdrawalDelivered,
    ),
    (
        NeedKind::WithdrawnCopy,
        "place of",
        NoticeKind::WithdrawalsUncopied,
        NoticeKind::WithdrawalsCopied,
    ),
];

/// The words of the keys of certificates, which are told of twice.
const CERTIFICATE: &str = "certificate of";
const LAST_WEEK: &str = "last week of the certificate of";

/// The notices that are due: of what needs a person and is not told, and of what was told (`open`, by
/// key) and is over.
pub(super) fn news(
    known: &Observed<'_>,
    needs: &[Need],
    open: &BTreeMap<String, NoticeKind>,
) -> Vec<Notice> {
    let notice = |kind, key: &str, message: String| Notice {
        at: known.now,
        kind,
        resource: None,
        name: None,
        key: Some(key.to_owned()),
        message,
    };
    let (mut news, mut lasting) = (Vec::new(), BTreeSet::new());
    for need in needs {
        let Some((_, word, begins, _)) = TOLD.iter().find(|(kind, ..)| *kind == need.kind) else {
            continue;
        };
        let key = format!("{word} {}", need.subject);
        // Of several needs under one key the first is told.
        let is_first = lasting.insert(key.clone());
        if is_first && !open.contains_key(&key) && is_worth_telling(need, known) {
            news.push(notice(*begins, &key, sentence(need)));
        }
        if need.kind == NeedKind::CertificateEndsSoon {
            // What was told three weeks ago goes on.
            lasting.insert(format!("{CERTIFICATE} {}", need.subject));
        }
    }
    for (key, kind) in open.iter().filter(|(key, _)| !lasting.contains(*key)) {
        let ours = |word: &str| key.starts_with(word);
        let mut told = TOLD.iter();
        let told = told.find(|(_, word, begins, _)| begins == kind && ours(word));
        let Some((_, word, _, ends)) = told else {
            continue;
        };
        let subject = key.strip_prefix(word).unwrap_or(key).trim_start();
        if is_over(*kind, (word, subject), known) {
            news.push(notice(*ends, key, ended(*ends, subject)));
        }
    }
    news
}

/// One failure may be an accident, and a delivery takes its time: a sink is told of when it lasts.
fn is_worth_telling(need: &Need, known: &Observed<'_>) -> bool {
    let lasts = need
        .since
        .is_some_and(|since| known.now.duration_since(since) >= TOLD_AFTER);
    match need.kind {
        NeedKind::SinkFailing => {}
        NeedKind::WithdrawalWaits => return lasts,
        _ => return true,
    }
    let mut dispatchers = known.dispatchers.iter().chain(known.beside);
    let dispatcher = dispatchers.find(|(sink, _)| sink.as_str() == need.subject);
    lasts
        || dispatcher.is_some_and(|(_, dispatcher)| dispatcher.failures_in_row >= FAILING_FOR_LONG)
}

/// Whether what was told is over. What an earlier process told of a resource has to be looked at for a while.
fn is_over(kind: NoticeKind, (word, subject): (&str, &str), known: &Observed<'_>) -> bool {
    // What the store does not tell now may go on.
    if known.unreadable.is_some() {
        return false;
    }
    match kind {
        NoticeKind::ClockOff => clock_is_right(known),
        NoticeKind::KeyRefused => every_key_works(subject, known),
        NoticeKind::SinkBehind => has_caught_up(subject, known),
        NoticeKind::CertificateEnding if word == LAST_WEEK => {
            certificates(known).last_again(subject, ENDING_SOON)
        }
        NoticeKind::CertificateEnding => certificates(known).last_again(subject, ENDING),
        NoticeKind::SinkFailing => works_again(subject, known),
        NoticeKind::ResourceContended => known.now.duration_since(known.since) >= LOOKED_AT,
        _ => true,
    }
}

/// Clearly right, as some resource says: near the bound it would begin and end all day.
fn clock_is_right(known: &Observed<'_>) -> bool {
    let far = known
        .renewers
        .values()
        .filter_map(|renewer| renewer.skew_ms);
    let far: Vec<u64> = far.map(i64::unsigned_abs).collect();
    let is_near = |far: &u64| Duration::from_millis(*far) < ODD_CLOCK / 2;
    let is_measured = !far.is_empty() || known.renewers.is_empty();
    known.held_step_secs.is_none() && is_measured && far.iter().all(is_near)
}

/// After a start the keys are not tried yet, and where both are refused that is told by others.
fn every_key_works(resource: &str, known: &Observed<'_>) -> bool {
    let mut keys = known.keys.iter();
    let keys = keys.find(|(name, _)| name.as_str() == resource);
    let accepted = |key: &KeyView| key.standing == KeyStanding::Accepted;
    keys.is_none_or(|(_, keys)| keys.status.keys.iter().all(accepted))
}

/// A sink that is behind and begins to fail, or is disabled, has not caught up.
fn has_caught_up(sink: &str, known: &Observed<'_>) -> bool {
    let mut waits = known.counts.oldest_pending.iter();
    let waits = waits.find(|(name, _)| name.as_str() == sink);
    waits.is_none_or(|(_, since)| known.now.duration_since(*since) < BEHIND)
}

/// A sink works again when something was delivered: that it has not been tried since a start says nothing.
fn works_again(sink: &str, known: &Observed<'_>) -> bool {
    let mut dispatchers = known.dispatchers.iter();
    let dispatcher = dispatchers.find(|(name, _)| name.as_str() == sink);
    dispatcher
        .is_none_or(|(_, dispatcher)| dispatcher.failures_in_row == 0 && dispatcher.delivered > 0)
}

fn sentence(need: &Need) -> String {
    let because = need.because.as_ref();
    let because = because.map_or(String::new(), |because| format!(" ({because})"));
    let command = need.command.as_ref();
    let command = command.map_or(String::new(), |command| format!(" See `{command}`."));
    let what = if need.kind == NeedKind::SinkFailing {
        format!("The sink {} fails: {}", need.subject, need.message)
    } else {
        format!("{}: {}", need.subject, need.message)
    };
    format!("{what}{because}.{command}")
}

fn ended(kind: NoticeKind, subject: &str) -> String {
    match kind {
        NoticeKind::SinkRecovered => {
            format!("The sink {subject} works again, or is no longer configured.")
        }
        NoticeKind::CertificateRenewed => {
            format!("{subject}: the certificate lasts again, or is needed no more.")
        }
        NoticeKind::ClockRight => "The clock is right again, by the answers of ACS.".to_owned(),
        NoticeKind::KeyAccepted => {
            format!("Every access key of {subject} is accepted, or it is no longer configured.")
        }
        NoticeKind::NodeBack => format!("The node {subject} is there again, or was forgotten."),
        NoticeKind::NodeWell => {
            format!(
                "The clock, the network and the configuration of {subject} are as they should be."
            )
        }
        NoticeKind::SealKeyFound => "The seal key lies in its place.".to_owned(),
        NoticeKind::JobSucceeded => {
            format!("The job {subject} came to a good end, or is no longer configured.")
        }
        NoticeKind::ResourceConfigured => {
            format!("{subject} is configured, or nobody wants its tokens any more.")
        }
        NoticeKind::MapWritable => format!("{subject} is written again."),
        NoticeKind::DeclarationAccepted => "Everybody who is declared is taken over.".to_owned(),
        NoticeKind::SinkCaughtUp => {
            format!("No delivery of the sink {subject} waits for long any more.")
        }
        NoticeKind::WithdrawalDelivered => {
            format!("The sink {subject} knows of everything that is withdrawn.")
        }
        NoticeKind::RowsReadable => "Every row of the store can be read again.".to_owned(),
        NoticeKind::ListenAccepted => {
            format!("{subject} is served again, or is no longer configured.")
        }
        NoticeKind::ReloadAccepted => "The configuration is taken over again.".to_owned(),
        NoticeKind::StoreFound => "The file of the store lies where it belongs again.".to_owned(),
        NoticeKind::WithdrawalsCopied => {
            "The second place of what was withdrawn is written again.".to_owned()
        }
        NoticeKind::CreateAllowed => {
            format!("No identity of {subject} waits any more for a word on whether it is created.")
        }
        NoticeKind::ResourceUncontended => format!(
            "{subject}: ACS has answered no 429 below our own pace for ten minutes; nobody else seems to use it any more."
        ),
        _ => format!("The {subject} is as it should be again."),
    }
}
