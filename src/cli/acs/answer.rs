//! What a call answered, as plain `name=value` lines for a shell or as one JSON document.

use serde::Serialize;

use crate::{
    acs::{Answer, Created, Issued},
    model::{IdentityId, Secret, whole_seconds},
};

use super::super::{exit::Failed, output};

/// An answer that is to be shown; what a call does not give is left out.
#[derive(Debug, Default)]
pub(super) struct Shown {
    result: Option<&'static str>,
    id: Option<IdentityId>,
    token: Option<Issued>,
    request_id: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a IdentityId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    request_id: Option<&'a str>,
}

impl Shown {
    pub(super) fn created(answer: Answer<Created>) -> Self {
        Self {
            id: Some(answer.value.id),
            token: answer.value.token,
            request_id: answer.request_id,
            ..Self::default()
        }
    }

    pub(super) fn issued(id: Option<IdentityId>, answer: Answer<Issued>) -> Self {
        Self {
            id,
            token: Some(answer.value),
            request_id: answer.request_id,
            ..Self::default()
        }
    }

    pub(super) fn done(result: &'static str, id: IdentityId, answer: Answer<()>) -> Self {
        Self {
            result: Some(result),
            id: Some(id),
            request_id: answer.request_id,
            ..Self::default()
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<(), Failed> {
        let document = Document {
            result: self.result,
            id: self.id.as_ref(),
            token: self.token.as_ref().map(|token| token.secret.expose()),
            expires_at: self
                .token
                .as_ref()
                .map(|token| whole_seconds(token.expires_at)),
            request_id: self.request_id.as_deref(),
        };
        if json {
            return output::print_json(&document);
        }
        let lines = [
            ("result", document.result),
            ("id", document.id.map(IdentityId::as_str)),
            ("token", document.token),
            ("expires_at", document.expires_at.as_deref()),
            ("request_id", document.request_id),
        ];
        let said = lines
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let text: String = said
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        output::print_secret_lines(&Secret::new(text))
    }
}
