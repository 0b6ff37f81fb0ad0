//! `[resource.entra]`: who calls a resource without access keys, and what proves it to Entra ID.

use std::path::PathBuf;

use super::{
    super::{
        EntraKind, EntraSettings, Environment, IdentitySelector, LoadedSecret, SecretRef,
        keys::{
            Preset::{Is, Nothing, Said},
            Table, Takes, key,
        },
        open_regular,
        reader::{Item, Section},
        secret::reload_secret,
    },
    references::{self, addressable, is_loopback},
};
use crate::model::Secret;
pub(super) static ENTRA: Table = Table {
    name: "resource.entra",
    header: "[resource.entra]",
    says: "Who calls the resource before it, by Entra ID: it needs `endpoint` there, and no access key. One of \
           managed_identity, workload_identity, client_secret and client_certificate says what proves it; docs/entra.md \
           has each from zero.",
    groups: &[&[
        key(
            "managed_identity",
            Takes::Boolean,
            Is("false"),
            "true",
            "The identity of the machine, a VM of Azure or one that Azure Arc manages.",
        ),
        key(
            "workload_identity",
            Takes::Boolean,
            Is("false"),
            "true",
            "The service account of a pod (federated credential); its token is read from `token_file` each time.",
        ),
        key(
            "tenant",
            Takes::Text,
            Said("AZURE_TENANT_ID with workload_identity; else required, but for managed_identity"),
            "\"contoso.onmicrosoft.com\"",
            "The tenant, by its GUID or one of its domains.",
        ),
        key(
            "client_id",
            Takes::Text,
            Said(
                "AZURE_CLIENT_ID with workload_identity, the machine's own identity with managed_identity; else required",
            ),
            "\"11111111-2222-3333-4444-555555555555\"",
            "The app, or with managed_identity the one of the machine's identities, by its client id.",
        ),
        key(
            "object_id",
            Takes::Text,
            Nothing,
            "\"11111111-2222-3333-4444-555555555555\"",
            "With managed_identity: which one, by its object id in place of `client_id`.",
        ),
        key(
            "resource_id",
            Takes::Text,
            Nothing,
            "\"/subscriptions/…/userAssignedIdentities/renewd\"",
            "With managed_identity: which one, by its resource id in place of `client_id`.",
        ),
        key(
            "token_file",
            Takes::Path,
            Said("AZURE_FEDERATED_TOKEN_FILE"),
            "\"/var/run/secrets/azure/tokens/azure-identity-token\"",
            "With workload_identity: where the pod's token lies.",
        ),
        key(
            "client_secret",
            Takes::Secret,
            Nothing,
            "{ file = \"/etc/renewd/contoso.secret\" }",
            "A secret of the app: its value, not its id.",
        ),
        key(
            "client_certificate",
            Takes::Secret,
            Nothing,
            "{ file = \"/etc/renewd/contoso.pem\" }",
            "A certificate of the app and its RSA key, both in PEM.",
        ),
        key(
            "authority",
            Takes::Text,
            Said(
                "AZURE_AUTHORITY_HOST with workload_identity, else \"https://login.microsoftonline.com\"",
            ),
            "\"https://login.microsoftonline.com\"",
            "Where Entra ID answers. Plain http only to loopback.",
        ),
        key(
            "scope",
            Takes::Text,
            Is("\"https://communication.azure.com//.default\""),
            "\"https://communication.azure.com//.default\"",
            "What a bearer is asked for.",
        ),
    ]],
};

/// The authority of the public cloud.
const PUBLIC: &str = "https://login.microsoftonline.com";

/// Reads `[resource.entra]`, and the `endpoint` beside it.
pub(super) fn read(entra: Item<'_>, endpoint: Option<Item<'_>>) -> Option<EntraSettings> {
    if endpoint.is_none() {
        let note = entra.error("[resource.entra] needs `endpoint` in its [[resource]]");
        let hint = "such as endpoint = \"https://contoso.communication.azure.com\"";
        entra.tell(note.absence().hint(hint));
    }
    let endpoint = endpoint.and_then(origin);
    let mut section = entra.section()?;
    let keys = Keys::take(&mut section);
    let scope = section.or("scope", String::new(), scope);
    section.finish();
    let kind = keys.kind(entra);
    let authority = keys.authority(entra);
    Some(EntraSettings {
        endpoint: endpoint?,
        kind: kind?,
        authority: authority?,
        scope: match scope.as_str() {
            "" => default_scope(),
            _ => scope,
        },
    })
}

