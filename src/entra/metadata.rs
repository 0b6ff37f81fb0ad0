//! Managed identities: the metadata service of a virtual machine (IMDS), and the agent of Azure Arc, which wants to
//! see that we may read a file of its own.
//!
//! Which file that is, an answer over plain http says. Its content goes back to whoever answered, so nothing is read
//! but a small plain file that lies in the agent's own folder.

use std::{
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, USER_AGENT, WWW_AUTHENTICATE},
};
use jiff::Timestamp;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{
    answer::{self, Grant, parameter},
    error::{Again, BearerError},
};
use crate::{
    config::{Environment, IdentitySelector},
    model::{BearerCause, RESERVED, percent_encoded},
    transport::{self, Outgoing, Reply, Transport, Url, retry_after},
};

/// Larger answers are none of a metadata service.
const LARGEST_ANSWER: usize = 64 * 1024;
/// The agent of Azure Arc, where it is installed.
const ARC_AGENT: &str = "/opt/azcmagent/bin/himds";
/// Where it puts its files. That folder alone says nothing: an emulator makes it, too.
const ARC_TOKENS: &str = "/var/opt/azcmagent/tokens";
const LARGEST_ARC_FILE: u64 = 4 << 10;
const ARC_ENDPOINT: &str = "http://localhost:40342/metadata/identity/oauth2/token";
const IMDS_HOST: &str = "http://169.254.169.254";
const IMDS_PATH: &str = "/metadata/identity/oauth2/token";

/// What says who a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    url: Url,
    /// The folder of its files, where it is the agent of Azure Arc.
    tokens: Option<PathBuf>,
    peer: String,
}

impl Metadata {
    /// The one of this machine, where the SDKs look for it as well.
    pub(super) fn of(
        environment: &Environment,
        resource: &str,
        selector: Option<&IdentitySelector>,
    ) -> Result<Self, String> {
        let agent = Path::new(ARC_AGENT).exists();
        Self::among(environment, agent, resource, selector)
    }

    /// The one that the variables name, else the agent of Azure Arc, if it is there.
    fn among(
        environment: &Environment,
        agent: bool,
        resource: &str,
        selector: Option<&IdentitySelector>,
    ) -> Result<Self, String> {
        let tokens = Some(PathBuf::from(ARC_TOKENS));
        let named = environment.variable("IMDS_ENDPOINT");
        let named = named.and_then(|_| environment.variable("IDENTITY_ENDPOINT"));
        if let Some(endpoint) = named {
            return Self::new(&endpoint, tokens, resource, selector);
        }
        match environment.variable("AZURE_POD_IDENTITY_AUTHORITY_HOST") {
            None if agent => Self::new(ARC_ENDPOINT, tokens, resource, selector),
            host => {
                let host = host.as_deref().unwrap_or(IMDS_HOST);
                let endpoint = format!("{}{IMDS_PATH}", host.trim_end_matches('/'));
                Self::new(&endpoint, None, resource, selector)
            }
        }
    }

    /// One that listens there and is asked for a bearer for `resource`.
    fn new(
        endpoint: &str,
        tokens: Option<PathBuf>,
        resource: &str,
        selector: Option<&IdentitySelector>,
    ) -> Result<Self, String> {
        let url = Url::parse(endpoint)
            .ok()
            .filter(|url| url.host_str().is_some());
        let mut url = url.ok_or_else(|| {
            format!("the address of the metadata service, {endpoint:?}, is not a valid URL")
        })?;
        let version = match tokens {
            Some(_) => "2020-06-01",
            None => "2018-02-01",
        };
        let encoded = |text: &str| percent_encoded(text, RESERVED);
        let mut query = format!("api-version={version}&resource={}", encoded(resource));
        if let Some(selector) = selector {
            let (name, value) = match selector {
                IdentitySelector::ClientId(id) => ("client_id", id),
                IdentitySelector::ObjectId(id) => ("object_id", id),
                IdentitySelector::ResourceId(id) => ("msi_res_id", id),
            };
            query.push_str(&format!("&{name}={}", encoded(value)));
        }
        url.set_query(Some(&query));
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map_or(String::new(), |port| format!(":{port}"));
        let what = match tokens {
            Some(_) => "the Azure Arc agent",
            None => "the metadata service",
        };
        Ok(Self {
            peer: format!("{what} {host}{port}"),
            url,
            tokens,
        })
    }

