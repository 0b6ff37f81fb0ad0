//! The variables by which an unchanged program finds the emulator: ACS, its authority, and where its bearers
//! come from.

use std::{path::Path, str::FromStr, time::Duration};

use super::{CertificateError, KeyError, Serving, TrustError};

/// Variables with the connection string: what ACS samples read, and the Azure CLI.
const CONNECTION_STRING: [&str; 2] = [
    "COMMUNICATION_SERVICES_CONNECTION_STRING",
    "AZURE_COMMUNICATION_CONNECTION_STRING",
];
/// Variables that replace what a program trusts, so they name a file with the system's authorities
/// too: OpenSSL with Python's ssl, Ruby, PHP, Go and .NET; requests; curl; git; the gRPC libraries.
const REPLACING: [&str; 5] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];
/// Variables that add to what a program trusts: Node.js, Deno.
const ADDING: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// Variables with the hosts that a program reaches without a proxy, in both spellings.
const WITHOUT_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// The emulator's own names.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

/// What is reached without a proxy: what was, and this machine.
fn without_proxy(before: &str) -> String {
    let mut hosts: Vec<&str> = before
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty())
        .collect();
    hosts.extend(
        LOOPBACK
            .into_iter()
            .filter(|host| !before.split(',').any(|known| known.trim() == *host)),
    );
    hosts.join(",")
}

/// How long a certificate and a federated token in a file live: longer than any program that they are for.
const FILES_LIVE: Duration = Duration::from_secs(365 * 86_400);
/// The bare endpoint of ACS, for programs that have no key.
const ENDPOINT: &str = "COMMUNICATION_SERVICES_ENDPOINT";
/// By these the Azure SDKs find, or are told, who they are. Whatever is not set is taken away, so that no
/// credential of somebody's own is used, or sent to the emulator.
const IDENTITY: [&str; 22] = [
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN",
    "AZURE_USERNAME",
    "AZURE_PASSWORD",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "AZURE_REGIONAL_AUTHORITY_NAME",
    "AZURE_ADDITIONALLY_ALLOWED_TENANTS",
    "AZURE_TOKEN_CREDENTIALS",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "DEFAULT_IDENTITY_CLIENT_ID",
    "AZUREML_RUN_ID",
];

/// How a program comes to its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntraAccess {
    Secret,
    Certificate,
    Workload,
    Vm,
    Arc,
    AppService,
}

impl EntraAccess {
    const ALL: [(&str, Self); 6] = [
        ("vm", Self::Vm),
        ("arc", Self::Arc),
        ("app-service", Self::AppService),
        ("workload", Self::Workload),
        ("secret", Self::Secret),
        ("certificate", Self::Certificate),
    ];
}

impl FromStr for EntraAccess {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|(name, _)| *name == text);
        known.map(|(_, access)| access).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.into_iter().map(|(name, _)| name).collect();
            format!("{text:?} is none of {}", names.join(", "))
        })
    }
}

