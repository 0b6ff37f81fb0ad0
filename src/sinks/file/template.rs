//! Templates of the operator's: what a document looks like in a program's own format.
//!
//! A template sees the document and nothing else: no files, no environment, no other templates. An
//! unknown name is an error, not an empty string. Work and output are bounded. Values come out as
//! they are; the filters `json` and `shell` quote them for what they are put into.

use std::{fmt, io, ops::Range};

use jiff::Timestamp;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, syntax::SyntaxConfig,
};
use zeroize::Zeroizing;

use crate::model::{Scope, Secret, TokenDocument, whole_seconds};

/// The one template of an environment.
const NAME: &str = "template";
/// Steps that one rendering may take, and as many more for each further document.
const FUEL: u64 = 100_000;
/// Bytes that may come of it, and as many more for each further document.
const LARGEST: usize = 1 << 20;
const LARGEST_EACH: usize = 64 << 10;

/// Why a template gives nothing. At load, with a document made up for it, everything is told; later
/// only what cannot hold a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong, in one sentence.
    pub message: String,
    /// The bytes of the template that it is about.
    pub range: Option<Range<usize>>,
    /// The part of the template that names nothing, if it is that.
    pub unknown: Option<String>,
}

/// The names that a template of one document, or of a bundle, knows.
pub(crate) const FIELDS: [&str; 10] = [
    "name",
    "resource",
    "id",
    "state",
    "token",
    "scopes",
    "issued_at",
    "expires_at",
    "renews_at",
    "version",
];
/// The name that a bundle's template knows.
pub(crate) const IDENTITIES: &str = "identities";

/// A template, ready to be rendered.
pub(in crate::sinks) struct Renderer(Box<Environment<'static>>);

impl fmt::Debug for Renderer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renderer")
    }
}

impl Renderer {
    pub(in crate::sinks) fn new(text: &str) -> Result<Self, TemplateError> {
        Self::compiled(text, false)
    }

    /// `talkative` errors hold values; only for documents that are made up.
    fn compiled(text: &str, talkative: bool) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_debug(talkative);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        // A line that holds nothing but a tag leaves nothing behind, and the last line keeps its end.
        let mut syntax = SyntaxConfig::builder();
        syntax
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true);
        if let Ok(syntax) = syntax.build() {
            environment.set_syntax(syntax);
        }
        environment.add_filter("json", json);
        environment.add_filter("shell", shell);
        environment.add_filter("unix", unix);
        environment
            .add_template_owned(NAME, text.to_owned())
            .map_err(|error| told(&error, text))?;
        Ok(Self(Box::new(environment)))
    }

    /// What the template makes of one document.
    pub(super) fn one(
        &self,
        document: &TokenDocument,
    ) -> Result<Zeroizing<Vec<u8>>, TemplateError> {
        self.render(fields(document), 1)
    }

    /// What the template makes of many.
    pub(super) fn many<'a>(
        &self,
        documents: impl ExactSizeIterator<Item = &'a TokenDocument>,
    ) -> Result<Zeroizing<Vec<u8>>, TemplateError> {
        let count = documents.len();
        let identities: Vec<Value> = documents.map(fields).collect();
        self.render(Value::from_pairs([(IDENTITIES, identities)]), count)
    }

    /// What the template makes of `count` things.
    pub(in crate::sinks) fn render(
        &self,
        context: Value,
        count: usize,
    ) -> Result<Zeroizing<Vec<u8>>, TemplateError> {
        self.attempt(context, count).map_err(|error| TemplateError {
            message: kept_quiet(&error),
            range: None,
            unknown: None,
        })
    }

    fn attempt(&self, context: Value, count: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
        let further = count.saturating_sub(1);
        let mut environment = self.0.clone();
        environment.set_fuel(Some(FUEL.saturating_mul(1 + further as u64)));
        let mut out = Bounded {
            bytes: Zeroizing::new(Vec::with_capacity(8192)),
            limit: LARGEST.saturating_add(further.saturating_mul(LARGEST_EACH)),
        };
        let template = environment.get_template(NAME)?;
        match template.render_captured_to(context, &mut out) {
            Ok(_) => Ok(out.bytes),
            Err(error) => Err(error),
        }
    }
}