fn default_scope() -> String {
    ENTRA.preset("scope", |text| Some(text.to_owned()))
}

/// What stands under the keys of the section.
struct Keys<'a> {
    managed_identity: Option<Item<'a>>,
    workload_identity: Option<Item<'a>>,
    tenant: Option<Item<'a>>,
    client_id: Option<Item<'a>>,
    object_id: Option<Item<'a>>,
    resource_id: Option<Item<'a>>,
    token_file: Option<Item<'a>>,
    client_secret: Option<Item<'a>>,
    client_certificate: Option<Item<'a>>,
    authority: Option<Item<'a>>,
}

/// Where a pod finds who it is.
const TENANT_VARIABLE: &str = "AZURE_TENANT_ID";
const CLIENT_VARIABLE: &str = "AZURE_CLIENT_ID";
const TOKEN_VARIABLE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const AUTHORITY_VARIABLE: &str = "AZURE_AUTHORITY_HOST";

impl<'a> Keys<'a> {
    fn take(section: &mut Section<'a>) -> Self {
        // `false` is as good as left out; what is no boolean is told, and named all the same.
        let named = |item: Option<Item<'a>>| item.filter(|item| item.boolean() != Some(false));
        Self {
            managed_identity: named(section.optional("managed_identity")),
            workload_identity: named(section.optional("workload_identity")),
            tenant: section.optional("tenant"),
            client_id: section.optional("client_id"),
            object_id: section.optional("object_id"),
            resource_id: section.optional("resource_id"),
            token_file: section.optional("token_file"),
            client_secret: section.optional("client_secret"),
            client_certificate: section.optional("client_certificate"),
            authority: section.optional("authority"),
        }
    }

    /// The one kind that is named, with what belongs to it.
    fn kind(&self, entra: Item<'_>) -> Option<EntraKind> {
        let kinds = [
            self.managed_identity,
            self.workload_identity,
            self.client_secret,
            self.client_certificate,
        ];
        let named: Vec<Item<'_>> = kinds.into_iter().flatten().collect();
        match named[..] {
            [] => {
                let note = entra.error("[resource.entra] does not say what proves who calls");
                let hint = "one of managed_identity = true, workload_identity = true, client_secret and client_certificate";
                entra.tell(note.absence().hint(hint));
                None
            }
            [one] => self.of_kind(one),
            [first, ref more @ ..] => {
                for other in more {
                    let message = format!(
                        "`{}` does not go with `{}`: one of them proves who calls",
                        other.key(),
                        first.key()
                    );
                    let note = other.error(message).see(first.span(), "the other is at");
                    other.tell(note.hint("take out one of the two"));
                }
                None
            }
        }
    }

    fn of_kind(&self, kind: Item<'_>) -> Option<EntraKind> {
        match kind.key() {
            "managed_identity" => {
                misplaced(kind, [self.tenant, self.token_file]);
                self.selector()
                    .map(|selector| EntraKind::ManagedIdentity { selector })
            }
            "workload_identity" => {
                misplaced(kind, [self.object_id, self.resource_id]);
                self.workload(kind)
            }
            _ => {
                misplaced(kind, [self.object_id, self.resource_id, self.token_file]);
                self.app(kind)
            }
        }
    }

