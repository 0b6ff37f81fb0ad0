//! How a new list differs from the last one, in numbers, and whether it may be taken over.

use sha2::{Digest as _, Sha256};

use crate::{
    config::MaxRemoval,
    model::{RefusedRow, Spec},
};

/// What differs between the last list and a new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Difference {
    /// New rows.
    pub added: u64,
    /// Rows that differ.
    pub changed: u64,
    /// Names that are no longer listed, not even in a refused row.
    pub removed: u64,
    /// Rows that are as they were.
    pub unchanged: u64,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added + self.changed + self.removed == 0
    }

    /// Why a person has to say yes before anything of this is taken over, if so. `listed` is how many rows
    /// there are now, `wrong` the first that was refused, `replaced` whether they come from another file
    /// than before.
    pub fn blocked(
        &self,
        listed: u64,
        wrong: Option<&RefusedRow>,
        replaced: bool,
    ) -> Option<String> {
        let removed = self.removed;
        let known = removed + self.changed + self.unchanged;
        if removed == 0 {
            return None;
        }
        if listed == 0 {
            return Some(format!("it is empty, and listed {known} before"));
        }
        if self.added + self.changed + self.unchanged == 0 {
            return Some(format!(
                "not one of its {listed} rows can be an identity, and it listed {known} before{}",
                wrong.map_or_else(String::new, |row| format!(
                    " (row {}: {})",
                    row.number, row.reason
                ))
            ));
        }
        replaced.then(|| {
            format!(
                "the file was replaced by another one, in which {removed} of {known} are missing"
            )
        })
    }

    /// Why so many may not go without a person's word, if so.
    pub fn removes_too_many(&self, most: MaxRemoval) -> Option<String> {
        let removed = self.removed;
        let known = removed + self.changed + self.unchanged;
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
