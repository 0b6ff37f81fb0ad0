//! After a start, and after the clock was corrected backwards: rows that wait for an instant which
//! their token makes senseless get a due time that fits. Page by page, so that it never blocks.

use jiff::SignedDuration;

use super::{Lane, Moment};
use crate::{
    clock::Clock,
    model::{Change, Name},
    schedule::misplaced,
    store::StoreError,
};

const PAGE: usize = 256;
/// Corrections up to this need no scan.
const SMALL: SignedDuration = SignedDuration::from_secs(2);

/// Where the scan stands.
#[derive(Debug)]
pub(super) struct Scan {
    /// The wall clock less the steady one, when last seen.
    offset: SignedDuration,
    next: Option<Next>,
}

#[derive(Debug, Clone)]
enum Next {
    First,
    After(Name),
}

impl Scan {
    pub(super) fn new(clock: &Clock) -> Self {
        let now = Moment {
            wall: clock.now(),
            steady: clock.steady(),
        };
        Self {
            offset: offset(now),
            next: Some(Next::First),
        }
    }

    /// Whether there are pages left.
    pub(super) fn is_on(&self) -> bool {
        self.next.is_some()
    }

    fn observe(&mut self, now: Moment) {
        let offset = offset(now);
        if offset < self.offset - SMALL {
            self.next = Some(Next::First);
        }
        self.offset = offset;
    }
}

impl Lane {
    /// Looks at one page of rows, while there are pages left to look at.
    pub(super) async fn mend_due_times(&mut self) -> Result<(), StoreError> {
        let now = self.moment();
        self.scan.observe(now);
        let after = match &self.scan.next {
            None => return Ok(()),
            Some(Next::First) => None,
            Some(Next::After(name)) => Some(name.clone()),
        };
        let page = self.store.list(after.as_ref(), PAGE).await?;
        let skew = self.client.skew();
        for record in &page {
            let ours = record.spec.resource == self.settings.name;
            if ours
                && !self.busy.contains(&record.num)
                && let Some(due) = misplaced(record, skew, now.wall)
            {
                tracing::info!(
                    resource = %self.settings.name, identity = %record.spec.name,
                    "the clock was corrected; its renewal is moved to {:.0}", due.at
                );
                self.note(
                    Change::Due {
                        num: record.num,
                        due,
                    },
                    Vec::new(),
                );
            }
        }
        self.scan.next = match page.last() {
            Some(last) if page.len() == PAGE => Some(Next::After(last.spec.name.clone())),
            _ => None,
        };
        Ok(())
    }
}

fn offset(now: Moment) -> SignedDuration {
    let steady = SignedDuration::try_from(now.steady).unwrap_or(SignedDuration::MAX);
    SignedDuration::new(now.wall.as_second(), now.wall.subsec_nanosecond()) - steady
}
