//! Looks everything through from time to time, a page at a time: so that a row that cannot be read is
//! noticed although nobody asks for it (garbage in a time is never due), and one that was set aside is
//! taken up again once it is mended. What the store can mend by itself is mended on the way.
//!
//! Trails are not looked through: nothing depends on them, and whoever lists them meets what is wrong.

use super::{
    CampaignId, Store, StoreError,
    aside::RowKind,
    campaigns::{read_campaign, read_item},
    creations::read_orphan,
    db::{self, Db, Effects, Txn, micros, spelled},
    deliveries::{delivery_columns, read_delivery},
    doubts::read_doubt,
    error::{Fault, Outcome},
    identities::{read_record, record_columns},
    idmap::read_remembered,
    jobs::read_run,
    key_changes::read_change,
    notices::read_numbered,
    sinks::{read_placed, read_stray},
    sources::{Digest, read_facts},
    tables::Counting,
};
use crate::{
    model::{DueReason, JobName, Kind, Name, Num, Operation, ResourceName, Timestamp},
    sql::{self, Row, Value, params},
};

/// Rows looked at in one read.
const PAGE: usize = 500;

/// Where the next part of a look at everything begins.
#[derive(Debug, Clone)]
pub struct Bookmark {
    walk: usize,
    after: (Value, Value),
}

impl Bookmark {
    fn start_of(walk: usize) -> Self {
        let first = |is_text| match is_text {
            true => Value::Text(String::new()),
            false => Value::Integer(i64::MIN),
        };
        let keys = WALKS.get(walk).map_or((false, false), |walk| walk.texts);
        Self {
            walk,
            after: (first(keys.0), first(keys.1)),
        }
    }
}

/// What a page showed that can be mended.
#[derive(Debug, Default)]
struct Page {
    next: Option<Bookmark>,
    /// Rows that no renewal is planned for although they want a token, or whose token is worthless.
    unplanned: Vec<Num>,
}

