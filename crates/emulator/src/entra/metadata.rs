//! The metadata services of a machine, which give bearers to whoever runs there: IMDS of a VM, Arc, App Service.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use http::{Method, header::AUTHORIZATION};
use jiff::Timestamp;
use renewd_acs_wire::Secret;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::{
    Asked, Entra, EntraPart, Machine, ManagedIdentity, Refusal,
    bearer::{self, Bearer, Holder},
    guid, pairs, secret,
};

/// The versions of IMDS that SDKs ask for.
const IMDS_VERSIONS: [&str; 2] = ["2018-02-01", "2019-08-01"];
/// Those of Arc, whose agent has the same path at another address.
const ARC_VERSIONS: [&str; 2] = ["2019-11-01", "2020-06-01"];
const APP_SERVICE_VERSION: &str = "2019-08-01";
/// Names of the parameter that picks an identity: by client, by object, by resource.
const CLIENT: [&str; 1] = ["client_id"];
const OBJECT: [&str; 2] = ["object_id", "principal_id"];
const RESOURCE: [&str; 2] = ["msi_res_id", "mi_res_id"];

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::plain(400, "invalid_request", text)
}

/// What a request to the path of IMDS and Arc is for.
pub(super) fn part(query: &str) -> EntraPart {
    let version = pairs(query).and_then(|mut query| query.remove("api-version"));
    match version {
        Some(version) if ARC_VERSIONS.contains(&version.as_str()) => EntraPart::Arc,
        _ => EntraPart::Imds,
    }
}

/// IMDS. Its texts are unverified but for "Identity not found".
pub(super) fn imds(entra: &mut Entra, asked: &Asked<'_>) -> Result<Value, Refusal> {
    check_caller(asked)?;
    let query = read_query(asked, &IMDS_VERSIONS)?;
    let bearer = grant(entra, EntraPart::Imds, &query, asked.now)?;
    Ok(described(entra, &bearer, &query, asked.now))
}

/// Arc: whoever may read the file that is named to it may have a bearer.
pub(super) fn arc(entra: &mut Entra, asked: &Asked<'_>) -> Result<Value, Refusal> {
    check_caller(asked)?;
    let query = read_query(asked, &ARC_VERSIONS)?;
    let given = asked
        .headers
        .get(AUTHORIZATION)
        .map(|given| given.as_bytes());
    match given {
        None => return Err(arc_challenge(entra)),
        Some(given) if entra.arc_keys.hold(given) => {}
        // Unverified.
        Some(_) => {
            return Err(
                Refusal::plain(401, "invalid_client", "The authorization is not valid.")
                    .because("Authorization is not `Basic` and the content of a key file"),
            );
        }
    }
    let bearer = grant(entra, EntraPart::Arc, &query, asked.now)?;
    Ok(described(entra, &bearer, &query, asked.now))
}

fn arc_challenge(entra: &mut Entra) -> Refusal {
    let file = match entra.controls.realm.clone() {
        Some(realm) => Ok(realm),
        None => {
            let (name, text) = (guid(&mut entra.rng), secret(&mut entra.rng));
            entra.arc_keys.write(&name, text)
        }
    };
    let text = "The request needs the content of a key file.";
    match file {
        Ok(file) => {
            let mut refusal = Refusal::plain(401, "unauthorized", text);
            refusal.challenge = Some(format!("Basic realm={file}"));
            refusal.because(format!("the key file is {file}"))
        }
        Err(reason) => {
            Refusal::plain(500, "server_error", "The key file cannot be written.").because(reason)
        }
    }
}

impl Entra {
    /// Sees to it that key files can be written, by writing one.
    pub(crate) fn prepare_arc(&mut self) -> Result<(), String> {
        let (name, text) = (guid(&mut self.rng), secret(&mut self.rng));
        self.arc_keys.write(&name, text).map(|_| ())
    }
}

/// App Service; its refusals are unverified.
pub(super) fn app_service(entra: &mut Entra, asked: &Asked<'_>) -> Result<Value, Refusal> {
    check_method(asked)?;
    let given = asked
        .headers
        .get("x-identity-header")
        .map(|given| given.as_bytes());
    let wanted = entra.registration.identity_header.expose().as_bytes();
    if !given.is_some_and(|given| given.ct_eq(wanted).into()) {
        return Err(Refusal::plain(
            401,
            "unauthorized",
            "The header X-IDENTITY-HEADER is not the one of this machine.",
        ));
    }
    let query = read_query(asked, &[APP_SERVICE_VERSION])?;
    let bearer = grant(entra, EntraPart::AppService, &query, asked.now)?;
    Ok(json!({
        "access_token": bearer.text.expose(),
        "expires_on": bearer.expires_at.as_second().to_string(),
        "resource": query.get("resource"),
        "token_type": "Bearer",
        "client_id": bearer.client,
    }))
}

fn check_method(asked: &Asked<'_>) -> Result<(), Refusal> {
    if asked.method == Method::GET {
        return Ok(());
    }
    let text = format!("{} is not allowed here; GET is", asked.method);
    Err(Refusal::plain(405, "method_not_allowed", text))
}

/// The header that no browser and no proxy sends of itself, and none that a proxy adds.
fn check_caller(asked: &Asked<'_>) -> Result<(), Refusal> {
    check_method(asked)?;
    let metadata = asked
        .headers
        .get("metadata")
        .and_then(|value| value.to_str().ok());
    if !metadata.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(invalid("Required metadata header not specified"));
    }
    if asked.headers.contains_key("x-forwarded-for") {
        return Err(invalid("The request came through a proxy")
            .because("there is a header X-Forwarded-For"));
    }
    Ok(())
}

