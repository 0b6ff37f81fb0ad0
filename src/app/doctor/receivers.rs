//! Receivers that do not answer, or whose clock is so far from ours that signatures look stale.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::SignedDuration;

use crate::{
    clock::Clock,
    config::{Finding, Settings, Severity, SinkSettings, WebhookSinkSettings},
    sinks::{SinkFailure, WebhookSink, webhook::ProbeAnswer},
};

/// How long one of them may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The libraries refuse a signature that is older or newer than this.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(300);
/// From here on somebody should look at a clock.
const ODD: SignedDuration = SignedDuration::from_secs(60);

/// Asks one receiver whether it is there, by the way that events take; sends no event.
///
/// # Errors
/// When the sink cannot be made, or the receiver does not answer.
pub async fn reach(
    settings: &WebhookSinkSettings,
    clock: &Clock,
) -> Result<ProbeAnswer, SinkFailure> {
    let sink = WebhookSink::new(settings, "doctor", None)
        .map_err(|error| SinkFailure::new(error.to_string()))?;
    sink.probe(clock, DEADLINE).await
}

/// Asks all of them at once.
pub(super) async fn examine(settings: &Settings, clock: &Clock) -> Vec<Finding> {
    let webhooks = settings.sinks.iter().filter_map(|sink| match sink {
        SinkSettings::Webhook(webhook) => Some(webhook),
        _ => None,
    });
    let asked = webhooks.map(|webhook| reach(webhook, clock));
    let answers = join_all(asked).await;
    let answers = answers.into_iter().enumerate();
    answers
        .filter_map(|(n, answer)| judge(answer, &format!("sink.webhook[{n}].url")))
        .collect()
}

fn judge(answer: Result<ProbeAnswer, SinkFailure>, path: &str) -> Option<Finding> {
    let finding = |severity, message, fix: &str| Finding {
        path: path.to_owned(),
        severity,
        message,
        hint: Some(fix.to_owned()),
    };
    let ahead = match answer {
        Err(failure) => {
            let fix =
                "start the receiver, or correct url; curl -i URL from this machine tells more";
            return Some(finding(Severity::Error, failure.message, fix));
        }
        Ok(probe) => probe.ahead?,
    };
    let (distance, seconds) = (ahead.abs(), ahead.as_secs().abs());
    let side = if ahead.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    let fix = "on whichever is wrong: timedatectl set-ntp true; timedatectl timesync-status";
    let told = format!("the receiver's clock is {seconds} s {side} ours");
    if distance >= TOLERANCE {
        let message = format!("{told}, so it takes every signature for stale");
        Some(finding(Severity::Error, message, fix))
    } else if distance >= ODD {
        let message = format!("{told}; from 300 s on it would refuse every signature");
        Some(finding(Severity::Warning, message, fix))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(seconds: i64) -> Option<Finding> {
        let probe = ProbeAnswer {
            status: 204,
            ahead: Some(SignedDuration::from_secs(seconds)),
        };
        judge(Ok(probe), "p")
    }

    #[test]
    fn a_clock_is_odd_from_a_minute_and_wrong_from_the_tolerance() {
        assert_eq!(judged(59), None);
        assert_eq!(judged(-59), None);
        assert_eq!(judged(61).unwrap().severity, Severity::Warning);
        let behind = judged(-300).unwrap();
        assert_eq!(behind.severity, Severity::Error);
        assert!(behind.message.contains("300 s behind ours"), "{behind:?}");
    }

    #[test]
    fn a_receiver_that_tells_no_time_is_fine_and_a_silent_one_is_not() {
        let probe = ProbeAnswer {
            status: 405,
            ahead: None,
        };
        assert_eq!(judge(Ok(probe), "p"), None);
        let silent = judge(Err(SinkFailure::new("cannot post")), "p").unwrap();
        assert_eq!(silent.severity, Severity::Error);
    }
}
