//! Speaks SQL to our database; seals secrets; keeps `identities.jsonl`.
//!
//! The store is the queue between the parts of the daemon and has one owner (a kernel lock). What is
//! in flight is a set in the caller's memory; after a crash everything unfinished is simply due again.
//! Verbs take batches, and time as an argument. Each is one transaction: it happened or it did not.
//!
//! How it is laid out: [`Store`] (`handle`) hands work to the one writer (`writer`), which shares commits,
//! or to readers. What the rest of the daemon asks for are its methods; each stands with its SQL in the file
//! of its noun, and says in a few words what it does: that names its errors and its metric.

mod answers;
mod aside;
mod audit;
mod backup;
mod campaigns;
mod catch_up;
mod cleanup;
mod commit;
mod commit_mark;
mod consumers;
mod counters;
mod creations;
mod db;
mod declarations;
mod deliveries;
mod disk;
mod doubts;
mod error;
mod facts;
mod gone;
mod handle;
mod identities;
mod idmap;
mod inspection;
mod jobs;
mod journal;
mod key_changes;
mod late_calls;
mod link;
mod mirror;
mod mirror_facts;
mod mirror_rows;
mod nodes;
mod notices;
mod open;
mod queues;
mod reconcile;
mod reseal;
mod reservations;
mod restore;
mod schema;
mod seal;
mod signals;
mod sinks;
mod sources;
mod standby;
mod steps;
mod stock;
mod tables;
#[cfg(test)]
mod tests;
mod threads;
mod transfer;
mod trial;
mod withdrawals;
mod writer;

pub use audit::AuditQuery;
pub use backup::{Contents, verify_backup};
pub use campaigns::{
    Campaign, CampaignItem, CampaignState, FailedAmongOthers, Followed, Frozen, ItemEnd, ItemNote,
    ItemOutcome, ItemState, NewCampaign, Order, ReportLine, RowOrder, Stalled, Target, WaitingItem,
    Wanted,
};
pub use catch_up::BroughtUp;
pub use cleanup::{Pruned, Tally};
pub use consumers::{Acknowledgement, Holder, ReadsQuery, TokenReads};
pub use consumers::{Ended, Withheld};
pub use counters::Miscount;
pub use creations::Orphan;
pub use creations::TakenOver;
pub use db::Changed;
pub use declarations::{ImportLine, Imported};
pub use deliveries::Member;
pub use deliveries::{Delivery, Pending, Settled};
pub use deliveries::{Listed, Rows};
pub use disk::{Disk, DiskRoom};
pub use error::{BackupError, Each, OpenError, StoreError};
pub use handle::Store;
pub use identities::{Consignment, Holding, Led};
pub use inspection::Bookmark;
pub use jobs::{JobRan, JobRun, JobSchedule, NewRun, RunOutcome};
pub use key_changes::{KeyPage, NewKeyChange};
pub use link::Link;
pub use nodes::{ChangeKind, SharedChange, WorkSignals};
pub use notices::{Decided, Posting};
pub use open::Opened;
pub use queues::{FailingAlone, Work};
pub use reconcile::{Reconciled, Refusal};
pub use reseal::Resealing;
pub use restore::{
    RestoreError, RestoreHow, Restored, open_without_key, restore_backup, take_back,
};
pub use seal::{seal_key_id, seal_key_of};
pub use sinks::{Disabled, Stray};
pub use sources::{Digest, SourceChange, SourceEnd, SourceFacts};
pub use standby::noting_mirror;
pub use steps::{Cause, StepOn};
pub use stock::stock_at_rest;
pub use threads::THREADS;
pub use transfer::{MoveError, Moved, Moving, move_store};
pub use trial::try_database;

pub use crate::model::{CampaignAction, CampaignId, IdLine};
