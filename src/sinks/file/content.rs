//! What a file holds, by format.

use zeroize::Zeroizing;

use super::{
    keeps_file,
    template::{Renderer, TemplateError},
};
use crate::model::{Scope, Secret, TokenDocument, whole_seconds};

/// Why a format cannot hold a document. It names the field, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No way of writing it is read alike by shells, systemd and dotenv libraries.
    #[error(
        "the env format cannot hold the {key} of this identity: it has a character that its readers take differently; use format = \"json\""
    )]
    Env {
        /// The variable.
        key: &'static str,
    },
    /// The template does not take it.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// What belongs into the file.
#[derive(Debug)]
pub(super) enum Content {
    /// These bytes.
    Bytes(Zeroizing<Vec<u8>>),
    /// There should be no file.
    Nothing,
}

/// How documents become bytes.
#[derive(Debug)]
pub(super) enum Format {
    /// The token document, or an object of them.
    Json,
    /// The bare token.
    Token,
    /// `KEY='value'` lines.
    Env,
    /// Whatever the operator wants.
    Template(Renderer),
}

impl Format {
    /// What the file of an identity holds at this document.
    pub(super) fn one(&self, document: &TokenDocument) -> Result<Content, FormatError> {
        if !keeps_file(matches!(self, Self::Json), document.state) {
            return Ok(Content::Nothing);
        }
        Ok(match (self, &document.token) {
            (Self::Json, _) => Content::Bytes(document.to_json()),
            (_, None) => Content::Nothing,
            (Self::Token, Some(token)) => {
                Content::Bytes(Zeroizing::new(token.expose().as_bytes().to_vec()))
            }
            (Self::Env, Some(token)) => Content::Bytes(env(document, token)?),
            (Self::Template(template), Some(_)) => Content::Bytes(template.one(document)?),
        })
    }

    /// What the one file of all these identities holds.
    pub(super) fn many(&self, documents: &[&TokenDocument]) -> Result<Content, FormatError> {
        let is_json = matches!(self, Self::Json);
        let kept: Vec<_> = documents
            .iter()
            .copied()
            .filter(|document| keeps_file(is_json, document.state))
            .filter(|document| is_json || document.token.is_some())
            .collect();
        if kept.is_empty() {
            return Ok(Content::Nothing);
        }
        Ok(Content::Bytes(match self {
            Self::Template(template) => template.many(kept.into_iter())?,
            Self::Json | Self::Token | Self::Env => object(&kept),
        }))
    }
}

/// `{"identities":{NAME:DOCUMENT,…}}`, one to a line. Names hold nothing that JSON escapes.
fn object(documents: &[&TokenDocument]) -> Zeroizing<Vec<u8>> {
    let parts: Vec<_> = documents
        .iter()
        .map(|document| document.to_json())
        .collect();
    let length = parts.iter().map(|part| part.len() + 140).sum::<usize>() + 32;
    let mut out = Zeroizing::new(Vec::with_capacity(length));
    out.extend_from_slice(b"{\"identities\":{");
    for (at, (document, part)) in documents.iter().zip(&parts).enumerate() {
        let comma = if at == 0 { "\n" } else { ",\n" };
        for piece in [comma, "\"", document.name.as_str(), "\":"] {
            out.extend_from_slice(piece.as_bytes());
        }
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\n}}\n");
    out
}

