//! What a test can change of Entra ID while it runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The controls; the default is a world in order. Trouble on the way (statuses, resets, hangs, delays) is asked
/// for as for ACS, by a fault whose operation is `entra` or the name of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntraControls {
    /// How long a bearer lives; if left out an hour by the authority, a day by a metadata service.
    #[serde(rename = "lifetime_seconds", with = "seconds")]
    pub lifetime: Option<Duration>,
    /// `refresh_in` of every answer; none is sent if left out.
    #[serde(rename = "refresh_in_seconds", with = "seconds")]
    pub refresh_in: Option<Duration>,
    /// Whether a bearer that lives is given again, as IMDS does with its cache.
    pub cached: bool,
    /// `aud` of bearers, in place of what was asked for.
    pub audience: Option<String>,
    /// Whether whoever calls has the role at the resource.
    pub role: bool,
    /// What ACS answers where the role is missing: 401 or 403 (unverified which).
    pub role_status: u16,
    /// Whether the resource takes access keys.
    pub access_keys: bool,
    /// What it answers to an access key where not: 401 or 403 (unverified which).
    pub access_keys_status: u16,
    pub challenge: Challenge,
    /// Which identities the machine has.
    pub machine: Machine,
    /// Whether an assertion by a certificate is good once only; the SDKs send one again while it lives.
    pub assertion_once: bool,
    /// The file that Arc names, in place of the one that it wrote.
    pub realm: Option<String>,
}

impl Default for EntraControls {
    fn default() -> Self {
        Self {
            lifetime: None,
            refresh_in: None,
            cached: false,
            audience: None,
            role: true,
            role_status: 401,
            access_keys: true,
            access_keys_status: 401,
            challenge: Challenge::default(),
            machine: Machine::default(),
            assertion_once: false,
            realm: None,
        }
    }
}

/// Whether ACS asks for another bearer than the one it was shown (`insufficient_claims`). Unverified whether it
/// ever does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Challenge {
    #[default]
    Off,
    /// Until it sees one that was asked for with its claims.
    UntilAnswered,
    /// Even then, so that a client that asks again and again is seen.
    Always,
}

/// Which identities the machine has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Machine {
    /// Its own and an assigned one.
    #[default]
    Both,
    System,
    Assigned,
    None,
}

impl EntraControls {
    /// With some of them changed, as the control API takes it: a JSON object of names and values.
    pub(in crate::entra) fn changed(&self, changes: Value) -> Result<Self, String> {
        let Value::Object(changes) = changes else {
            return Err("give an object of controls and their values".to_owned());
        };
        let mut all = serde_json::to_value(self).unwrap_or_default();
        for (name, value) in changes {
            all[name] = value;
        }
        let new: Self = serde_json::from_value(all).map_err(|error| error.to_string())?;
        for status in [new.role_status, new.access_keys_status] {
            if !matches!(status, 401 | 403) {
                return Err(format!("{status} is neither 401 nor 403"));
            }
        }
        Ok(new)
    }
}

/// A duration as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Ten years; more is a slip.
    const LONGEST: f64 = 315_360_000.0;

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        life: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match life {
            Some(life) => serializer.serialize_f64(life.as_secs_f64()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        let read = |seconds: f64| {
            let known = (0.0..=LONGEST).contains(&seconds);
            known.then(|| Duration::from_secs_f64(seconds))
        };
        seconds
            .map(|seconds| read(seconds).ok_or_else(|| D::Error::custom("from 0 s to ten years")))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_stays_and_nonsense_is_refused() {
        let controls = EntraControls::default();
        let changed = controls
            .changed(json!({"lifetime_seconds": 90, "role": false, "challenge": "always"}))
            .unwrap();
        let expected = EntraControls {
            lifetime: Some(Duration::from_secs(90)),
            role: false,
            challenge: Challenge::Always,
            ..EntraControls::default()
        };
        assert_eq!(changed, expected);
        let back = changed.changed(json!({"lifetime_seconds": null}));
        assert_eq!(back.unwrap().lifetime, None);
        for bad in [
            json!([]),
            json!({"rule": false}),
            json!({"role": null}),
            json!({"role_status": 404}),
            json!({"lifetime_seconds": -1}),
            json!({"lifetime_seconds": 1e300}),
            json!({"challenge": "often"}),
        ] {
            assert!(controls.changed(bad.clone()).is_err(), "{bad}");
        }
    }
}