    /// Which of the machine's identities; `None` where that is wrong and was told of.
    #[expect(
        clippy::option_option,
        reason = "none is a choice, and a mistake is none at all"
    )]
    fn selector(&self) -> Option<Option<IdentitySelector>> {
        let selectors = [self.client_id, self.object_id, self.resource_id];
        let named: Vec<Item<'_>> = selectors.into_iter().flatten().collect();
        if let [first, ref more @ ..] = named[..] {
            for other in more {
                let message = format!(
                    "`{}` does not go with `{}`: one of them selects the identity",
                    other.key(),
                    first.key()
                );
                let note = other.error(message).see(first.span(), "the other is at");
                other.tell(note.hint("take out one of the two"));
            }
            let selector = match first.key() {
                "client_id" => guid(first).map(IdentitySelector::ClientId),
                "object_id" => guid(first).map(IdentitySelector::ObjectId),
                _ => resource_id(first).map(IdentitySelector::ResourceId),
            };
            return selector.map(Some);
        }
        Some(None)
    }

    /// A pod; what is left out stands in its variables.
    fn workload(&self, kind: Item<'_>) -> Option<EntraKind> {
        let variable = |name| kind.reading().environment.variable(name);
        let left_out = [
            (self.tenant, TENANT_VARIABLE),
            (self.client_id, CLIENT_VARIABLE),
            (self.token_file, TOKEN_VARIABLE),
        ];
        let missing: Vec<&str> = left_out
            .into_iter()
            .filter(|(item, name)| item.is_none() && variable(name).is_none())
            .map(|(_, name)| name)
            .collect();
        if !missing.is_empty() {
            let are = if missing.len() == 1 { "is" } else { "are" };
            let message = format!(
                "`workload_identity` is left without {}, which {are} not set",
                missing.join(" and ")
            );
            let hint = "a pod with the label azure.workload.identity/use: \"true\" has them (its service account must be known to \
                        the webhook); or write `tenant`, `client_id` and `token_file`";
            kind.tell(kind.error(message).absence().hint(hint));
        }
        let of_variable = |name: &'static str, is_right: fn(&str) -> bool, what: &str| {
            let value = variable(name)?;
            match is_right(&value) {
                true => Some(value),
                false => {
                    let message = format!("the variable {name} holds no {what}");
                    kind.wrong(message, "correct it, or write the key beside this one")
                }
            }
        };
        let tenant = match self.tenant {
            Some(item) => tenant(item),
            None => of_variable(TENANT_VARIABLE, is_tenant, "tenant"),
        };
        let client_id = match self.client_id {
            Some(item) => guid(item),
            None => of_variable(CLIENT_VARIABLE, is_guid, "client id"),
        };
        let token_file = self.token_file(kind);
        Some(EntraKind::WorkloadIdentity {
            tenant: tenant?,
            client_id: client_id?,
            token_file: token_file?,
        })
    }

    /// Where the pod's token lies, which must be there.
    fn token_file(&self, kind: Item<'_>) -> Option<PathBuf> {
        let (item, path) = match self.token_file {
            Some(item) => (item, item.path()?),
            None => (
                kind,
                kind.reading().environment.variable(TOKEN_VARIABLE)?.into(),
            ),
        };
        let Err(error) = open_regular(&path) else {
            return Some(path);
        };
        let name = match item.key() == "token_file" && item.is_shown() {
            true => format!(" {}", path.display()),
            false => String::new(),
        };
        item.wrong(
            format!("cannot read the pod's token{name}: {error}"),
            "Kubernetes keeps it there while the pod runs; renewd reads it each time",
        )
    }

    /// An app with a secret or a certificate.
    fn app(&self, kind: Item<'_>) -> Option<EntraKind> {
        for (item, name) in [(self.tenant, "tenant"), (self.client_id, "client_id")] {
            if item.is_none() {
                let message = format!("`{}` needs `{name}` beside it", kind.key());
                let hint = "az ad app show --id APP shows the client id as appId, az account show the tenant as tenantId";
                kind.tell(kind.error(message).absence().hint(hint));
            }
        }
        let tenant = self.tenant.and_then(tenant);
        let client_id = self.client_id.and_then(guid);
        if kind.key() == "client_secret" {
            let secret = secret(kind);
            return Some(EntraKind::ClientSecret {
                tenant: tenant?,
                client_id: client_id?,
                secret: secret?,
            });
        }
        let certificate = references::secret(kind);
        Some(EntraKind::ClientCertificate {
            tenant: tenant?,
            client_id: client_id?,
            certificate: certificate?,
        })
    }

    fn authority(&self, entra: Item<'_>) -> Option<String> {
        let variable = || entra.reading().environment.variable(AUTHORITY_VARIABLE);
        match (self.authority, self.workload_identity) {
            (Some(item), _) => origin(item),
            (None, Some(kind)) => match variable() {
                Some(text) => match judge_origin(&with_scheme(text)) {
                    Ok(authority) => Some(authority),
                    Err((message, hint)) => {
                        kind.wrong(format!("the variable {AUTHORITY_VARIABLE} {message}"), hint)
                    }
                },
                None => Some(PUBLIC.to_owned()),
            },
            (None, None) => Some(PUBLIC.to_owned()),
        }
    }
}

/// Keys that say something which another kind takes.
fn misplaced<const N: usize>(kind: Item<'_>, items: [Option<Item<'_>>; N]) {
    for item in items.into_iter().flatten() {
        let belongs = match item.key() {
            "object_id" | "resource_id" => {
                "it selects a managed identity; an app is named by `client_id`"
            }
            "token_file" => "it belongs to workload_identity = true",
            _ => "a managed identity has the tenant of its machine",
        };
        let message = format!("`{}` does not go with `{}`", item.key(), kind.key());
        item.wrong::<()>(message, format!("{belongs}; take it out"));
    }
}