/// Why a program cannot be told where its bearers come from.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// A file for it cannot be written.
    #[error(transparent)]
    File(#[from] TrustError),
    /// The client's certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The federated token cannot be made.
    #[error(transparent)]
    Token(#[from] KeyError),
    /// Arc's folder cannot be used.
    #[error("Arc's key files cannot be written: {0}")]
    ArcFolder(String),
    /// The emulator has no TLS, without which no client shows a bearer.
    #[error("bearers go over TLS only, and this emulator speaks plain http")]
    PlainHttp,
}

/// What to change in the environment of a program.
#[derive(Debug, Default)]
pub struct Environment {
    pub set: Vec<(&'static str, String)>,
    pub removed: Vec<&'static str>,
}

impl Environment {
    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.set.push((name, value.into()));
    }

    fn set_all(&mut self, names: &[&'static str], value: &str) {
        self.set
            .extend(names.iter().map(|name| (*name, value.to_owned())));
    }
}

/// What to change for a program that should use the emulator with its access key: the connection string, the bare
/// endpoint, and the authority for the common languages (Java has no such variable).
pub fn child_environment(serving: &Serving) -> Environment {
    let mut environment = Environment::default();
    environment.set_all(&CONNECTION_STRING, serving.connection_string().expose());
    trust(&mut environment, serving);
    environment
}

/// What to change for one that gets bearers this way, and has no key: the endpoint, the authority, and what the
/// Azure SDKs read. `federated_token` is a file to name in place of one with a token made here.
///
/// # Errors
/// When a file that it needs cannot be written.
pub fn entra_environment(
    serving: &Serving,
    access: EntraAccess,
    federated_token: Option<&Path>,
) -> Result<Environment, EnvironmentError> {
    let mut environment = Environment::default();
    let files = serving.trust().ok_or(EnvironmentError::PlainHttp)?;
    let metadata = serving.metadata_endpoint().unwrap_or_default();
    let emulator = serving.emulator();
    let registration = emulator.registration();
    environment.set(ENDPOINT, serving.endpoint());
    let mut set = |name, value: &str| environment.set(name, value);
    let mut application = || {
        set("AZURE_TENANT_ID", &registration.tenant);
        set("AZURE_CLIENT_ID", &registration.client_id);
        set("AZURE_AUTHORITY_HOST", serving.endpoint());
    };
    match access {
        EntraAccess::Secret => {
            application();
            set("AZURE_CLIENT_SECRET", registration.client_secret.expose());
        }
        EntraAccess::Certificate => {
            application();
            let until = crate::call::after(emulator.now(), FILES_LIVE);
            let path = files.put("client.pem", &emulator.client_certificate(until)?)?;
            set("AZURE_CLIENT_CERTIFICATE_PATH", &path.to_string_lossy());
        }
        EntraAccess::Workload => {
            application();
            let path = match federated_token {
                Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
                None => files.put("federated.jwt", &emulator.federated_token(FILES_LIVE)?)?,
            };
            set("AZURE_FEDERATED_TOKEN_FILE", &path.to_string_lossy());
        }
        EntraAccess::Vm => set("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata),
        EntraAccess::Arc => {
            emulator
                .prepare_arc()
                .map_err(EnvironmentError::ArcFolder)?;
            set(
                "IDENTITY_ENDPOINT",
                &format!("{metadata}/metadata/identity/oauth2/token"),
            );
            set("IMDS_ENDPOINT", metadata);
        }
        EntraAccess::AppService => {
            set("IDENTITY_ENDPOINT", &format!("{metadata}/msi/token"));
            set("IDENTITY_HEADER", registration.identity_header.expose());
        }
    }
    trust(&mut environment, serving);
    let is_set = |name: &str| environment.set.iter().any(|(set, _)| *set == name);
    let all = IDENTITY.into_iter().chain(CONNECTION_STRING);
    environment.removed = all.filter(|name| !is_set(name)).collect();
    Ok(environment)
}

/// How to reach the emulator and whom to trust for it.
fn trust(environment: &mut Environment, serving: &Serving) {
    environment.set("RENEWD_EMULATOR_ENDPOINT", serving.endpoint());
    // Most programs read one of the two, and not all the same one.
    let before = WITHOUT_PROXY
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let hosts = without_proxy(&before.unwrap_or_default());
    environment.set_all(&WITHOUT_PROXY, &hosts);
    let Some(files) = serving.trust() else { return };
    environment.set_all(&REPLACING, &files.bundle().to_string_lossy());
    environment.set_all(&ADDING, &files.ca().to_string_lossy());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_added_to_what_needs_no_proxy() {
        assert_eq!(without_proxy(""), "127.0.0.1,localhost,::1");
        assert_eq!(
            without_proxy("corp.example, localhost"),
            "corp.example,localhost,127.0.0.1,::1"
        );
    }
}
