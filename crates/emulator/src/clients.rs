//! How a program that the emulator runs finds and trusts it.

use super::Serving;

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

/// What to set in the environment of a program that should use the emulator: the connection string,
/// the bare endpoint, and the authority for the common languages (Java has no such variable).
pub fn child_environment(serving: &Serving) -> Vec<(String, String)> {
    let connection_string = serving.connection_string();
    let mut variables: Vec<(&str, String)> = CONNECTION_STRING
        .into_iter()
        .map(|name| (name, connection_string.expose().to_owned()))
        .collect();
    variables.push(("RENEWD_EMULATOR_ENDPOINT", serving.endpoint().to_owned()));
    // Most programs read one of the two, and not all the same one.
    let before = WITHOUT_PROXY
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let hosts = without_proxy(&before.unwrap_or_default());
    variables.extend(WITHOUT_PROXY.map(|name| (name, hosts.clone())));
    for (names, path) in [
        (&REPLACING[..], serving.bundle_path()),
        (&ADDING[..], serving.ca_path()),
    ] {
        let Some(path) = path else { continue };
        let path = path.to_string_lossy();
        variables.extend(names.iter().map(|name| (*name, path.clone().into_owned())));
    }
    variables
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
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
