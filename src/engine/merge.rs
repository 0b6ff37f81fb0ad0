//! A new list beside the last one, both in the order of names: what differs comes out row by row, so that a
//! million rows take no more memory than one page of them.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, VecDeque},
};

use crate::{
    model::{IdentityId, Name, RefusedRow, SourceName, Spec},
    sources::{Listed, Reading, SourceError, digest},
    store::{Digest, Store, StoreError},
};

/// Names of the last list that are read at once, and rows that are asked about or written at once.
pub(super) const BATCH: usize = 2000;

/// Why a look came to nothing.
pub(super) enum Trouble {
    /// The source.
    Source(String),
    /// Our own store.
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        Self::Source(crate::model::one_line(&error.to_string()).into_owned())
    }
}

/// What a row of the new list, or the lack of one, means.
#[derive(Debug)]
pub(super) enum Step {
    /// A row that is new or differs.
    Wanted(Wanted),
    /// As it was.
    Unchanged,
    /// It cannot be an identity; whoever has its name stays.
    Refused(RefusedRow),
    /// It is no longer listed.
    Removed(Name),
}

/// A row that is new or differs.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) spec: Spec,
    pub(super) digest: Digest,
    pub(super) number: u64,
    pub(super) is_new: bool,
}

/// One way through both lists.
pub(super) struct Merge<'a> {
    store: &'a Store,
    source: SourceName,
    reading: &'a mut Reading,
    /// Whether a row may bring an id along that nobody here holds.
    adopts: bool,
    known: VecDeque<(Name, Digest)>,
    after: Option<Name>,
    known_ends: bool,
    row: Option<Listed>,
    rows_end: bool,
    /// Steps that are ready.
    ready: VecDeque<Step>,
}

impl<'a> Merge<'a> {
    pub(super) async fn new(
        store: &'a Store,
        source: &SourceName,
        reading: &'a mut Reading,
        adopts: bool,
    ) -> Result<Self, Trouble> {
        reading.begin().await?;
        Ok(Self {
            store,
            source: source.clone(),
            reading,
            adopts,
            known: VecDeque::new(),
            after: None,
            known_ends: false,
            row: None,
            rows_end: false,
            ready: VecDeque::new(),
        })
    }

    /// The next steps, at most so many; none at the end.
    pub(super) async fn next(&mut self) -> Result<VecDeque<Step>, Trouble> {
        while self.ready.len() < BATCH {
            match self.compared().await? {
                Some(step) => self.ready.push_back(step),
                None => break,
            }
        }
        if !self.adopts {
            self.refuse_strangers().await?;
        }
        Ok(std::mem::take(&mut self.ready))
    }

    /// The next row of either list, against the other.
    async fn compared(&mut self) -> Result<Option<Step>, Trouble> {
        if self.known.is_empty() && !self.known_ends {
            self.page().await?;
        }
        if self.row.is_none() && !self.rows_end {
            self.row = self.reading.next().await?;
            self.rows_end = self.row.is_none();
        }
        let order = match (self.known.front(), &self.row) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((name, _)), Some(row)) => name.cmp(&row.name),
        };
        let known = match order {
            Ordering::Greater => None,
            Ordering::Less | Ordering::Equal => self.known.pop_front(),
        };
        if order == Ordering::Less {
            return Ok(known.map(|(name, _)| Step::Removed(name)));
        }
        let Some(row) = self.row.take() else {
            return Ok(None);
        };
        Ok(Some(match row.spec {
            Err(refused) => Step::Refused(refused),
            Ok(spec) => {
                let digest = digest(&spec);
                match known {
                    Some((_, was)) if was == digest => Step::Unchanged,
                    known => Step::Wanted(Wanted {
                        spec: *spec,
                        digest,
                        number: row.number,
                        is_new: known.is_none(),
                    }),
                }
            }
        }))
    }

    async fn page(&mut self) -> Result<(), Trouble> {
        let after = self.after.clone();
        let page = self.store.source_rows(&self.source, after, BATCH).await?;
        self.known_ends = page.len() < BATCH;
        self.after = page
            .last()
            .map(|(name, _)| name.clone())
            .or(self.after.take());
        self.known = page.into();
        Ok(())
    }

    /// Rows with an id that nobody here holds: tokens of that user would be minted on the list's word.
    async fn refuse_strangers(&mut self) -> Result<(), Trouble> {
        let ids: Vec<(Name, IdentityId)> = self
            .ready
            .iter()
            .filter_map(|step| match step {
                Step::Wanted(Wanted { spec, .. }) => Some((spec.name.clone(), spec.id.clone()?)),
                _ => None,
            })
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        let strange = self.store.strange_ids(ids).await?;
        let strange: BTreeSet<Name> = strange.into_iter().collect();
        for step in &mut self.ready {
            if let Step::Wanted(Wanted { spec, number, .. }) = step
                && strange.contains(&spec.name)
            {
                let id = spec.id.as_ref().map_or("", IdentityId::as_str);
                *step = Step::Refused(RefusedRow {
                    number: *number,
                    name: Some(spec.name.clone()),
                    reason: format!(
                        "it brings the id {id} along, which renewd does not hold; a source may do that with \
                         `adopt_ids = true`"
                    ),
                });
            }
        }
        Ok(())
    }
}