/// One table: its rows in order after a key of two columns, `k1` and `k2`, and how each is read.
struct Walk {
    kind: RowKind,
    /// Whether `k1` and `k2` are texts.
    texts: (bool, bool),
    sql: &'static str,
    read: fn(&Db, &Row<'_>, &mut Page) -> Outcome<()>,
}

const WALKS: [Walk; 17] = [
    Walk {
        kind: RowKind::Identity,
        texts: (false, false),
        sql: concat!(
            "SELECT ",
            record_columns!(),
            ", i.num AS k1, 0 AS k2, r.name AS resource_name, i.* FROM identity i LEFT JOIN resource r ON r.num = i.resource \
             WHERE i.num > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY i.num"
        ),
        read: identity,
    },
    Walk {
        kind: RowKind::Delivery,
        texts: (false, false),
        sql: concat!(
            "SELECT ",
            delivery_columns!("s.name", "s.node"),
            ", d.identity AS k1, d.sink AS k2, d.* FROM delivery d LEFT JOIN identity i ON i.num = d.identity \
             LEFT JOIN sink s ON s.num = d.sink WHERE (d.identity, d.sink) > (?1, ?2) ORDER BY d.identity, d.sink"
        ),
        read: |_, row, _| {
            read_delivery(row)?;
            row.get::<_, Option<i64>>("live_until")?;
            placed(row)
        },
    },
    Walk {
        kind: RowKind::Sink,
        texts: (false, false),
        sql: "SELECT num AS k1, 0 AS k2, * FROM sink WHERE num > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY num",
        read: sink,
    },
    Walk {
        kind: RowKind::Resource,
        texts: (false, false),
        sql: "SELECT num AS k1, 0 AS k2, * FROM resource WHERE num > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY num",
        read: |_, row, _| Ok(db::parsed::<ResourceName>(row, "name").map(drop)?),
    },
    Walk {
        kind: RowKind::RememberedId,
        texts: (true, false),
        sql: "SELECT name AS k1, 0 AS k2, * FROM remembered WHERE name > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY name",
        read: |_, row, _| Ok(read_remembered(row).map(drop)?),
    },
    Walk {
        kind: RowKind::Orphan,
        texts: (false, false),
        sql: "SELECT num AS k1, 0 AS k2, * FROM orphan WHERE num > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY num",
        read: |_, row, _| Ok(read_orphan(row).map(drop)?),
    },
    Walk {
        kind: RowKind::Stray,
        texts: (false, false),
        sql: "SELECT num AS k1, 0 AS k2, * FROM stray WHERE num > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY num",
        read: |_, row, _| {
            row.get::<_, i64>("next_at")?;
            Ok(read_stray(row).map(drop)?)
        },
    },
    Walk {
        kind: RowKind::Reservation,
        texts: (false, false),
        sql: "SELECT num AS k1, 0 AS k2, * FROM reservation WHERE num > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY num",
        read: |_, row, _| {
            db::word::<Operation>(row, "operation")?;
            db::parsed::<ResourceName>(row, "resource")?;
            db::instant_in(row, "until")?;
            row.get::<_, u32>("permits")?;
            Ok(())
        },
    },
    Walk {
        kind: RowKind::Notice,
        texts: (false, false),
        sql: "SELECT seq AS k1, 0 AS k2, * FROM notice WHERE seq > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY seq",
        read: |_, row, _| Ok(read_numbered(row).map(drop)?),
    },
    Walk {
        kind: RowKind::Campaign,
        texts: (false, false),
        sql: "SELECT num AS k1, 0 AS k2, * FROM campaign WHERE num > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY num",
        read: |_, row, _| Ok(read_campaign(row).map(drop)?),
    },
    Walk {
        kind: RowKind::CampaignItem,
        texts: (false, false),
        sql: "SELECT c.num AS k1, t.num AS k2, r.name AS resource, i.state AS row_state, t.* FROM campaign c \
              CROSS JOIN campaign_item t ON t.campaign = c.num LEFT JOIN resource r ON r.num = t.resource \
              LEFT JOIN identity i ON i.num = t.num WHERE c.ended_at IS NULL AND c.num >= ?1 \
              AND (c.num > ?1 OR t.num > ?2) ORDER BY c.num, t.num",
        read: |_, row, _| {
            db::word::<super::ItemState>(row, "state")?;
            for time in ["called_at", "acked_at", "reissued_at", "delivered_at"] {
                db::maybe_instant(row, time)?;
            }
            Ok(read_item(row).map(drop)?)
        },
    },
    Walk {
        kind: RowKind::Job,
        texts: (true, false),
        sql: "SELECT name AS k1, 0 AS k2, * FROM job WHERE name > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY name",
        read: |_, row, _| {
            db::parsed::<JobName>(row, "name")?;
            db::instant_in(row, "decided_until")?;
            Ok(())
        },
    },
    Walk {
        kind: RowKind::JobRun,
        texts: (false, false),
        sql: "SELECT num AS k1, 0 AS k2, NULL AS ended_at, * FROM job_run WHERE num > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY num",
        read: |_, row, _| Ok(read_run(row).map(drop)?),
    },
    Walk {
        kind: RowKind::Source,
        texts: (false, false),
        sql: "SELECT num AS k1, 0 AS k2, 0 AS identities, * FROM source WHERE num > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY num",
        read: |_, row, _| Ok(read_facts(row).map(drop)?),
    },
    Walk {
        kind: RowKind::SourceRow,
        texts: (false, true),
        sql: "SELECT source AS k1, name AS k2, * FROM source_row WHERE (source, name) > (?1, ?2) \
              ORDER BY source, name",
        read: |_, row, _| {
            row.get::<_, i64>("source")?;
            row.get::<_, Digest>("digest")?;
            Ok(db::parsed::<Name>(row, "name").map(drop)?)
        },
    },
    Walk {
        kind: RowKind::KeyChange,
        texts: (false, false),
        sql: "SELECT num AS k1, 0 AS k2, * FROM key_change WHERE num > ?1 AND CAST(?2 AS BIGINT) = ?2 ORDER BY num",
        read: |_, row, _| Ok(read_change(row).map(drop)?),
    },
    Walk {
        kind: RowKind::DoubtedKey,
        texts: (true, true),
        sql: "SELECT resource AS k1, fingerprint AS k2, * FROM doubted_key WHERE (resource, fingerprint) > (?1, ?2) \
              ORDER BY resource, fingerprint",
        read: |_, row, _| Ok(read_doubt(row).map(drop)?),
    },
];

fn identity(db: &Db, row: &Row<'_>, page: &mut Page) -> Outcome<()> {
    let record = read_record(row)?;
    db::word::<Kind>(row, "next_kind")?;
    db::instant_in(row, "created_at")?;
    db::maybe_instant(row, "asked_at")?;
    db::maybe_instant(row, "renews_at")?;
    row.get::<_, bool>("declared")?;
    row.get::<_, u8>("removed")?;
    row.get::<_, i64>("good_until")?;
    let read = db.read_consignment(row);
    let worthless = matches!(read, Err(Fault::Unseal(_)));
    if worthless || (record.due.is_none() && record.state.wants_token()) {
        page.unplanned.push(record.num);
    }
    match read {
        Err(fault @ Fault::Unseal(_)) => {
            db.note_consignment(row, &fault);
            Ok(())
        }
        read => read.map(drop),
    }
}

fn sink(_: &Db, row: &Row<'_>, _: &mut Page) -> Outcome<()> {
    db::parsed::<crate::model::SinkName>(row, "name")?;
    db::unsigned(row, "notice_cursor")?;
    row.get::<_, bool>("configured")?;
    row.get::<_, bool>("paused")?;
    row.get::<_, i64>("losses")?;
    row.get::<_, Option<String>>("disabled")?;
    placed(row)
}

fn placed(row: &Row<'_>) -> Outcome<()> {
    row.get::<_, Option<String>>("path")?;
    if row.get_ref("digest")? != sql::ValueRef::Null {
        read_placed(row)?;
    }
    Ok(())
}

impl Db {
    /// Looks at a page; where the next one begins.
    fn look_at(&self, mark: &Bookmark) -> Outcome<Page> {
        let Some(walk) = WALKS.get(mark.walk) else {
            return Ok(Page::default());
        };
        let (mut page, mut seen, mut after) = (Page::default(), 0, None);
        let mut failed = None;
        let from = [&mark.after.0, &mark.after.1];
        self.conn.each(walk.sql, from, Some(PAGE), |row| {
            seen += 1;
            after = Some((row.get("k1")?, row.get("k2")?));
            match (walk.read)(self, row, &mut page) {
                Err(Fault::Sql(error)) if error.is_unreadable() => {
                    self.aside.note(walk.kind, row, &error);
                }
                Err(fault) => failed = Some(fault),
                Ok(()) => {}
            }
            Ok(seen < PAGE && failed.is_none())
        })?;
        if let Some(fault) = failed {
            return Err(fault);
        }
        page.next = Some(match after.filter(|_| seen == PAGE) {
            Some(after) => Bookmark {
                after,
                ..mark.clone()
            },
            None => Bookmark::start_of(mark.walk + 1),
        });
        page.next.take_if(|next| next.walk == WALKS.len());
        Ok(page)
    }
}

impl Txn<'_> {
    /// Rows that wait for nothing although they should, or whose token does not open, are due now; but
    /// not twice.
    fn plan_anew(&mut self, nums: &[Num], now: Timestamp) -> Outcome<()> {
        let retry = spelled(&DueReason::Retry);
        for num in nums {
            let what = "SET due_at = ?2, due_why = ?3 WHERE num = ?1 \
                       AND state IN ('new', 'active', 'late') \
                       AND NOT (id IS NULL AND state = 'new' AND due_at IS NULL AND due_why IS NOT DISTINCT FROM 'first') \
                       AND (due_at IS NULL OR due_why IS NULL OR (due_at > ?2 AND due_why <> ?3))";
            let params = params![num, micros(now), retry];
            self.effects.due |= self.write_identities(what, params, Counting::OfRow(*num))? > 0;
        }
        Ok(())
    }