/// One `KEY='value'` line each, for a shell's `.`, systemd's `EnvironmentFile=` and dotenv libraries.
fn env(document: &TokenDocument, token: &Secret) -> Result<Zeroizing<Vec<u8>>, FormatError> {
    let scopes: Vec<&str> = document.scopes.iter().copied().map(Scope::as_str).collect();
    let times = [document.issued_at, document.expires_at, document.renews_at];
    let [issued, expires, renews] = times.map(|at| at.map(whole_seconds).unwrap_or_default());
    // Room for any token up front, so that growing the buffer leaves no copy of it behind.
    let mut out = Zeroizing::new(Vec::with_capacity(2048 + token.expose().len()));
    for (key, value) in [
        ("RENEWD_NAME", document.name.as_str()),
        ("RENEWD_RESOURCE", document.resource.as_str()),
        (
            "RENEWD_ID",
            document.id.as_ref().map_or("", |id| id.as_str()),
        ),
        ("RENEWD_STATE", document.state.as_str()),
        ("RENEWD_TOKEN", token.expose()),
        ("RENEWD_SCOPES", &scopes.join(",")),
        ("RENEWD_ISSUED_AT", &issued),
        ("RENEWD_EXPIRES_AT", &expires),
        ("RENEWD_RENEWS_AT", &renews),
        ("RENEWD_VERSION", &document.version.to_string()),
    ] {
        let quote = quote_for(value).ok_or(FormatError::Env { key })?;
        for part in [key, "=", quote, value, quote, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    Ok(out)
}

/// The quotes in which every reader takes the value as it stands; `None` if there are none. Between
/// single quotes, shells and systemd take everything literally, but dotenv libraries read backslashes
/// and `${…}`; between double quotes all of them also expand `$` and backquotes.
fn quote_for(value: &str) -> Option<&'static str> {
    let has = |chars: &[char]| value.contains(chars);
    if value.chars().any(char::is_control) || has(&['\\']) || value.contains("${") {
        None
    } else if !has(&['\'']) {
        Some("'")
    } else if !has(&['"', '$', '`', '!']) {
        Some("\"")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, State, Version};

    fn document(token: Option<&str>, state: State) -> TokenDocument {
        TokenDocument {
            name: "bot".parse().unwrap(),
            resource: "contoso".parse().unwrap(),
            id: Some("8:acs:x_y".parse().unwrap()),
            state,
            token: token.map(|t| Secret::new(t.to_owned())),
            scopes: vec![Scope::Chat, Scope::Voip],
            issued_at: Some("2026-11-22T17:00:00Z".parse().unwrap()),
            expires_at: Some("2026-11-23T17:00:00.9Z".parse().unwrap()),
            renews_at: None,
            version: Version(7),
            kind: Kind::Issued,
        }
    }

    fn text(format: &Format, document: &TokenDocument) -> Option<String> {
        match format.one(document).unwrap() {
            Content::Bytes(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            Content::Nothing => None,
        }
    }

    #[test]
    fn each_format_says_what_it_should() {
        let document = document(Some("ey.J"), State::Active);
        assert_eq!(text(&Format::Token, &document).unwrap(), "ey.J");
        assert_eq!(
            text(&Format::Json, &document).unwrap().as_bytes(),
            document.to_json().as_slice()
        );
        assert_eq!(
            text(&Format::Env, &document).unwrap(),
            "RENEWD_NAME='bot'\nRENEWD_RESOURCE='contoso'\nRENEWD_ID='8:acs:x_y'\nRENEWD_STATE='active'\n\
             RENEWD_TOKEN='ey.J'\nRENEWD_SCOPES='chat,voip'\nRENEWD_ISSUED_AT='2026-11-22T17:00:00Z'\n\
             RENEWD_EXPIRES_AT='2026-11-23T17:00:00Z'\nRENEWD_RENEWS_AT=''\nRENEWD_VERSION='7'\n"
        );
    }

    #[test]
    fn a_held_identity_keeps_only_its_document() {
        let held = document(None, State::Held);
        assert!(
            text(&Format::Json, &held)
                .unwrap()
                .contains("\"token\":null")
        );
        assert_eq!(text(&Format::Token, &held), None);
        assert_eq!(text(&Format::Env, &held), None);
        for state in [State::New, State::Gone, State::Deleted] {
            assert_eq!(text(&Format::Json, &document(None, state)), None);
        }
    }

    #[test]
    fn env_refuses_what_its_readers_take_differently() {
        for (value, quote) in [
            ("plain", Some("'")),
            ("with space # = $HOME \"q\" größe", Some("'")),
            ("it's", Some("\"")),
            ("it's $HOME", None),
            ("a\\b", None),
            ("a${b}", None),
            ("a\nb", None),
        ] {
            assert_eq!(quote_for(value), quote, "{value:?}");
        }
        let document = document(Some("se\ncret"), State::Active);
        let error = Format::Env.one(&document).unwrap_err();
        assert!(error.to_string().contains("RENEWD_TOKEN") && !error.to_string().contains("cret"));
    }
}
