//! Speaks SQL to our database; seals secrets; keeps `identities.jsonl`.
//!
//! The store is the queue between the parts of the daemon and has one owner (a kernel lock). What is
//! in flight is a set in the caller's memory; after a crash everything unfinished is simply due again.
//! Verbs take batches, and time as an argument. Each is one transaction: it happened or it did not.
//!
//! How it is laid out: [`Store`] (`handle`, `verbs`) hands work to the one writer (`writer`), which
//! shares commits, or to readers. The work itself is plain synchronous code, one file per subject.

mod access;
mod apart;
mod aside;
mod audit;
mod backup;
mod bringing;
mod campaigns;
mod columns;
mod commit;
mod consumers;
mod creations;
mod db;
mod declare;
mod deliveries;
mod doubts;
mod error;
mod examine;
mod facts;
mod gone;
mod handle;
mod housekeeping;
mod identities;
mod idmap;
mod import;
mod jobs;
mod key;
mod key_changes;
mod key_stages;
mod ledger;
mod lock;
mod notices;
mod open;
mod orphans;
mod placements;
mod reconcile;
mod reseal;
mod reservations;
mod reserve;
mod restore;
mod schema;
mod seal;
mod signals;
mod sinks;
mod sources;
mod spec;
mod standing;
mod steps;
mod telling;
#[cfg(test)]
mod tests;
mod verbs;
mod withdrawals;
mod writer;

pub use access::{Acknowledgement, Holder, ReadsQuery, TokenReads};
pub use apart::Each;
pub use audit::AuditQuery;
pub use backup::{BackupError, Contents, verify_backup};
pub use bringing::BroughtUp;
pub use campaigns::{
    Campaign, CampaignAction, CampaignId, CampaignItem, CampaignState, Followed, Frozen, ItemEnd,
    ItemNote, ItemOutcome, ItemState, NewCampaign, Order, ReportLine, RowOrder, Stalled, Target,
    WaitingItem, Wanted,
};
pub use consumers::{Ended, Withheld};
pub use creations::TakenOver;
pub use db::Changed;
pub use deliveries::{Delivery, Settled};
pub use error::{OpenError, StoreError};
pub use examine::Bookmark;
pub use handle::{Store, THREADS};
pub use housekeeping::Pruned;
pub use identities::{Consignment, FailingAlone, Led, Work};
pub use idmap::IdLine;
pub use import::{ImportLine, Imported};
pub use jobs::{JobRun, JobSchedule, NewRun, RunOutcome};
pub use key::{seal_key_id, seal_key_of};
pub use key_changes::{KeyPage, NewKeyChange};
pub use ledger::{Listed, Rows};
pub use open::Opened;
pub use orphans::Orphan;
pub use placements::{Member, Stray};
pub use reconcile::{Reconciled, Refusal};
pub use reseal::Resealing;
pub use reserve::Disk;
pub use restore::{
    RestoreError, RestoreHow, Restored, open_without_key, restore_backup, take_back,
};
pub use sinks::Disabled;
pub use sources::{Digest, SourceChange, SourceEnd, SourceFacts};
pub use steps::{Cause, StepOn};
pub use telling::{Decided, Posting};
pub use verbs::Holding;
