//! Warns where a resource's limits cannot carry the renewals that its identities need.

use super::{
    report::{Note, Report},
    sections::{IdentityDraft, ResourceDraft},
};
use crate::model::ResourceName;

/// Never more than this share of a limit is used: design, "Limits".
const USED: f64 = 0.97;

/// Warns of each resource whose identities need more than its limit of `issue` allows.
pub(super) fn warn<'a>(
    resources: &[ResourceDraft],
    identities: impl Iterator<Item = (&'a IdentityDraft, &'a Option<ResourceName>)>,
    report: &Report,
) {
    let mut needs = std::collections::BTreeMap::<&ResourceName, f64>::new();
    for (identity, resource) in identities {
        if let Some(resource) = resource {
            *needs.entry(resource).or_default() += identity.renewals_per_second();
        }
    }
    for resource in resources {
        let Some(name) = &resource.name else { continue };
        let needed = needs.get(&name.value).copied().unwrap_or_default();
        let limit = resource.limits.issue;
        let allowed = USED * f64::from(limit.calls) / limit.window.as_secs_f64();
        if needed > allowed {
            let message = format!(
                "the identities of {} need {}, its limit of `issue` allows {}: tokens will end before their turn",
                name.value,
                rate(needed),
                rate(allowed)
            );
            let hint = "longer lifetimes, a later renew_at, fewer identities, or a higher limit where Azure has granted one";
            report.add(Note::warning(resource.limits_at, message).hint(hint));
        }
    }
}

fn rate(per_second: f64) -> String {
    if per_second >= 10.0 {
        format!("{per_second:.0}/s")
    } else if per_second >= 0.1 {
        format!("{per_second:.1}/s")
    } else {
        format!("{:.1}/h", per_second * 3600.0)
    }
}