/// What is wrong with a template: it is compiled, and rendered once with a document made up for it.
pub(crate) fn check(text: &str, is_bundle: bool) -> Option<TemplateError> {
    let renderer = match Renderer::compiled(text, true) {
        Ok(renderer) => renderer,
        Err(error) => return Some(error),
    };
    let document = fields(&made_up()?);
    let context = match is_bundle {
        true => Value::from_pairs([(IDENTITIES, vec![document.clone(), document])]),
        false => document,
    };
    let error = renderer
        .attempt(context, 1 + usize::from(is_bundle))
        .err()?;
    Some(told(&error, text))
}

/// What a template makes of things that are made up for it, each by itself; else what is wrong with it.
pub(in crate::sinks) fn made_of(
    text: &str,
    contexts: impl Iterator<Item = Value>,
) -> Result<Vec<Zeroizing<Vec<u8>>>, TemplateError> {
    let renderer = Renderer::compiled(text, true)?;
    let made = contexts.map(|context| renderer.attempt(context, 1));
    made.map(|made| made.map_err(|error| told(&error, text)))
        .collect()
}

/// A document like those to come.
fn made_up() -> Option<TokenDocument> {
    let at = |text: &str| text.parse::<Timestamp>().ok();
    Some(TokenDocument {
        name: "example".parse().ok()?,
        resource: "example".parse().ok()?,
        id: Some("8:acs:00000000-0000-0000-0000-000000000000".parse().ok()?),
        state: crate::model::State::Active,
        token: Some(Secret::new("eyJhbGciOiJSUzI1NiJ9.e30.AAAA".to_owned())),
        scopes: vec![Scope::Chat, Scope::Voip],
        issued_at: at("2026-01-01T00:00:00Z"),
        expires_at: at("2026-01-02T00:00:00Z"),
        renews_at: at("2026-01-01T12:00:00Z"),
        version: crate::model::Version(1_767_225_600),
        kind: crate::model::Kind::Issued,
    })
}

fn fields(document: &TokenDocument) -> Value {
    let text = |text: &str| Value::from(text);
    let time = |at: Option<Timestamp>| Value::from(at.map(whole_seconds));
    let scopes: Vec<&str> = document.scopes.iter().copied().map(Scope::as_str).collect();
    let values = [
        text(document.name.as_str()),
        text(document.resource.as_str()),
        Value::from(document.id.as_ref().map(|id| id.as_str())),
        text(document.state.as_str()),
        Value::from(document.token.as_ref().map(Secret::expose)),
        Value::from(scopes),
        time(document.issued_at),
        time(document.expires_at),
        time(document.renews_at),
        Value::from(document.version.0),
    ];
    Value::from_pairs(FIELDS.into_iter().zip(values))
}

/// As JSON: strings in quotes, with everything escaped that needs it.
fn json(value: &Value) -> Result<String, Error> {
    plain(value)?;
    serde_json::to_string(value)
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "it cannot be written as JSON"))
}

/// As one word of a POSIX shell.
fn shell(value: &Value) -> Result<String, Error> {
    let text = plain(value)?;
    if text.contains('\0') {
        let why = "no word of a shell can hold a NUL";
        return Err(Error::new(ErrorKind::InvalidOperation, why));
    }
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

/// A time as seconds since 1970.
fn unix(value: &Value) -> Result<i64, Error> {
    let at = plain(value)?.parse::<Timestamp>();
    at.map(Timestamp::as_second)
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "`unix` takes a time"))
}

fn plain(value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    Ok(value.to_string())
}

/// Everything that is known about a mistake in the text, or shown by a document that is made up.
fn told(error: &Error, text: &str) -> TemplateError {
    let range = error
        .range()
        .filter(|range| text.get(range.clone()).is_some());
    let is_undefined = error.kind() == ErrorKind::UndefinedError;
    let range = match range {
        Some(range) if is_undefined => Some(filtered(text, range.start).unwrap_or(range)),
        range => range,
    };
    let unknown = is_undefined
        .then(|| range.clone().and_then(|range| text.get(range)))
        .flatten()
        .map(str::to_owned);
    let message = match (error.kind(), error.detail()) {
        (ErrorKind::UndefinedError, _) => match &unknown {
            Some(word) if is_name(word) => format!("the template knows no `{word}`"),
            Some(words) => format!("the template uses something that does not exist: `{words}`"),
            None => "the template uses something that does not exist".to_owned(),
        },
        (ErrorKind::OutOfFuel, _) => "the template takes too long".to_owned(),
        (ErrorKind::WriteFailure, _) => "the template's output is too large".to_owned(),
        (_, Some(detail)) => format!("the template is wrong: {detail}"),
        (kind, None) => format!("the template is wrong: {kind}"),
    };
    TemplateError {
        message,
        range,
        unknown,
    }
}

