//! Questions about lists of identities: imports, and sources that others own.

use std::time::Duration;

use http::Method;

use super::{Client, ClientError, wire};
use crate::model::{SourceName, SourceReport};

/// How long a source may be read, and its list be written.
const READING: Duration = Duration::from_mins(15);

impl Client {
    /// Checks identities and ids, or takes them over.
    pub async fn import(&self, import: &wire::Import) -> Result<wire::Imported, ClientError> {
        self.call_within(Method::POST, "/v1/import", Some(import), READING)
            .await
    }

    /// A person's word that identities that wait may be created.
    pub async fn create_missing(
        &self,
        asked: &wire::CreateMissing,
    ) -> Result<wire::CreationsAllowed, ClientError> {
        self.call(Method::POST, "/v1/create", Some(asked)).await
    }

    /// The sources of identities and how they are.
    pub async fn sources(&self) -> Result<wire::Sources, ClientError> {
        self.get("/v1/sources").await
    }

    /// Reads a source and says what its list would change.
    pub async fn test_source(&self, name: &SourceName) -> Result<SourceReport, ClientError> {
        let target = format!("/v1/sources/{name}/test");
        self.call_within(Method::POST, &target, None::<&()>, READING)
            .await
    }

    /// Takes a source's list over; `yes` sets `max_removal` aside.
    pub async fn apply_source(
        &self,
        name: &SourceName,
        yes: bool,
    ) -> Result<SourceReport, ClientError> {
        let target = format!("/v1/sources/{name}/apply");
        let wish = wire::ApplySource { yes };
        self.call_within(Method::POST, &target, Some(&wish), READING)
            .await
    }
}
