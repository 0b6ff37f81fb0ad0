//! Questions about access: who did what, who took tokens, who uses which version, what may be
//! orphaned.

use http::Method;
use jiff::Timestamp;

use super::{Client, ClientError, encoded, unreadable};
use crate::{
    api::wire::{Ack, Acked, DismissOrphans, Dismissed, HolderRow, Orphan, Page, ReadsRow},
    model::{AuditEntry, Name, Version},
};

/// Which entries of the audit trail; what is left out does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// On this identity.
    pub name: Option<Name>,
    /// By those whose description holds this text.
    pub actor: Option<String>,
    /// This action.
    pub action: Option<String>,
    /// At or after this instant.
    pub since: Option<Timestamp>,
    /// Before this instant.
    pub until: Option<Timestamp>,
    /// Without routine renewals.
    pub without_renewals: bool,
}

impl AuditFilter {
    fn query(&self) -> String {
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let pairs = [
            ("name", self.name.as_ref().map(ToString::to_string)),
            ("actor", self.actor.clone()),
            ("action", self.action.clone()),
            ("since", time(self.since)),
            ("until", time(self.until)),
            (
                "without_renewals",
                self.without_renewals.then(|| "true".to_owned()),
            ),
        ];
        query(pairs)
    }
}

impl Client {
    /// Says which version this consumer uses. `label` is what it calls itself, such as
    /// `renewd-exec`.
    pub async fn acknowledge(
        &self,
        name: &Name,
        version: Version,
        label: &str,
    ) -> Result<Acked, ClientError> {
        let target = format!("/v1/tokens/{name}/ack");
        let body = serde_json::to_vec(&Ack { version })
            .map_err(|error| unreadable(&target, &error.to_string()))?;
        self.call_as(Method::PUT, &target, label, body.into()).await
    }

    /// Consumers and the versions that they use, of one identity or of all; those that use an old
    /// one alone, if so wished.
    pub async fn holders(
        &self,
        name: Option<&Name>,
        only_old: bool,
    ) -> Result<Page<HolderRow>, ClientError> {
        let pairs = [
            ("name", name.map(ToString::to_string)),
            ("old", only_old.then(|| "true".to_owned())),
        ];
        self.get(&format!("/v1/holders{}", query(pairs))).await
    }

    /// The audit trail, newest first.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        after: Option<&str>,
    ) -> Result<Page<AuditEntry>, ClientError> {
        self.page(&format!("/v1/audit{}", filter.query()), after)
            .await
    }

    /// Tokens that were taken over the socket, counted by the hour, the latest first.
    pub async fn token_reads(
        &self,
        name: Option<&Name>,
        since: Option<Timestamp>,
        after: Option<&str>,
    ) -> Result<Page<ReadsRow>, ClientError> {
        let pairs = [
            ("name", name.map(ToString::to_string)),
            ("since", since.map(|at| at.to_string())),
        ];
        self.page(&format!("/v1/reads{}", query(pairs)), after)
            .await
    }

    /// What may exist at ACS without a record.
    pub async fn orphans(&self, after: Option<&str>) -> Result<Page<Orphan>, ClientError> {
        self.page("/v1/orphans", after).await
    }

    /// Takes orphans off the list; ACS is not called.
    pub async fn dismiss_orphans(
        &self,
        dismiss: &DismissOrphans,
    ) -> Result<Dismissed, ClientError> {
        self.call(Method::POST, "/v1/orphans/dismiss", Some(dismiss))
            .await
    }
}

/// The pairs that have a value, as a query.
fn query<const N: usize>(pairs: [(&str, Option<String>); N]) -> String {
    let pairs: Vec<String> = pairs
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", encoded(&value?))))
        .collect();
    match pairs.is_empty() {
        true => String::new(),
        false => format!("?{}", pairs.join("&")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_is_asked_for() {
        assert_eq!(AuditFilter::default().query(), "");
        let filter = AuditFilter {
            actor: Some("uid 7 (a&b)".into()),
            without_renewals: true,
            ..AuditFilter::default()
        };
        assert_eq!(
            filter.query(),
            "?actor=uid%207%20%28a%26b%29&without_renewals=true"
        );
    }
}
