//! What a new configuration changes, decided without touching anything: which keys need a restart,
//! which parts start, stop or are replaced.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::{ResourceSettings, Settings, SinkSettings},
    model::ResourceName,
};

/// The keys that differ and cannot be changed while the daemon runs, by name.
pub(super) fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let differing = restart_keys(old, new).into_iter();
    differing
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
}

fn restart_keys(old: &Settings, new: &Settings) -> [(&'static str, bool); 9] {
    let (was, is) = (&old.daemon, &new.daemon);
    let seal = |settings: &Settings| settings.store.seal_key.clone();
    [
        ("daemon.state_dir", was.state_dir != is.state_dir),
        ("daemon.listen", was.listen != is.listen),
        ("daemon.socket", was.socket != is.socket),
        ("daemon.instance", was.instance != is.instance),
        ("store.path", old.store.path != new.store.path),
        (
            "store.withdrawn_copy",
            old.store.withdrawn_copy != new.store.withdrawn_copy,
        ),
        ("store.seal_key", seal(old) != seal(new)),
        (
            "store.retention.renewals",
            old.store.keep_renewals != new.store.keep_renewals,
        ),
        (
            "store.retention.other",
            old.store.keep_other != new.store.keep_other,
        ),
    ]
}

/// How a kind of parts changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delta<T> {
    /// Names of parts to stop: gone, or to be replaced.
    pub(super) stop: Vec<String>,
    /// Parts to start: new, or changed.
    pub(super) start: Vec<T>,
}

/// How the resources change; those of `other_ca` do because their CA file holds something else.
pub(super) fn resources(
    old: &Settings,
    new: &Settings,
    other_ca: &BTreeSet<ResourceName>,
) -> Delta<ResourceSettings> {
    let mut delta = delta(&old.resources, &new.resources, |resource| {
        resource.name.to_string()
    });
    let started: BTreeSet<ResourceName> = delta.start.iter().map(|one| one.name.clone()).collect();
    let again = new.resources.iter();
    let again = again.filter(|one| other_ca.contains(&one.name) && !started.contains(&one.name));
    for resource in again {
        delta.stop.push(resource.name.to_string());
        delta.start.push(resource.clone());
    }
    delta
}

/// How the sinks change.
pub(super) fn sinks(old: &Settings, new: &Settings) -> Delta<SinkSettings> {
    delta(&old.sinks, &new.sinks, |sink| sink.name().to_string())
}

fn delta<T: Clone + PartialEq>(old: &[T], new: &[T], name: impl Fn(&T) -> String) -> Delta<T> {
    let known: BTreeMap<String, &T> = old.iter().map(|part| (name(part), part)).collect();
    let wanted: BTreeMap<String, &T> = new.iter().map(|part| (name(part), part)).collect();
    Delta {
        stop: known
            .iter()
            .filter(|(name, part)| wanted.get(*name) != Some(part))
            .map(|(name, _)| name.clone())
            .collect(),
        start: wanted
            .iter()
            .filter(|(name, part)| known.get(*name) != Some(part))
            .map(|(_, part)| (*part).clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment, Source};

    #[test]
    fn the_keys_that_need_a_restart_are_those_that_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("renewd.toml");
        let text = "[[resource]]\nname = \"a\"\nconnection_string = { env = \"A\" }\n";
        std::fs::write(&path, text).unwrap();
        let environment =
            Environment::given([("A", "endpoint=https://a.b/;accesskey=YQ==")], "h", true);
        let settings = config::load(&Source { path, environment })
            .unwrap()
            .settings;
        let ours = restart_keys(&settings, &settings).map(|(key, _)| key.to_owned());
        let said = config::restart_keys();
        assert_eq!(BTreeSet::from(ours), said.into_iter().collect());
        assert!(needs_restart(&settings, &settings).is_empty());
    }

    #[test]
    fn what_did_not_change_goes_on_running() {
        let name = |part: &(&str, u8)| part.0.to_owned();
        let delta = delta(
            &[("a", 1), ("b", 1), ("c", 1)],
            &[("a", 1), ("b", 2), ("d", 1)],
            name,
        );
        assert_eq!(delta.stop, ["b", "c"]);
        assert_eq!(delta.start, [("b", 2), ("d", 1)]);
    }
}
