//! Makes the rows what the declarations say. First a plan, by reads alone, which a reload can print;
//! then the plan is carried out in one transaction. What is unchanged is read and not written.

use std::collections::BTreeSet;

use super::{
    Store,
    aside::RowKind,
    db::{self, Db},
    error::{Answer, Outcome},
    idmap::read_remembered,
};
use crate::{
    model::{Declaration, IdentityId, Name, Num, OnRemoval, Origin, SinkAt, Spec, State},
    sql::{self, Row, SqlError},
};

/// A declaration that was not taken, and why; or a row that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub name: Name,
    /// Why, in one sentence.
    pub reason: String,
}

/// What declaring did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    pub create: usize,
    /// Rows due now because scopes, lifetime or id changed.
    pub reissue: usize,
    /// Rows in which something else changed.
    pub update: usize,
    /// Rows declared again after a removal.
    pub release: usize,
    /// Rows withheld because they are no longer declared.
    pub hold: usize,
    /// Rows forgotten because they are no longer declared.
    pub forget: usize,
    /// Rows withheld and to be revoked because they are no longer declared.
    pub revoke: usize,
    /// Rows that stay as they are.
    pub unchanged: usize,
    /// Sinks that are new, come back, or are no longer configured.
    pub sinks: usize,
    /// Declarations that were not taken.
    pub refused: Vec<Refusal>,
}

impl Reconciled {
    /// Adds what the next part of the same declaration did.
    pub(super) fn absorb(&mut self, next: Self) {
        self.create += next.create;
        self.reissue += next.reissue;
        self.update += next.update;
        self.release += next.release;
        self.hold += next.hold;
        self.forget += next.forget;
        self.revoke += next.revoke;
        self.unchanged += next.unchanged;
        self.sinks += next.sinks;
        self.refused.extend(next.refused);
    }

    /// Whether nothing was, or would be, written.
    pub fn is_unchanged(&self) -> bool {
        *self
            == Self {
                unchanged: self.unchanged,
                refused: self.refused.clone(),
                ..Self::default()
            }
    }
}

impl std::fmt::Display for Reconciled {
    /// `+2 create, ~1 re-issue, -1 hold`, or `no change`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            ("+", self.create, "create"),
            ("+", self.release, "release"),
            ("~", self.reissue, "re-issue"),
            ("~", self.update, "update"),
            ("-", self.hold, "hold"),
            ("-", self.forget, "forget"),
            ("-", self.revoke, "revoke"),
            ("!", self.refused.len(), "refused"),
        ];
        let told: Vec<String> = parts
            .iter()
            .filter(|(_, n, _)| *n > 0)
            .map(|(sign, n, what)| format!("{sign}{n} {what}"))
            .collect();
        f.write_str(if told.is_empty() { "no change" } else { "" })?;
        f.write_str(&told.join(", "))
    }
}

/// What is to be done; unchanged rows are only counted.
#[derive(Debug, Default)]
pub(super) struct ReconcilePlan {
    /// Places in the list of declarations.
    pub(super) create: Vec<usize>,
    pub(super) change: Vec<(usize, Alteration)>,
    pub(super) remove: Vec<(Num, OnRemoval)>,
    pub(super) sinks_gone: Vec<SinkAt>,
    pub(super) sinks_new: Vec<SinkAt>,
    pub(super) unchanged: usize,
    pub(super) refused: Vec<Refusal>,
}

/// How a row differs from its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alteration {
    pub(super) num: Num,
    /// Scopes, lifetime or id differ: the token is not what is wished.
    pub(super) reissue: bool,
    /// It had been removed, or gets a new id after its old one was gone: it comes back.
    pub(super) back: bool,
}

/// What a declaration is compared with.
struct Known {
    num: Num,
    resource: String,
    origin: Origin,
    declared: bool,
    removed: u8,
    state: State,
    id: Option<IdentityId>,
    declaration: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Create,
    Change(Alteration),
    Unchanged,
    Refuse(String),
}

/// A row with a name that cannot be read may be the one that is looked for.
#[derive(Debug, thiserror::Error)]
#[error("a row whose name cannot be read may be it")]
struct Hidden;

/// Why a declaration is not taken over.
const UNREADABLE: &str = "its row in the store, or one that may be its own, cannot be read and is left as it is: \
    see `renewd status`";

impl ReconcilePlan {
    pub(super) fn refuse(&mut self, spec: &Spec, reason: String) {
        let name = spec.name.clone();
        self.refused.push(Refusal { name, reason });
    }