    /// Items of open campaigns that cannot be read have failed: so each campaign ends, and names them.
    fn fail_items(&mut self, items: &[(CampaignId, Option<Num>)], now: Timestamp) -> Outcome<()> {
        for (campaign, num) in items {
            let failed = self.write_items(
                "state = 'failed', error = 'its entry, or its row, in the store cannot be read', \
                 attempts = /*sqlite*/iif(typeof(attempts) = 'integer', attempts, 0)/*postgres attempts*/, next_at = ?3 \
                 WHERE campaign = ?1 AND (num = ?2 OR (?2 IS NULL AND /*sqlite*/typeof(num) <> 'integer'/*postgres FALSE*/)) \
                 AND state NOT IN ('done', 'failed', 'undelivered', 'cancelled') \
                 AND EXISTS (SELECT 1 FROM campaign WHERE num = ?1 AND ended_at IS NULL)",
                params![campaign, num, micros(now)],
            )?;
            if failed > 0 {
                self.count_items(*campaign)?;
                self.end_if_settled(*campaign, now)?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// Looks at the next part of everything, from the start with `None`; where to go on, `None` when all
    /// was looked at.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn examine(
        &self,
        from: Option<Bookmark>,
        now: Timestamp,
    ) -> Result<Option<Bookmark>, StoreError> {
        if from.is_none() && !self.looked_at_map() {
            self.look_at_map().await?;
        }
        let page = self
            .read("look the store through", move |db| {
                let mark = from.unwrap_or_else(|| {
                    db.aside.begin_look();
                    Bookmark::start_of(0)
                });
                let page = db.look_at(&mark)?;
                let over = page.next.is_none();
                let (mended, items) = match over {
                    true => (db.aside.end_look(), db.aside.items()),
                    false => (false, Vec::new()),
                };
                Ok((page, mended, items))
            })
            .await?;
        let (page, mended, items) = page;
        if !page.unplanned.is_empty() || !items.is_empty() {
            let unplanned = page.unplanned;
            self.write("mend rows", move |txn| {
                txn.plan_anew(&unplanned, now)?;
                txn.fail_items(&items, now)
            })
            .await?;
        }
        if mended {
            self.signals().tell(Effects {
                due: true,
                wanted: true,
                campaigns: true,
                ..Effects::default()
            });
        }
        Ok(page.next)
    }

    /// Once after a start, which need not have read it: whether the map of names to ids is as it was left.
    async fn look_at_map(&self) -> Result<(), StoreError> {
        let state_dir = self.state_dir().to_owned();
        let altered = self.read("look at identities.jsonl", move |db| {
            db.map_was_altered(&state_dir)
        });
        if altered.await? {
            tracing::warn!(
                "identities.jsonl was altered by another program: the next start compares all of it with the store"
            );
            self.write("look at identities.jsonl", |txn| txn.forget_agreement())
                .await?;
        }
        Ok(())
    }
}