/// Whether a text is a GUID as Azure writes one.
pub fn is_guid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// A GUID or a domain; not one of the words that mean whichever tenant a person is of.
pub fn is_tenant(text: &str) -> bool {
    let is_label = |label: &str| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(inside)
    };
    is_guid(text) || text.contains('.') && text.split('.').all(is_label)
}

fn guid(item: Item<'_>) -> Option<String> {
    let text = item.text()?;
    match is_guid(text) {
        true => Some(text.to_owned()),
        false => item.wrong(
            format!("`{}` is not a GUID", item.key()),
            "it reads 11111111-2222-3333-4444-555555555555; a name is not enough",
        ),
    }
}

fn tenant(item: Item<'_>) -> Option<String> {
    let text = item.text()?;
    if is_tenant(text) {
        return Some(text.to_owned());
    }
    let message = match ["common", "organizations", "consumers"].contains(&text) {
        true => "`tenant` must be the app's own: no person signs in here, who could be of any",
        false => "`tenant` is neither a GUID nor a domain",
    };
    item.wrong(message, "az account show --query tenantId")
}

fn resource_id(item: Item<'_>) -> Option<String> {
    let text = item.text()?;
    let lower = text.to_ascii_lowercase();
    let is_identity = lower.starts_with("/subscriptions/")
        && lower.contains("/providers/microsoft.managedidentity/userassignedidentities/")
        && !text.contains(char::is_whitespace);
    match is_identity {
        true => Some(text.to_owned()),
        false => item.wrong(
            "`resource_id` is not the resource id of a user-assigned identity",
            "az identity show --name NAME --resource-group GROUP --query id",
        ),
    }
}

fn scope(item: Item<'_>) -> Option<String> {
    let text = item.text()?;
    let is_scope =
        text.ends_with("/.default") && addressable(text).is_some() && !text.contains(' ');
    match is_scope {
        true => Some(text.to_owned()),
        false => item.unlike_sample("`scope` must be an address with /.default at its end"),
    }
}

/// An address that ends with its host, such as `https://contoso.communication.azure.com`.
fn origin(item: Item<'_>) -> Option<String> {
    match judge_origin(item.text()?) {
        Ok(origin) => Some(origin),
        Err((message, hint)) => item.wrong(format!("`{}` {message}", item.key()), hint),
    }
}

/// What is wrong with a value, in words that follow its key, and what to do.
type Wrong = (&'static str, &'static str);

/// The address without its last slash.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn judge_origin(text: &str) -> Result<String, Wrong> {
    let rest = "write https:// and the host, nothing after it";
    if text.to_ascii_lowercase().contains("accesskey=") {
        return Err((
            "is a whole connection string, and its access key stands in the clear here",
            "write the endpoint alone, and regenerate that key",
        ));
    }
    let url = addressable(text).ok_or(("is not an address", rest))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err(("must begin with https://", rest));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(("holds a user or a password", rest));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(("goes on after its host", rest));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err((
            "is plain http, which would carry tokens in the clear out of this machine",
            "plain http is for an emulator on this machine; use https",
        ));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The variable may hold the host alone.
fn with_scheme(text: String) -> String {
    match text.contains("://") {
        true => text,
        false => format!("https://{text}"),
    }
}

/// The secret of an app, if it is none of the portal's ids.
fn secret(item: Item<'_>) -> Option<LoadedSecret> {
    let loaded = references::secret(item)?;
    match judge_value(loaded.secret.expose()) {
        Ok(()) => Some(loaded),
        Err((message, hint)) => item.wrong(format!("`{}` {message}", item.key()), hint),
    }
}

/// Whether a client secret may be one: the portal shows its id, a GUID, beside its value.
fn judge_value(text: &str) -> Result<(), Wrong> {
    match is_guid(text.trim()) {
        false => Ok(()),
        true => Err((
            "is the id of a secret, not its value",
            "the value is shown once, when it is made: az ad app credential reset --id CLIENT_ID --append --query password",
        )),
    }
}

/// The same with another secret in the place of its own, which is not looked for in the file of the old one; a kind
/// without one stays as it is.
///
/// # Errors
/// Why that cannot be one, and what to do.
pub fn entra_with_secret(of: &EntraSettings, new: Secret) -> Result<EntraSettings, Wrong> {
    let mut with = of.clone();
    if matches!(with.kind, EntraKind::ClientSecret { .. }) {
        judge_value(new.expose())?;
    }
    if let Some(secret) = with.kind.secret_mut() {
        *secret = LoadedSecret {
            from: SecretRef::Env(String::new()),
            secret: new,
        };
    }
    Ok(with)
}

