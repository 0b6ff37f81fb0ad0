//! Request bodies: which may be absent, and how unreadable ones fail.

use http::{HeaderMap, header::CONTENT_TYPE};
use serde::de::DeserializeOwned;

use super::problem::{self, Problem};

/// The body as JSON; `None` where it is absent or `null`. A content type matters only where there
/// is a body (SDKs send one without).
pub(super) fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<T>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or("", |value| value.to_str().unwrap_or("?"));
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") && !essence.ends_with("+json") {
        return Err(problem::unsupported_media_type(kind));
    }
    serde_json::from_slice(body).map_err(|error| {
        problem::body_unreadable(format!(
            "the body is not the JSON that is wanted ({:?} error at line {} column {})",
            error.classify(),
            error.line(),
            error.column()
        ))
    })
}
