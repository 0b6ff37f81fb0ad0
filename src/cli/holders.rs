//! Consumers and the versions that they said they use, as a table.

use jiff::Timestamp;

use crate::api::client::wire::HolderRow;

use super::output::{Cell, GOOD, STRONG, Table, WARN, relative};

/// One line for each consumer.
pub(crate) fn table(rows: &[HolderRow], now: Timestamp) -> Table {
    let mut table = Table::new(&["CONSUMER", "USER", "IDENTITY", ">USES", ">NEWEST", "SAID"]);
    for HolderRow { holder, user } in rows {
        let style = match holder.version == holder.current {
            true => GOOD,
            false => WARN,
        };
        table.row([
            Cell::styled(holder.client.as_str(), STRONG),
            user.as_str().into(),
            holder.name.as_str().into(),
            Cell::styled(holder.version.to_string(), style),
            holder.current.to_string().into(),
            relative(holder.at, now).into(),
        ]);
    }
    table
}
