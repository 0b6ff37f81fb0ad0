//! How names become addresses, where the sender has a say in it.

use std::{fmt, net::SocketAddr, sync::Arc};

use futures_util::future::BoxFuture;

/// A lookup: the addresses of a name (ports are of no matter), or why there are none.
pub type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, Result<Vec<SocketAddr>, String>> + Send + Sync>;

/// Resolves names. A connection goes to the very addresses that one call gave, so whoever judges
/// them here has judged where the connection goes.
#[derive(Clone)]
pub struct Resolver(Lookup);

impl Resolver {
    /// With this lookup.
    pub fn new(lookup: Lookup) -> Self {
        Self(lookup)
    }

    /// As this system resolves names.
    pub fn system() -> Self {
        Self::new(Arc::new(|host: String| {
            Box::pin(async move {
                let addresses = tokio::net::lookup_host((host.as_str(), 0)).await;
                addresses.map(Iterator::collect).map_err(|e| e.to_string())
            })
        }))
    }

    /// The addresses of a name.
    ///
    /// # Errors
    /// When there are none, or none that may be used: one sentence.
    pub async fn resolve(&self, host: &str) -> Result<Vec<SocketAddr>, String> {
        (self.0)(host.to_owned()).await
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let found = (self.0)(name.as_str().to_owned());
        Box::pin(async move {
            let addresses: reqwest::dns::Addrs = Box::new(found.await?.into_iter());
            Ok(addresses)
        })
    }
}