    /// The one that failures name.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// Asks for a bearer; how many requests were sent is counted in `sent`.
    pub(super) async fn obtain(
        &self,
        transport: &Transport,
        deadline: Duration,
        now: Timestamp,
        sent: &mut u64,
    ) -> Result<Grant, BearerError> {
        let reply = self.ask(transport, None, deadline, sent).await?;
        let reply = match &self.tokens {
            Some(folder) if reply.status == StatusCode::UNAUTHORIZED => {
                let key = self.answer_to(&reply.headers, folder)?;
                self.ask(transport, Some(key), deadline, sent).await?
            }
            _ => reply,
        };
        match reply.status.is_success() {
            true => answer::granted(reply, now).map_err(|why| {
                BearerError::unanswered(
                    format!("the answer of {} cannot be read: {why}", self.peer),
                    Again::Soon,
                )
            }),
            false => Err(self.refusal(&reply, now)),
        }
    }

    async fn ask(
        &self,
        transport: &Transport,
        key: Option<HeaderValue>,
        deadline: Duration,
        sent: &mut u64,
    ) -> Result<Reply, BearerError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            HeaderName::from_static("metadata"),
            HeaderValue::from_static("true"),
        );
        headers.insert(USER_AGENT, transport::USER_AGENT.clone());
        headers.extend(key.map(|key| (AUTHORIZATION, key)));
        let request = Outgoing {
            method: Method::GET,
            url: self.url.clone(),
            headers,
            body: Bytes::new(),
        };
        *sent += 1;
        let answer = transport.send(request, LARGEST_ANSWER, deadline).await;
        answer.map_err(|error| BearerError::unanswered(error.with(&self.peer), Again::Soon))
    }

    /// What the agent wants to see: the content of the file that it names.
    fn answer_to(&self, headers: &HeaderMap, folder: &Path) -> Result<HeaderValue, BearerError> {
        let refused = |why: String| {
            let told = format!("{} asks for a file that is not read: {why}", self.peer);
            BearerError::refused(BearerCause::Misconfigured, told)
        };
        let challenge = headers
            .get(WWW_AUTHENTICATE)
            .and_then(|value| value.to_str().ok());
        let realm = challenge
            .and_then(|challenge| parameter(challenge, "realm"))
            .ok_or_else(|| refused("it does not name one".to_owned()))?;
        let content = read_key(Path::new(realm), folder).map_err(refused)?;
        let mut value = Zeroizing::new(b"Basic ".to_vec());
        value.extend_from_slice(content.trim_ascii());
        let value = HeaderValue::from_maybe_shared(Bytes::from_owner(value));
        let mut value = value.map_err(|_| refused("it holds no key".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn refusal(&self, reply: &Reply, now: Timestamp) -> BearerError {
        let said = answer::refusal(reply, None);
        let status = reply.status.as_u16();
        let told = said.told(status, &self.peer);
        match (status, said.error.as_str()) {
            (404 | 410 | 500.., _) => BearerError::unanswered(told, Again::Soon),
            (429, _) => BearerError {
                cause: BearerCause::Throttled,
                told,
                again: retry_after(&reply.headers, now).map_or(Again::Soon, Again::After),
            },
            (400, "invalid_request") => BearerError::refused(BearerCause::UnknownIdentity, told),
            _ => BearerError::refused(BearerCause::Misconfigured, told),
        }
    }
}

/// The content of a key file of the Arc agent: a plain file, at most 4 KiB, right in its folder. Why not, in words
/// that say which it is and nothing that it holds.
fn read_key(path: &Path, folder: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let told = transport::tamed(&path.display().to_string());
    let is_plain = path.parent() == Some(folder)
        && path
            .file_name()
            .is_some_and(|name| folder.join(name).as_os_str() == path.as_os_str());
    if !is_plain {
        return Err(format!("{told} does not lie in {}", folder.display()));
    }
    let cannot = |error: io::Error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
            format!("{told} is a symbolic link")
        }
        _ => format!("{told}: {error}"),
    };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return Err(format!("{told} is not a regular file"));
    }
    let room = usize::try_from(LARGEST_ARC_FILE + 1).unwrap_or_default();
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    let read = file.take(LARGEST_ARC_FILE + 1).read_to_end(&mut content);
    read.map_err(cannot)?;
    match content.len() < room {
        true => Ok(content),
        false => Err(format!("{told} is larger than 4 KiB")),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    const RESOURCE: &str = "https://communication.azure.com/";

    fn found(variables: &[(&str, &str)], selector: Option<&IdentitySelector>) -> Metadata {
        let environment = Environment::given(variables.iter().copied(), "host", false);
        Metadata::among(&environment, false, RESOURCE, selector).unwrap()
    }

    #[test]
    fn the_service_of_a_machine_is_found_as_the_sdks_find_it() {
        let query = "api-version=2018-02-01&resource=https%3A%2F%2Fcommunication.azure.com%2F";
        let imds = found(&[], None);
        assert_eq!(
            imds.url.as_str(),
            format!("http://169.254.169.254/metadata/identity/oauth2/token?{query}")
        );
        let other = found(
            &[(
                "AZURE_POD_IDENTITY_AUTHORITY_HOST",
                "http://127.0.0.1:8080/",
            )],
            Some(&IdentitySelector::ClientId("me".to_owned())),
        );
        assert_eq!(
            other.url.as_str(),
            format!("http://127.0.0.1:8080/metadata/identity/oauth2/token?{query}&client_id=me")
        );
        let arc = found(
            &[
                ("IDENTITY_ENDPOINT", "http://localhost:40342/x"),
                ("IMDS_ENDPOINT", "http://localhost:40342"),
            ],
            Some(&IdentitySelector::ResourceId("/a b".to_owned())),
        );
        assert!(
            arc.url
                .as_str()
                .starts_with("http://localhost:40342/x?api-version=2020-06-01&")
        );
        assert!(arc.url.as_str().ends_with("&msi_res_id=%2Fa%20b"));
        assert_eq!(arc.peer(), "the Azure Arc agent localhost:40342");
        // That of App Service alone is another one.
        let service = found(&[("IDENTITY_ENDPOINT", "http://127.0.0.1/msi")], None);
        assert_eq!(service.url, imds.url);
        // Where the agent is, it is asked, unless another service is named.
        let beside_agent = |variables: Vec<(&str, &str)>| {
            let environment = Environment::given(variables, "host", false);
            Metadata::among(&environment, true, RESOURCE, None).unwrap()
        };
        let agent = beside_agent(Vec::new());
        assert!(agent.url.as_str().starts_with(ARC_ENDPOINT) && agent.tokens.is_some());
        let named = ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:8080");
        assert_eq!(beside_agent(vec![named]).tokens, None);
    }

    /// An agent that asks for this file, and gives a bearer to whoever shows `key`; how often it was asked.
    async fn ask_arc(realm: &str, folder: &Path) -> (Result<Grant, BearerError>, u64) {
        let challenge = format!("Basic realm={realm}");
        let agent = Transport::InProcess(std::sync::Arc::new(move |request| {
            let shown = request.headers().get(AUTHORIZATION).cloned();
            let answer = http::Response::builder();
            let answer = match shown.as_ref().map(HeaderValue::as_bytes) {
                None => answer
                    .status(401)
                    .header(WWW_AUTHENTICATE, &challenge)
                    .body(Bytes::new()),
                Some(b"Basic key") => {
                    let body = r#"{"access_token":"canary","expires_in":"3600","client_id":"me"}"#;
                    answer.body(Bytes::from(body))
                }
                Some(_) => answer.status(403).body(Bytes::new()),
            };
            Box::pin(async move { Ok(answer.unwrap()) })
        }));
        let folder = Some(folder.to_owned());
        let metadata = Metadata::new(ARC_ENDPOINT, folder, RESOURCE, None).unwrap();
        let (mut sent, deadline) = (0, Duration::from_secs(5));
        let obtained = metadata
            .obtain(&agent, deadline, Timestamp::UNIX_EPOCH, &mut sent)
            .await;
        (obtained, sent)
    }

    #[tokio::test(start_paused = true)]
    async fn the_agent_of_arc_is_shown_its_own_file_and_never_another() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tokens");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("own.key"), "key\n").unwrap();
        fs::write(dir.path().join("other.key"), "key").unwrap();
        symlink(dir.path().join("other.key"), folder.join("link.key")).unwrap();
        fs::write(folder.join("large.key"), "k".repeat(5 << 10)).unwrap();
        let at = |name: &str| format!("{}/{name}", folder.display());
        for realm in [at("own.key"), format!("\"{}\"", at("own.key"))] {
            let (granted, sent) = ask_arc(&realm, &folder).await;
            assert_eq!((granted.unwrap().client.as_deref(), sent), (Some("me"), 2));
        }
        for realm in [
            at("../other.key"),
            at("link.key"),
            at("large.key"),
            at("none.key"),
            "own.key".to_owned(),
            "/etc/passwd".to_owned(),
            String::new(),
        ] {
            let (refused, sent) = ask_arc(&realm, &folder).await;
            let error = refused.unwrap_err();
            assert_eq!(
                (error.cause, sent),
                (BearerCause::Misconfigured, 1),
                "{realm}"
            );
            assert!(error.told.contains("a file that is not read"), "{error}");
        }
    }

    #[test]
    fn a_key_is_read_from_a_small_plain_file_in_the_agents_folder_and_from_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tokens");
        fs::create_dir_all(folder.join("inside")).unwrap();
        let write = |name: &str, size: usize| {
            fs::write(folder.join(name), "k".repeat(size)).unwrap();
            folder.join(name)
        };
        let good = write("good.key", 4096);
        assert_eq!(read_key(&good, &folder).unwrap().len(), 4096);
        let elsewhere = dir.path().join("elsewhere.key");
        fs::write(&elsewhere, "canary").unwrap();
        symlink(&elsewhere, folder.join("link.key")).unwrap();
        write("inside/deep.key", 1);
        let at = |text: &str| PathBuf::from(text.replace("FOLDER", folder.to_str().unwrap()));
        for (path, told) in [
            (elsewhere.clone(), "does not lie in"),
            (write("large.key", 5 << 10), "larger than 4 KiB"),
            (folder.join("link.key"), "symbolic link"),
            (at("FOLDER/../elsewhere.key"), "does not lie in"),
            (at("FOLDER/./good.key"), "does not lie in"),
            (at("FOLDER//good.key"), "does not lie in"),
            (at("FOLDER/inside/deep.key"), "does not lie in"),
            (at("FOLDER/inside"), "not a regular file"),
            (at("FOLDER/.."), "does not lie in"),
            (at("FOLDER/"), "does not lie in"),
            (at("FOLDER"), "does not lie in"),
            (at("good.key"), "does not lie in"),
            (at(""), "does not lie in"),
            (at("/etc/shadow"), "does not lie in"),
            (at("FOLDER/none.key"), "No such file"),
        ] {
            let why = read_key(&path, &folder).unwrap_err();
            assert!(why.contains(told), "{}: {why}", path.display());
            assert!(!why.contains("canary"), "{why}");
        }
    }
}