/// Whether a part of a template is a name, or one with what is in it.
fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "_.[]'\"".contains(c);
    text.chars().all(is_part)
}

/// What a filter at this place is applied to: an undefined value is found by the filter, and the mistake
/// stands before it.
fn filtered(text: &str, filter: usize) -> Option<Range<usize>> {
    let before = text.get(..filter)?.trim_end().strip_suffix('|')?.trim_end();
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let start = before.trim_end_matches(is_part).len();
    (start < before.len()).then_some(start..before.len())
}

/// What may be said of a mistake that a real document showed: nothing that could hold a value.
fn kept_quiet(error: &Error) -> String {
    let line = error.line().unwrap_or_default();
    format!(
        "the template gives nothing for this one: {}, line {line} of the template",
        error.kind()
    )
}

/// Output up to a limit.
struct Bounded {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<String, TemplateError> {
        let rendered = Renderer::new(text)?.one(&made_up().unwrap())?;
        Ok(String::from_utf8(rendered.to_vec()).unwrap())
    }

    #[test]
    fn a_template_says_what_the_document_holds() {
        assert_eq!(
            one("[{{ name }}]\n{% for s in scopes %}\n  scope={{ s }}\n{% endfor %}\nend={{ expires_at|unix }}\n").unwrap(),
            "[example]\n  scope=chat\n  scope=voip\nend=1767312000\n"
        );
        assert_eq!(one("{{ scopes|json }}").unwrap(), r#"["chat","voip"]"#);
        assert_eq!(
            one("{{ \"it's <a> $b\"|shell }}").unwrap(),
            r"'it'\''s <a> $b'"
        );
        assert_eq!(one("{{ 'a\"b\\\\<'|json }}").unwrap(), r#""a\"b\\<""#);
    }

    #[test]
    fn a_bundles_template_goes_through_all() {
        let text = "{% for i in identities %}\n{{ i.name }}={{ i.token }}\n{% endfor %}\n";
        let document = made_up().unwrap();
        let documents = [&document, &document];
        let rendered = Renderer::new(text).unwrap().many(documents.into_iter());
        let line = "example=eyJhbGciOiJSUzI1NiJ9.e30.AAAA\n";
        assert_eq!(rendered.unwrap().as_slice(), line.repeat(2).as_bytes());
        assert_eq!(check(text, true), None);
        assert!(check(text, false).unwrap().message.contains("`identities`"));
    }

    #[test]
    fn mistakes_are_found_at_load_with_their_place() {
        for (text, message, part) in [
            ("a {{ tokn }}", "the template knows no `tokn`", "tokn"),
            ("a {{ tokn|json }}", "the template knows no `tokn`", "tokn"),
            ("{{ token|jsn }}", "filter jsn is unknown", "jsn"),
            ("{% if %}", "unexpected end of block", "%}"),
            ("{{ token", "unexpected end of", ""),
            ("{% include 'x' %}", "unknown statement", "include"),
            ("{{ name|unix }}", "`unix` takes a time", ""),
            (
                "{% for i in range(99999) %}{% for j in range(99999) %}.{% endfor %}{% endfor %}",
                "takes too long",
                "",
            ),
            ("{{ 'x' * 9000000 }}", "takes too long", ""),
            ("{{ undefined.undefined }}", "knows no", ""),
        ] {
            let error = check(text, false).unwrap_or_else(|| panic!("{text}"));
            assert!(error.message.contains(message), "{text}: {error:?}");
            let range = error.range.clone().map(|range| &text[range]);
            assert!(part.is_empty() || range == Some(part), "{text}: {range:?}");
        }
    }

    #[test]
    fn the_output_is_bounded() {
        let error = check(&"x".repeat(LARGEST + 1), false).unwrap();
        assert!(error.message.contains("output is too large"), "{error}");
    }

    #[test]
    fn a_real_document_is_never_quoted() {
        let text = "{{ token|unix }}";
        let error = one(text).unwrap_err();
        assert_eq!(
            error.message,
            "the template gives nothing for this one: invalid operation, line 1 of the template"
        );
        for text in ["{{ token + 1 }}", "{{ token|int }}", "{{ token.x.y }}"] {
            let error = one(text).unwrap_err();
            assert!(!error.to_string().contains("eyJ"), "{error}");
        }
    }
}
