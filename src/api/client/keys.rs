//! Questions about access keys.

use http::Method;

use super::{
    Client, ClientError,
    wire::{KeyChange, KeyItem, Page, ReplaceKey, ResourceKeys},
};
use crate::model::ResourceName;

impl Client {
    /// The keys of every resource.
    pub async fn all_keys(&self) -> Result<Vec<ResourceKeys>, ClientError> {
        self.get("/v1/keys").await
    }

    /// The keys of one resource, and how far a replacement is.
    pub async fn keys(&self, resource: &ResourceName) -> Result<ResourceKeys, ClientError> {
        self.get(&format!("/v1/keys/{resource}")).await
    }

    /// Begins to replace a key.
    pub async fn replace_key(
        &self,
        resource: &ResourceName,
        asked: &ReplaceKey,
    ) -> Result<KeyChange, ClientError> {
        self.call(Method::POST, &format!("/v1/keys/{resource}"), Some(asked))
            .await
    }

    /// Calls a replacement off.
    pub async fn cancel_key(&self, resource: &ResourceName) -> Result<KeyChange, ClientError> {
        let target = format!("/v1/keys/{resource}");
        self.call(Method::DELETE, &target, None::<&()>).await
    }

    /// The identities of the newest replacement, in order of name, after this one.
    pub async fn key_items(
        &self,
        resource: &ResourceName,
        after: Option<&str>,
    ) -> Result<Page<KeyItem>, ClientError> {
        self.page(&format!("/v1/keys/{resource}/identities"), after)
            .await
    }
}