    /// The plan in numbers.
    pub(super) fn told(&self) -> Reconciled {
        let changed =
            |pick: fn(&Alteration) -> bool| self.change.iter().filter(|(_, a)| pick(a)).count();
        let removed = |how| self.remove.iter().filter(|(_, on)| *on == how).count();
        Reconciled {
            create: self.create.len(),
            reissue: changed(|a| a.reissue && !a.back),
            update: changed(|a| !a.reissue && !a.back),
            release: changed(|a| a.back),
            hold: removed(OnRemoval::Hold),
            forget: removed(OnRemoval::Forget),
            revoke: removed(OnRemoval::Revoke),
            unchanged: self.unchanged,
            sinks: self.sinks_gone.len() + self.sinks_new.len(),
            refused: self.refused.clone(),
        }
    }
}

impl Store {
    /// What [`Store::reconcile`] would do.
    pub async fn plan_reconcile(&self, specs: &[Spec], sinks: &[SinkAt]) -> Answer<Reconciled> {
        let (specs, sinks) = (specs.to_vec(), sinks.to_vec());
        self.read("compare the declared identities", move |db| {
            Ok(db.plan_reconcile(&specs, &sinks)?.told())
        })
        .await
    }
}

impl Db {
    /// Compares all that the files declare with the store.
    pub(super) fn plan_reconcile(
        &self,
        specs: &[Spec],
        sinks: &[SinkAt],
    ) -> Outcome<ReconcilePlan> {
        let mut plan = ReconcilePlan::default();
        // What machines left of a cluster that is none any more is nobody else's.
        let is_ours = |sink: &SinkAt| {
            self.node.is_none() || sink.node().is_none() || sink.node() == self.node.as_ref()
        };
        self.plan_sinks(sinks, &mut plan, is_ours)?;
        plan.remove = self.no_longer_declared(specs)?;
        self.plan_specs(specs, &mut plan)?;
        Ok(plan)
    }

    /// Compares sinks that are configured with those that were; who else's they are is none of our business.
    pub(super) fn plan_sinks(
        &self,
        sinks: &[SinkAt],
        plan: &mut ReconcilePlan,
        is_ours: impl Fn(&SinkAt) -> bool,
    ) -> Outcome<()> {
        let sql = "SELECT num, name, node FROM sink WHERE configured = 1";
        let known = self.all(RowKind::Sink, sql, [], |row| {
            db::sink_at(row, ("name", "node"))
        })?;
        let known: BTreeSet<SinkAt> = known.into_iter().filter(&is_ours).collect();
        let wanted: BTreeSet<&SinkAt> = sinks.iter().filter(|sink| is_ours(sink)).collect();
        let gone = known.iter().filter(|sink| !wanted.contains(sink));
        plan.sinks_gone = gone.cloned().collect();
        let new = wanted.into_iter().filter(|sink| !known.contains(*sink));
        plan.sinks_new = new.cloned().collect();
        Ok(())
    }

    /// What declaring these would do.
    pub(super) fn plan_declare(&self, specs: &[Spec]) -> Outcome<Reconciled> {
        let mut plan = ReconcilePlan::default();
        self.plan_specs(specs, &mut plan)?;
        Ok(plan.told())
    }

    /// Compares declarations with the store, without looking for what is no longer declared.
    pub(super) fn plan_specs(&self, specs: &[Spec], plan: &mut ReconcilePlan) -> Outcome<()> {
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for (at, spec) in specs.iter().enumerate() {
            let known = match self.known(spec) {
                Err(fault) if fault.is_unreadable() => {
                    plan.refuse(spec, UNREADABLE.to_owned());
                    continue;
                }
                known => known?,
            };
            let twice = !names.insert(&spec.name)
                || spec.declared.id.as_ref().is_some_and(|id| !ids.insert(id));
            let fate = match fate(known.as_ref(), spec) {
                _ if twice => Fate::Refuse("its name or its id is declared twice".to_owned()),
                Fate::Create | Fate::Change(_) if !self.may_have(spec, known.as_ref(), plan)? => {
                    Fate::Refuse(format!(
                        "the id {} belongs to another name; an id can have one name only",
                        spec.declared.id.as_ref().map_or("", IdentityId::as_str)
                    ))
                }
                fate => fate,
            };
            match fate {
                Fate::Create => plan.create.push(at),
                Fate::Change(alteration) => plan.change.push((at, alteration)),
                Fate::Unchanged => plan.unchanged += 1,
                Fate::Refuse(reason) => plan.refuse(spec, reason),
            }
        }
        Ok(())
    }

    /// The row of a declaration. Where there is none, it must be certain that none is hidden: neither
    /// by a name nor by a remembered id that cannot be read.
    fn known(&self, spec: &Spec) -> Outcome<Option<Known>> {
        let name = spec.name.as_str();
        let known = self.one(RowKind::Identity, KNOWN, [name], read_known)?;
        if known.is_none() && spec.declared.id.is_none() {
            let sql = "SELECT * FROM remembered WHERE name = ?1";
            self.one(RowKind::RememberedId, sql, [name], read_remembered)?;
            if self.aside.hides_a_name() {
                return Err(SqlError::unreadable("name", Hidden).into());
            }
        }
        Ok(known)
    }

