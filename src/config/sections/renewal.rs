//! `[renewal]`: when tokens are renewed; the same three keys may stand in an `[[identity]]`.

use std::time::Duration;

use super::super::keys::{DAY, HOUR, Key, Preset::Is, Table, Takes, key};
use super::super::{
    Renewal,
    problem::Note,
    quantity::duration,
    reader::{Item, Section},
};

pub(super) const LIFETIME: Key = key(
    "lifetime",
    // Source: ACS REST 2023-10-01, `expiresInMinutes`, 60 to 1440.
    Takes::Duration(HOUR, DAY),
    Is("\"24h\""),
    "\"24h\"",
    "The life asked of Azure, in whole minutes.",
);

pub(super) const RENEW_AT: Key = key(
    "renew_at",
    // Renewed earlier than this, a token would hardly be used; from 0.75 on a renewal is urgent.
    Takes::Share(EARLIEST, 0.75),
    Is("0.5"),
    "0.5",
    "Renew after this share of a token's own life. What is left then is the time that an outage of Azure may take without anybody noticing.",
);

pub(super) const SPREAD: Key = key(
    "spread",
    Takes::Share(0.0, 0.5),
    Is("0.02"),
    "0.02",
    "Spread the renewals over this share of the life, early only; where too many would fall into one minute, over more, down to half of renew_at. renew_at less spread must stay at 0.05 or more.",
);

pub(super) static RENEWAL: Table = Table {
    name: "renewal",
    header: "[renewal]",
    says: "Each of these three may also be set in an [[identity]], for that one alone.",
    groups: &[&[LIFETIME, RENEW_AT, SPREAD]],
};

/// Renewed earlier than this, a token would hardly be used.
const EARLIEST: f64 = 0.05;

impl Default for Renewal {
    fn default() -> Self {
        let share = |text: &str| text.parse().ok();
        Self {
            lifetime: RENEWAL.preset("lifetime", duration),
            renew_at: RENEWAL.preset("renew_at", share),
            spread: RENEWAL.preset("spread", share),
        }
    }
}

/// Reads `[renewal]`.
pub(super) fn read_defaults(mut section: Section<'_>) -> Renewal {
    let renewal = read(&mut section, &Renewal::default());
    section.finish();
    renewal
}

/// Reads the three keys, each with its default.
pub(super) fn read(section: &mut Section<'_>, defaults: &Renewal) -> Renewal {
    let (renew_at, spread) = (section.optional("renew_at"), section.optional("spread"));
    let renewal = Renewal {
        lifetime: section.or("lifetime", defaults.lifetime, lifetime),
        renew_at: renew_at.and_then(Item::share).unwrap_or(defaults.renew_at),
        spread: spread.and_then(Item::share).unwrap_or(defaults.spread),
    };
    if let Some(item) = spread.or(renew_at)
        && renewal.renew_at - renewal.spread < EARLIEST - f64::EPSILON
    {
        let message = format!(
            "renew_at {} less spread {} leaves less than {EARLIEST} of a token's life",
            renewal.renew_at, renewal.spread
        );
        item.tell(Note::error(item.span(), message).hint("make spread smaller or renew_at larger"));
    }
    renewal
}

pub(super) fn lifetime(item: Item<'_>) -> Option<Duration> {
    let lifetime = item.duration()?;
    if lifetime.as_secs().is_multiple_of(60) {
        return Some(lifetime);
    }
    item.wrong(
        "`lifetime` must be whole minutes",
        "ACS takes minutes, between 1h and 24h",
    )
}
