//! The emulator behind a socket: plain http, or TLS with an authority of its own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use renewd_acs_wire::Secret;
use renewd_clock::Clock;

use super::{
    Emulator, EmulatorError, EmulatorOptions,
    socket::{self, Replying},
    tls::{self, TlsError, Trust, TrustError},
};

/// Where and how to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// `HOST:PORT`; port 0 takes a free one.
    pub listen: String,
    /// Plain http instead of TLS.
    pub plain_http: bool,
    /// More names for the certificate, besides the listen host and those of this machine's
    /// loopback.
    pub names: Vec<String>,
    /// Where the authority's certificate goes; a folder of its own, removed in the end, if left out.
    pub ca_file: Option<PathBuf>,
    /// The authority is the same for the same seed; made for this run if left out.
    pub ca_seed: Option<u64>,
    /// The emulator itself.
    pub emulator: EmulatorOptions,
}

/// Why the emulator cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The options do not make an emulator.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address.
        listen: String,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The authority's certificate cannot be written.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// An emulator that is bound to its address; it accepts while [`Serving::run_until`] runs, and
/// connections that come before are kept waiting by the kernel.
pub struct Serving {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    trust: Option<Trust>,
    endpoint: String,
    emulator: Arc<Emulator>,
}

/// Binds the address, and makes an emulator and, unless it is plain http, an authority for it.
///
/// # Errors
/// When any of that fails; see [`ServeError`].
pub async fn serve(options: ServeOptions, clock: Clock) -> Result<Serving, ServeError> {
    let emulator = Arc::new(Emulator::new(options.emulator, clock)?);
    let unbound = |source| ServeError::Listen {
        listen: options.listen.clone(),
        source,
    };
    let listener = TcpListener::bind(&options.listen).await.map_err(unbound)?;
    let address = listener.local_addr().map_err(unbound)?;
    let scheme = if options.plain_http { "http" } else { "https" };
    let endpoint = format!("{scheme}://{}", reachable(address));
    let (tls, trust) = if options.plain_http {
        (None, None)
    } else {
        let names = names(&options.listen, address, options.names.clone());
        let (tls, authority) = tls::set_up(names, options.ca_seed)?;
        let trust = Trust::write(&authority, options.ca_file.as_deref())?;
        (Some(tls), Some(trust))
    };
    Ok(Serving {
        listener,
        tls,
        trust,
        endpoint,
        emulator,
    })
}

impl Serving {
    /// `https://HOST:PORT`, without a slash at the end.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The connection string with the primary key, endpoint first, as every SDK reads it.
    pub fn connection_string(&self) -> Secret {
        self.emulator.connection_string(&self.endpoint)
    }

    /// The authority's certificate; none for plain http.
    pub fn ca_path(&self) -> Option<&Path> {
        self.trust.as_ref().map(Trust::ca)
    }

    /// The authority's certificate together with the system's.
    pub(super) fn bundle_path(&self) -> Option<&Path> {
        self.trust.as_ref().map(Trust::bundle)
    }

    /// The emulator, for whoever has it in the same process.
    pub fn emulator(&self) -> Arc<Emulator> {
        Arc::clone(&self.emulator)
    }

    /// Serves until `stop`, then lets connections finish for at most a second.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let emulator = self.emulator;
        let replying: Replying = Arc::new(move |request| {
            let emulator = Arc::clone(&emulator);
            Box::pin(async move { emulator.handle(request).await })
        });
        socket::serve(self.listener, self.tls, replying, stop).await;
    }
}

/// The address that a client on this machine connects to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The names on the certificate: loopback, the host as it was given and as it was resolved.
fn names(listen: &str, address: SocketAddr, more: Vec<String>) -> Vec<String> {
    let given = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let given = given.trim_start_matches('[').trim_end_matches(']');
    let mut names: Vec<String> = ["127.0.0.1", "::1", "localhost", given]
        .into_iter()
        .map(str::to_owned)
        .chain([address.ip().to_string()])
        .chain(more)
        .filter(|name| !name.is_empty())
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

#[cfg(test)]
mod tests;
