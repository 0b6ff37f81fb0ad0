//! Which operation a request asks for, read from the raw request target.

use http::Method;

use super::percent;

/// A request's place in the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `POST /identities`.
    Create,
    /// `DELETE /identities/{id}`.
    Delete(String),
    /// `POST /identities/{id}/:revokeAccessTokens`.
    Revoke(String),
    /// `POST /identities/{id}/:issueAccessToken`.
    Issue(String),
    /// `POST /teamsUser/:exchangeAccessToken`.
    Exchange,
    /// A place of the API that does not take this method.
    WrongMethod,
    /// No place of the API.
    Unknown,
}

/// Finds the route. The path is split first and decoded after, so that an escaped `/` stays within
/// its segment; both `%3A` and `:` lead to the same place.
pub(super) fn route(method: &Method, path: &str) -> Route {
    let Some(segments) = path
        .split('/')
        .skip(1)
        .map(percent::decode)
        .collect::<Option<Vec<String>>>()
    else {
        return Route::Unknown;
    };
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let is = |segment: &str, word: &str| segment.eq_ignore_ascii_case(word);
    let (wanted, found) = match parts[..] {
        [a] if is(a, "identities") => (Method::POST, Route::Create),
        [a, id] if is(a, "identities") && !id.is_empty() => {
            (Method::DELETE, Route::Delete(id.to_owned()))
        }
        [a, id, verb] if is(a, "identities") && is(verb, ":issueAccessToken") => {
            (Method::POST, Route::Issue(id.to_owned()))
        }
        [a, id, verb] if is(a, "identities") && is(verb, ":revokeAccessTokens") => {
            (Method::POST, Route::Revoke(id.to_owned()))
        }
        [a, verb] if is(a, "teamsUser") && is(verb, ":exchangeAccessToken") => {
            (Method::POST, Route::Exchange)
        }
        _ => return Route::Unknown,
    };
    if *method == wanted {
        found
    } else {
        Route::WrongMethod
    }
}

/// A version of the API, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ApiVersion {
    /// None was given.
    Unspecified,
    /// This one, known or not.
    Asked(String),
}

/// The recorded list of what the identity operations support, verbatim.
pub(super) const IDENTITY_VERSIONS: &str = "2020-07-20-preview2, 2021-02-22-preview1, 2021-03-07, 2021-10-31-preview, 2021-11-01, 2022-06-01, 2022-10-01, 2023-10-01";
/// The recorded list of what the Teams exchange supports, verbatim.
pub(super) const TEAMS_VERSIONS: &str = "2021-10-31-preview, 2022-06-01, 2022-10-01";
/// Supported besides the recorded lists: the SDKs use them for every operation.
const NEWER_VERSIONS: [&str; 2] = ["2023-10-01", "2025-06-30"];
/// Listed by the service and not emulated: its operations have other shapes.
const OTHER_SHAPES: &str = "2020-07-20-preview2";

/// The `api-version` of a query; its name in any case, as ASP.NET takes it.
pub(super) fn api_version(query: &str) -> ApiVersion {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, value)| name.eq_ignore_ascii_case("api-version") && !value.is_empty())
        .and_then(|(_, value)| percent::decode(value))
        .map_or(ApiVersion::Unspecified, ApiVersion::Asked)
}

/// Whether this version is supported there.
pub(super) fn supports(list: &str, version: &str) -> bool {
    version != OTHER_SHAPES
        && (NEWER_VERSIONS.contains(&version) || list.split(", ").any(|known| known == version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_an_id_lead_to_the_same_place() {
        let issue = Route::Issue("8:acs:a_b".to_owned());
        for path in [
            "/identities/8%3Aacs%3Aa_b/:issueAccessToken",
            "/identities/8:acs:a_b/:issueAccessToken",
            "/identities/8%3aacs:a_b/%3AissueAccessToken",
        ] {
            assert_eq!(route(&Method::POST, path), issue, "{path}");
        }
        assert_eq!(
            route(&Method::DELETE, "/identities/a%2Fb"),
            Route::Delete("a/b".to_owned())
        );
    }

    #[test]
    fn other_methods_and_paths_are_told_apart() {
        assert_eq!(route(&Method::GET, "/identities"), Route::WrongMethod);
        assert_eq!(route(&Method::POST, "/identities/x/:other"), Route::Unknown);
        assert_eq!(route(&Method::POST, "/"), Route::Unknown);
        assert_eq!(route(&Method::DELETE, "/identities/"), Route::Unknown);
    }

    #[test]
    fn versions_are_those_of_the_recordings_and_the_newer_ones() {
        let asked = |text: &str| ApiVersion::Asked(text.to_owned());
        assert_eq!(api_version("api-version=2023-10-01"), asked("2023-10-01"));
        assert_eq!(api_version("a=b&API-Version=x"), asked("x"));
        assert_eq!(api_version("api-version="), ApiVersion::Unspecified);
        assert!(supports(IDENTITY_VERSIONS, "2021-03-07"));
        assert!(supports(TEAMS_VERSIONS, "2023-10-01"));
        assert!(!supports(TEAMS_VERSIONS, "2021-03-07"));
        assert!(!supports(IDENTITY_VERSIONS, "2020-07-20-preview2"));
    }
}
