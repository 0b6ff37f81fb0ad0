//! Compares a new list with the last one, and decides whether it may be taken over.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::Listing;
use crate::{
    config::MaxRemoval,
    model::{Name, Spec},
};

/// What differs between the last list and a new one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    /// New rows, with their digests.
    pub added: Vec<(Spec, [u8; 16])>,
    /// Rows that differ.
    pub changed: Vec<(Spec, [u8; 16])>,
    /// Names that are no longer listed, not even in a refused row.
    pub removed: Vec<Name>,
    /// Rows that are as they were.
    pub unchanged: u64,
}

impl Difference {
    /// Compares; `known` is every name of the last list with its row's digest.
    pub fn between(known: &BTreeMap<Name, [u8; 16]>, listing: &Listing) -> Self {
        let mut left = known.clone();
        for name in listing.refused_names() {
            left.remove(name);
        }
        let mut difference = Self::default();
        for spec in &listing.specs {
            let digest = digest(spec);
            match left.remove(&spec.name) {
                Some(was) if was == digest => difference.unchanged += 1,
                Some(_) => difference.changed.push((spec.clone(), digest)),
                None => difference.added.push((spec.clone(), digest)),
            }
        }
        difference.removed = left.into_keys().collect();
        difference
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Why a person has to say yes before this is taken over, if so. `listed` is how many rows there
    /// are now, `replaced` whether they come from another file than before.
    pub fn blocked(&self, most: MaxRemoval, listed: u64, replaced: bool) -> Option<String> {
        let removed = self.removed.len() as u64;
        if removed == 0 {
            return None;
        }
        let known = removed + self.changed.len() as u64 + self.unchanged;
        if listed == 0 {
            return Some(format!("it is empty, and listed {known} before"));
        }
        let nobody = self.added.is_empty() && self.changed.is_empty() && self.unchanged == 0;
        if nobody {
            return Some(format!(
                "not one of its {listed} rows can be an identity, and it listed {known} before"
            ));
        }
        if replaced {
            return Some(format!(
                "the file was replaced by another one, in which {removed} of {known} are missing"
            ));
        }
        // Both are counts of rows, far below where a float rounds.
        #[expect(
            clippy::cast_precision_loss,
            reason = "rows are counted in millions at most"
        )]
        let too_large_a_share = removed as f64 > most.share * known as f64;
        (removed > most.count && too_large_a_share).then(|| {
            format!(
                "{removed} of {known} are missing, more than max_removal allows (a share of {}, or {})",
                most.share, most.count
            )
        })
    }
}

/// What tells two rows apart: everything that is wished of the identity.
pub fn digest(spec: &Spec) -> [u8; 16] {
    let text = serde_json::to_vec(spec).unwrap_or_default();
    let whole: [u8; 32] = Sha256::digest(&text).into();
    whole.first_chunk().copied().unwrap_or_default()
}
