//! Files that make other programs trust the emulator.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Where systems keep the authorities that they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A certificate cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the CA certificate to {path}: {source}")]
pub struct TrustError {
    path: PathBuf,
    source: io::Error,
}

/// The authority's certificate on disk, alone and together with the system's. Its own folder goes
/// when it is dropped.
#[derive(Debug)]
pub(super) struct Trust {
    ca: PathBuf,
    bundle: PathBuf,
    folder: PathBuf,
}

impl Trust {
    pub(super) fn write(authority: &str, ca: Option<&Path>) -> Result<Self, TrustError> {
        let name = format!("renewd-emulator-{}", uuid::Uuid::new_v4().simple());
        let folder = std::env::temp_dir().join(name);
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| TrustError { path, source }
        };
        // Whoever runs the emulator may not be who has to trust it.
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&folder)
            .map_err(failed(&folder))?;
        let ca = ca.map_or_else(|| folder.join("ca.pem"), Path::to_owned);
        let ca = std::path::absolute(&ca).map_err(failed(&ca))?;
        let trust = Self {
            bundle: folder.join("bundle.pem"),
            ca,
            folder,
        };
        fs::write(&trust.ca, authority).map_err(failed(&trust.ca))?;
        let bundle = format!("{}\n{authority}", system_bundle());
        fs::write(&trust.bundle, bundle).map_err(failed(&trust.bundle))?;
        Ok(trust)
    }

    /// The authority alone.
    pub(super) fn ca(&self) -> &Path {
        &self.ca
    }

    /// The authority and the system's.
    pub(super) fn bundle(&self) -> &Path {
        &self.bundle
    }
}

impl Drop for Trust {
    fn drop(&mut self) {
        // What cannot be removed is a small public file in a temporary folder.
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// What the system trusts, or nothing.
fn system_bundle() -> String {
    std::env::var_os("SSL_CERT_FILE")
        .map(PathBuf::from)
        .into_iter()
        .chain(SYSTEM_BUNDLES.map(PathBuf::from))
        .find_map(|path| fs::read_to_string(path).ok())
        .unwrap_or_default()
}
