//! Certificates: an authority, a server certificate by it, and the files by which a program trusts it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, date_time_ymd,
};
use renewd_acs_wire::Secret;
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate cannot be made, most likely because a name is not one.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused it.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// What a PKCS #8 file of an Ed25519 key begins with (RFC 8410); the 32 bytes of the key follow.
const ED25519_PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The authority's key. One that is drawn anew is ECDSA, which every client takes. One that follows from
/// a seed is Ed25519: a seed is the whole key there, and its signatures are the same each time.
fn authority_key(seed: Option<u64>) -> Result<KeyPair, rcgen::Error> {
    let Some(seed) = seed else {
        return KeyPair::generate();
    };
    let drawn = Sha256::digest(format!("renewd emulator test CA {seed}"));
    let key = PrivatePkcs8KeyDer::from([&ED25519_PKCS8[..], &drawn[..]].concat());
    KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519)
}

/// TLS for these names, and the authority to trust for it, as PEM: the same for the same seed, else made
/// for this run. The authority's key is forgotten at once; only who knows the seed can make it again.
pub(super) fn set_up(
    names: Vec<String>,
    seed: Option<u64>,
) -> Result<(TlsAcceptor, String), TlsError> {
    let authority_key = authority_key(seed)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "renewd emulator test CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2099, 1, 1);
    let authority = params.self_signed(&authority_key)?;
    let issuer = Issuer::new(params, authority_key);

    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "renewd emulator");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2099, 1, 1);
    let certificate = params.signed_by(&key, &issuer)?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), authority.pem()))
}

/// Where systems keep the authorities that they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A file that a program is to find cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}")]
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
        // Short, or the path of a file in it looks like a secret where one is configured.
        let drawn = uuid::Uuid::new_v4().simple().to_string();
        let folder = std::env::temp_dir().join(format!("renewd-emulator-{}", &drawn[..12]));
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

    pub(super) fn ca(&self) -> &Path {
        &self.ca
    }

    /// The authority and the system's.
    pub(super) fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// Puts one more file into the folder of its own, for its owner alone.
    pub(super) fn put(&self, name: &str, text: &Secret) -> Result<PathBuf, TrustError> {
        let path = self.folder.join(name);
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.expose().as_bytes()));
        match written {
            Ok(()) => Ok(path),
            Err(source) => Err(TrustError { path, source }),
        }
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
