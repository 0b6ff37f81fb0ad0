//! What a row of a source may be: an identity as it is wanted, within what the configuration lets a list
//! grant. A row that asks for more is refused, never cut to what is allowed: who gets less than the list
//! says would not notice.

use std::time::Duration;

use crate::{
    config::{Renewal, SourceSettings},
    model::{Entry, Origin, Scope, Spec, short_duration},
};

/// The identity that a row asks for.
///
/// # Errors
/// Why it cannot be one.
pub(super) fn spec(entry: Entry, settings: &SourceSettings) -> Result<Spec, String> {
    if entry.renew_at.is_some() || entry.spread.is_some() || entry.dropped {
        return Err(
            "renew_at and spread are for the configuration to say, not for a row".to_owned(),
        );
    }
    if entry.sinks.is_some() || entry.on_removal.is_some() {
        return Err(
            "sinks and on_removal are for the configuration to say, not for a row".to_owned(),
        );
    }
    if entry
        .resource
        .as_ref()
        .is_some_and(|resource| *resource != settings.resource)
    {
        return Err(format!(
            "this source is for the resource {}",
            settings.resource
        ));
    }
    within_bounds(&entry, settings)?;
    let scopes = entry.scopes.unwrap_or_else(|| settings.scopes.clone());
    if scopes.is_empty() {
        return Err("it says no scopes, and neither does the source".to_owned());
    }
    let Renewal {
        lifetime,
        renew_at,
        spread,
    } = settings.renewal;
    let mut labels = settings.labels.clone();
    labels.extend(entry.labels);
    Ok(Spec {
        name: entry.name,
        resource: settings.resource.clone(),
        id: entry.id,
        scopes,
        lifetime: entry.lifetime_seconds.map_or(lifetime, Duration::from_secs),
        renew_at,
        spread,
        labels,
        readers: entry.readers.unwrap_or_else(|| settings.readers.clone()),
        sinks: settings.sinks.clone(),
        on_removal: settings.on_removal,
        origin: Origin::Source(settings.name.clone()),
    })
}

/// Whether a row asks for no more than a list may grant.
fn within_bounds(entry: &Entry, settings: &SourceSettings) -> Result<(), String> {
    let (scopes, readers) = (
        entry.scopes.iter().flatten(),
        entry.readers.iter().flatten(),
    );
    if let Some(most) = &settings.max_scopes {
        let beyond: Vec<&str> = scopes
            .filter(|scope| !most.contains(scope))
            .map(|scope| Scope::as_str(*scope))
            .collect();
        if !beyond.is_empty() {
            return Err(format!(
                "it asks for the scopes {}, which max_scopes does not let this source grant",
                beyond.join(" ")
            ));
        }
    }
    if let Some(most) = &settings.max_readers
        && let Some(beyond) = readers.into_iter().find(|reader| !most.contains(reader))
    {
        return Err(format!(
            "it asks for the reader {beyond}, which max_readers does not let this source grant"
        ));
    }
    let lifetime = entry.lifetime_seconds.map(Duration::from_secs);
    match (lifetime, settings.max_lifetime) {
        (Some(asked), Some(most)) if asked > most => Err(format!(
            "it asks for a lifetime of {}, and max_lifetime lets this source grant {}",
            short_duration(asked),
            short_duration(most)
        )),
        _ => Ok(()),
    }
}
