//! Verbs of those who watch: what consumers should hold, many in one read.

use super::Answer;
use crate::{
    model::{Name, Record, TokenDocument},
    store::{Store, db::Db, error::Outcome},
};

/// A row and what its consumers should hold, both of one version.
#[derive(Debug, Clone)]
pub struct Holding {
    /// The row.
    pub record: Record,
    /// What a consumer should hold, with the token.
    pub document: TokenDocument,
}

impl Store {
    /// Holdings by name; those that do not exist or cannot be read are left out.
    pub async fn holdings(&self, names: Vec<Name>) -> Answer<Vec<Holding>> {
        self.read("read tokens", move |db| {
            let _same_state = db.conn.unchecked_transaction()?;
            let found = db.records(&names)?;
            db.held(found)
        })
        .await
    }

    /// A page of holdings in the order of their names.
    pub async fn holdings_page(&self, after: Option<&Name>, limit: usize) -> Answer<Vec<Holding>> {
        let after = after.map_or(String::new(), ToString::to_string);
        self.read("read tokens", move |db| {
            let _same_state = db.conn.unchecked_transaction()?;
            let found = db.list(&after, limit)?;
            db.held(found)
        })
        .await
    }
}

impl Db {
    fn held(&self, records: Vec<Record>) -> Outcome<Vec<Holding>> {
        let mut holdings = Vec::with_capacity(records.len());
        for record in records {
            if let Some(found) = self.consignment(record.num)? {
                let document = found.document;
                holdings.push(Holding { record, document });
            }
        }
        Ok(holdings)
    }
}