    /// Whether the id that is declared is free, or will be once forgotten rows have let go of theirs.
    fn may_have(&self, spec: &Spec, known: Option<&Known>, plan: &ReconcilePlan) -> Outcome<bool> {
        let Some(id) = &spec.declared.id else {
            return Ok(true);
        };
        let owner = self.first(OWNER, [id.as_str()], |row| {
            let forgotten = row.get::<_, u8>(1).is_ok_and(|mark| mark == FORGOTTEN);
            Ok((row.get::<_, Num>(0)?, forgotten))
        })?;
        Ok(match owner {
            None => true,
            Some((num, forgotten)) => {
                forgotten
                    || known.is_some_and(|known| known.num == num)
                    || plan.remove.contains(&(num, OnRemoval::Forget))
            }
        })
    }

    /// Rows that the files declared before and no longer do.
    fn no_longer_declared(&self, specs: &[Spec]) -> Outcome<Vec<(Num, OnRemoval)>> {
        let named: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let missing = self.some(RowKind::Identity, usize::MAX, DECLARED, [], |row| {
            let is_named = named.contains(row.get_ref("name")?.as_str().unwrap_or_default());
            if !is_named {
                // A name that cannot be read says nothing about what is declared.
                db::parsed::<Name>(row, "name")?;
            }
            Ok((!is_named).then_some(row.get::<_, Num>("num")?))
        })?;
        missing
            .into_iter()
            .map(|num| Ok((num, self.on_removal(num)?)))
            .collect()
    }

    pub(super) fn on_removal(&self, num: Num) -> Outcome<OnRemoval> {
        let sql = "SELECT wish FROM identity WHERE num = ?1";
        let declaration = self.first(sql, [num], |row| Ok(row.get::<_, String>(0).ok()))?;
        Ok(declaration
            .flatten()
            .and_then(|declaration| Declaration::parse(&declaration).ok())
            .map_or(OnRemoval::Hold, |declaration| declaration.on_removal))
    }
}

/// The mark of a row that is held because nothing names it any more.
pub(super) const REMOVED: u8 = 1;
/// The mark of a row that drops out once its consumers have been told.
pub(super) const FORGOTTEN: u8 = 2;

pub(super) const DECLARED: &str = "SELECT num, name FROM identity WHERE declared = 1 ORDER BY name";
pub(super) const KNOWN: &str = "SELECT i.num, r.name AS resource, i.origin, i.declared, i.removed, i.state, i.id, \
    i.wish FROM identity i LEFT JOIN resource r ON r.num = i.resource WHERE i.name = ?1";
pub(super) const OWNER: &str = "SELECT num, removed FROM identity WHERE id = ?1";

/// What a declaration means for the row that there is.
fn fate(known: Option<&Known>, spec: &Spec) -> Fate {
    let Some(known) = known else {
        return Fate::Create;
    };
    if known.resource != spec.resource.as_str() {
        return Fate::Refuse(format!(
            "it belongs to the resource {}; an identity cannot move to {}: give it another name, or forget it first",
            known.resource, spec.resource
        ));
    }
    // The files win over everybody; among the others the first to name it keeps it.
    if known.removed == 0 && known.origin != spec.origin && spec.origin != Origin::File {
        return Fate::Refuse(match &known.origin {
            Origin::File => "a configuration file declares it".to_owned(),
            Origin::Cli => {
                "it was added by the command line; `renewd identity remove` lets it go".to_owned()
            }
            Origin::Source(name) => format!("the source {name} lists it"),
        });
    }
    let declared = &spec.declared;
    let was = Declaration::parse(&known.declaration).ok();
    let new_id = declared.id.is_some() && declared.id != known.id;
    let lost = matches!(known.state, State::Gone | State::Deleted) && known.removed == 0;
    let alteration = Alteration {
        num: known.num,
        reissue: (new_id && known.id.is_some())
            || was.as_ref().is_none_or(|was| {
                was.scopes != declared.scopes || was.lifetime != declared.lifetime
            }),
        back: known.removed != 0 || (lost && new_id),
    };
    let same = known.declared == (spec.origin == Origin::File)
        && known.origin == spec.origin
        && !new_id
        && known.removed == 0
        && was.as_ref() == Some(declared);
    if same {
        Fate::Unchanged
    } else {
        Fate::Change(alteration)
    }
}

fn read_known(row: &Row<'_>) -> sql::Result<Known> {
    Ok(Known {
        num: row.get("num")?,
        resource: row.get("resource")?,
        origin: db::word(row, "origin")?,
        declared: row.get("declared")?,
        removed: row.get("removed")?,
        state: db::word(row, "state")?,
        id: db::maybe_parsed(row, "id")?,
        declaration: row.get_ref("wish")?.as_str().unwrap_or_default().to_owned(),
    })
}
