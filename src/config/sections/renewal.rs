//! `[renewal]`: when tokens are renewed; the same three keys may stand in an `[[identity]]`.

use std::time::Duration;

use super::super::{
    Renewal,
    reader::{Item, Section},
    report::Note,
};

/// ACS issues tokens for 60 to 1440 minutes. Source: ACS REST 2023-10-01, `expiresInMinutes`.
const SHORTEST: Duration = Duration::from_hours(1);
const LONGEST: Duration = Duration::from_hours(24);
/// From here on a renewal is urgent, so a normal one must come before.
const URGENT_FROM: f64 = 0.75;
/// Renewed earlier than this, a token would hardly be used.
const EARLIEST: f64 = 0.05;

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
        renew_at: renew_at
            .and_then(|item| item.fraction(EARLIEST..=URGENT_FROM, "0.5"))
            .unwrap_or(defaults.renew_at),
        spread: spread
            .and_then(|item| item.fraction(0.0..=0.5, "0.02"))
            .unwrap_or(defaults.spread),
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
    let lifetime = item.duration(SHORTEST..=LONGEST)?;
    if lifetime.as_secs().is_multiple_of(60) {
        return Some(lifetime);
    }
    item.wrong(
        "`lifetime` must be whole minutes",
        "ACS takes minutes, between 1h and 24h",
    )
}