const SECRET_VARIABLE: &str = "AZURE_CLIENT_SECRET";
const CERTIFICATE_VARIABLE: &str = "AZURE_CLIENT_CERTIFICATE_PATH";

/// Who calls the resource at `endpoint`, by the variables that Azure's libraries take: an app where its secret or its
/// certificate is named, a pod where its token is, else the machine.
///
/// # Errors
/// What of it cannot be used.
pub fn entra_of_environment(
    endpoint: &str,
    environment: &Environment,
) -> Result<EntraSettings, String> {
    let of = |name: &str, (message, hint): Wrong| format!("{name} {message}; {hint}");
    let given = |name: &'static str, is_right: fn(&str) -> bool, what: &str| {
        let value = environment.variable(name);
        let value = value.ok_or_else(|| format!("{name} is not set"))?;
        match is_right(&value) {
            true => Ok(value),
            false => Err(format!("{name} holds no {what}")),
        }
    };
    let tenant = || given(TENANT_VARIABLE, is_tenant, "tenant");
    let client_id = || given(CLIENT_VARIABLE, is_guid, "client id");
    let read = |from: SecretRef| reload_secret(&from, environment).map_err(|e| e.to_string());
    let path = |name| environment.variable(name).map(PathBuf::from);
    let kind = if environment.variable(SECRET_VARIABLE).is_some() {
        let secret = read(SecretRef::Env(SECRET_VARIABLE.to_owned()))?;
        judge_value(secret.secret.expose()).map_err(|wrong| of(SECRET_VARIABLE, wrong))?;
        EntraKind::ClientSecret {
            tenant: tenant()?,
            client_id: client_id()?,
            secret,
        }
    } else if let Some(file) = path(CERTIFICATE_VARIABLE) {
        let certificate = read(SecretRef::File(file))?;
        EntraKind::ClientCertificate {
            tenant: tenant()?,
            client_id: client_id()?,
            certificate,
        }
    } else if let Some(token_file) = path(TOKEN_VARIABLE) {
        EntraKind::WorkloadIdentity {
            tenant: tenant()?,
            client_id: client_id()?,
            token_file,
        }
    } else {
        let id = environment.variable(CLIENT_VARIABLE).map(|_| client_id());
        EntraKind::ManagedIdentity {
            selector: id.transpose()?.map(IdentitySelector::ClientId),
        }
    };
    let authority = environment.variable(AUTHORITY_VARIABLE);
    let authority = authority.map_or_else(|| PUBLIC.to_owned(), with_scheme);
    Ok(EntraSettings {
        endpoint: judge_origin(endpoint).map_err(|wrong| of("the endpoint", wrong))?,
        kind,
        authority: judge_origin(&authority).map_err(|wrong| of(AUTHORITY_VARIABLE, wrong))?,
        scope: default_scope(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_end_with_their_host() {
        for (text, read) in [
            (
                "https://contoso.communication.azure.com",
                "https://contoso.communication.azure.com",
            ),
            ("https://Contoso.example:443/", "https://contoso.example"),
            ("http://[::1]:8443/", "http://[::1]:8443"),
        ] {
            assert_eq!(judge_origin(text).as_deref(), Ok(read));
        }
        for (text, told) in [
            ("contoso.communication.azure.com", "not an address"),
            ("ftp://contoso.example", "https://"),
            ("http://contoso.example", "plain http"),
            ("https://contoso.example/tenant", "goes on"),
            ("https://contoso.example?x", "goes on"),
            ("https://bob:word@contoso.example", "a user"),
            (
                "endpoint=https://a.example/;accesskey=bm90",
                "connection string",
            ),
        ] {
            assert!(judge_origin(text).unwrap_err().0.contains(told), "{text}");
        }
    }

    #[test]
    fn tenants_are_guids_or_domains() {
        for (text, is) in [
            ("11111111-2222-3333-4444-555555555555", true),
            ("contoso.onmicrosoft.com", true),
            ("11111111-2222-3333-4444-55555555555", false),
            ("contoso", false),
            ("contoso..com", false),
            ("a/b.c", false),
        ] {
            assert_eq!(is_tenant(text), is, "{text}");
        }
        assert_eq!(
            with_scheme("login.microsoftonline.us".to_owned()),
            "https://login.microsoftonline.us"
        );
    }
}