fn read_query(asked: &Asked<'_>, versions: &[&str]) -> Result<BTreeMap<String, String>, Refusal> {
    let query = pairs(asked.query)
        .ok_or_else(|| invalid("The query cannot be read, or has a parameter twice"))?;
    let version = query.get("api-version").map_or("", String::as_str);
    if versions.contains(&version) {
        return Ok(query);
    }
    let known = versions.join(", ");
    Err(invalid(format!(
        "The api-version {version:?} is not supported; these are: {known}"
    )))
}

/// A bearer for the identity that the query picks.
fn grant(
    entra: &mut Entra,
    part: EntraPart,
    query: &BTreeMap<String, String>,
    now: Timestamp,
) -> Result<Bearer, Refusal> {
    let resource = query
        .get("resource")
        .filter(|resource| !resource.is_empty());
    let resource =
        resource.ok_or_else(|| invalid("Required query variable 'resource' is missing"))?;
    let audience = bearer::audience(resource)?;
    let identity = pick(entra, query)?.clone();
    let holder = Holder {
        client: &identity.client_id,
        object: &identity.object_id,
        // There is no way to hand the claims on: whatever is made after the challenge answers it (unverified).
        answers: entra.challenge,
    };
    entra.grant(part, holder, &audience, now)
}

/// The identity that is asked for: the one that is named, else the machine's own, else the only one.
fn pick<'e>(
    entra: &'e Entra,
    query: &BTreeMap<String, String>,
) -> Result<&'e ManagedIdentity, Refusal> {
    let registration = &entra.registration;
    let has: &[&ManagedIdentity] = match entra.controls.machine {
        Machine::Both => &[&registration.system, &registration.assigned],
        Machine::System => &[&registration.system],
        Machine::Assigned => &[&registration.assigned],
        Machine::None => &[],
    };
    let named = |names: &[&str]| names.iter().find_map(|name| query.get(*name));
    let selectors = (named(&CLIENT), named(&OBJECT), named(&RESOURCE));
    let found = match selectors {
        (None, None, None) => has.first(),
        (Some(id), None, None) => has.iter().find(|it| it.client_id.eq_ignore_ascii_case(id)),
        (None, Some(id), None) => has.iter().find(|it| it.object_id.eq_ignore_ascii_case(id)),
        (None, None, Some(id)) => has.iter().find(|it| {
            let own = it.resource_id.as_ref();
            own.is_some_and(|own| own.eq_ignore_ascii_case(id))
        }),
        _ => {
            return Err(invalid(
                "Only one of client_id, object_id and msi_res_id may be given",
            ));
        }
    };
    found.copied().ok_or_else(|| invalid("Identity not found"))
}

/// The answer of IMDS and Arc: every number is a string.
fn described(
    entra: &Entra,
    bearer: &Bearer,
    query: &BTreeMap<String, String>,
    now: Timestamp,
) -> Value {
    let left = bearer.left(now).to_string();
    let mut answer = json!({
        "access_token": bearer.text.expose(),
        "client_id": bearer.client,
        "expires_in": left,
        "expires_on": bearer.expires_at.as_second().to_string(),
        "ext_expires_in": left,
        "not_before": bearer.made_at.as_second().to_string(),
        "resource": query.get("resource"),
        "token_type": "Bearer",
    });
    // Unverified that it ever comes.
    if let Some(refresh) = entra.controls.refresh_in {
        answer["refresh_in"] = refresh.as_secs().to_string().into();
    }
    answer
}

/// Key files that are good at a time.
const KEPT: usize = 8;

/// The key files of Arc. Those that are left, and the folder if it was made here, go when this is dropped.
#[derive(Debug)]
pub(super) struct ArcKeys {
    folder: PathBuf,
    /// The folders on the way that were made here, the innermost first.
    made: Vec<PathBuf>,
    keys: VecDeque<(PathBuf, Secret)>,
}

impl ArcKeys {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            made: Vec::new(),
            keys: VecDeque::new(),
        }
    }

    /// Writes one more file and takes the oldest away; the file's path.
    fn write(&mut self, name: &str, text: Secret) -> Result<String, String> {
        let path = self.folder.join(format!("{name}.key"));
        let failed =
            |path: &Path, error: io::Error| format!("cannot write {}: {error}", path.display());
        self.make_folder()
            .map_err(|error| failed(&self.folder, error))?;
        fs::write(&path, text.expose()).map_err(|error| failed(&path, error))?;
        self.keys.push_back((path.clone(), text));
        if self.keys.len() > KEPT
            && let Some((oldest, _)) = self.keys.pop_front()
        {
            fs::remove_file(oldest).ok();
        }
        Ok(path.display().to_string())
    }

    fn make_folder(&mut self) -> io::Result<()> {
        let missing: Vec<PathBuf> = (self.folder.ancestors())
            .take_while(|folder| !folder.exists())
            .map(Path::to_owned)
            .collect();
        for folder in missing.into_iter().rev() {
            fs::DirBuilder::new().mode(0o755).create(&folder)?;
            self.made.insert(0, folder);
        }
        Ok(())
    }

    /// Whether this `Authorization` is the raw content of a file, as the agent wants it.
    fn hold(&self, given: &[u8]) -> bool {
        let Some(given) = given.strip_prefix(b"Basic ") else {
            return false;
        };
        let is = |text: &Secret| -> bool { text.expose().as_bytes().ct_eq(given).into() };
        self.keys.iter().any(|(_, text)| is(text))
    }
}

impl Drop for ArcKeys {
    fn drop(&mut self) {
        for (path, _) in &self.keys {
            fs::remove_file(path).ok();
        }
        for folder in &self.made {
            fs::remove_dir(folder).ok();
        }
    }
}
