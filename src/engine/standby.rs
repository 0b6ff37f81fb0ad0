//! The files of this node where it starts while its database is away: what is gone is put back from its mirror. What
//! lies there stays as it is, for it may be newer than the mirror, and nothing is noted.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use super::restore::{PAGE, RenewerViews, dead, gather};
use crate::{
    clock::Clock,
    model::{Num, SinkAt},
    sinks::{DeliveryOutcome, FileSink, SinkDelivery},
    store::{Consignment, Store, StoreError},
};

/// Puts the files of a sink back that are gone; how many.
///
/// # Errors
/// When the mirror does not hold what is needed.
pub async fn put_back(
    store: &Store,
    name: &SinkAt,
    sink: &FileSink,
    clock: &Clock,
) -> Result<usize, StoreError> {
    if sink.is_bundle() {
        return put_bundle_back(store, name, sink, clock).await;
    }
    let (mut after, mut back): (Num, usize) = (0, 0);
    loop {
        let page = store.delivered_page(name, after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(back);
        };
        after = last.num;
        for row in page {
            if let Some(consignment) = store.consignment(row.num).await?
                && is_good(&consignment, clock)
            {
                let delivery = delivery(consignment);
                let document = &delivery.document;
                if sink.lacks(&document.name, &document.resource).await {
                    let written = sink.deliver(delivery, clock.now()).await;
                    back += count(name, written.map(|receipt| receipt.outcome));
                }
            }
        }
    }
}

async fn put_bundle_back(
    store: &Store,
    name: &SinkAt,
    sink: &FileSink,
    clock: &Clock,
) -> Result<usize, StoreError> {
    let gathered = gather(store, name, clock.now()).await?;
    let good = |member: &SinkDelivery| {
        member
            .document
            .expires_at
            .is_none_or(|end| clock.now() < end)
    };
    let members: Vec<SinkDelivery> = gathered.members.into_iter().filter(good).collect();
    let Some(first) = members.first().map(|member| member.document.clone()) else {
        return Ok(0);
    };
    if !sink.lacks(&first.name, &first.resource).await {
        return Ok(0);
    }
    let written = sink.deliver_bundle(members, clock.now()).await;
    Ok(count(name, written.map(|receipt| receipt.outcome)))
}

/// Whether there is a token that is not known to be dead.
fn is_good(consignment: &Consignment, clock: &Clock) -> bool {
    // No renewer runs yet.
    let nobody: RenewerViews = watch::channel(BTreeMap::new()).1;
    consignment.document.token.is_some() && dead(consignment, &nobody, clock.now()).is_none()
}

fn delivery(consignment: Consignment) -> SinkDelivery {
    SinkDelivery {
        document: Arc::new(consignment.document),
        readers: consignment.readers,
    }
}

fn count<E: std::fmt::Display>(name: &SinkAt, written: Result<DeliveryOutcome, E>) -> usize {
    match written {
        Ok(outcome) => usize::from(outcome != DeliveryOutcome::Unchanged),
        Err(error) => {
            tracing::warn!(sink = %name, %error, "a file could not be put back from the mirror");
            0
        }
    }
}
