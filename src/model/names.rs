//! Names, ids and scopes: parsed once, valid ever after. Text that other programs wrote is read as it was meant: a
//! byte order mark at its beginning is no part of it, other encodings are named, and a line may end in any way.
//! Beside them stands where a file was put and what was in it, so that it can be taken back without taking
//! anything else.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use std::{
    fmt,
    io::{self, BufRead},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

pub use renewd_acs_wire::{Secret, hex};

/// Why a text is not a valid name or id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct NameError {
    /// What kind of name was wanted.
    pub what: &'static str,
    /// The offending text, cut to 128 characters.
    pub text: String,
    /// The rule it breaks, in words.
    pub rule: &'static str,
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $pattern:literal, $valid:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if $valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError { what: $what, text: text.chars().take(128).collect(), rule: $rule })
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $rule, "pattern": $pattern })
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_newtype!(
    /// The operator's name of an identity: `[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}`, so it can never
    /// choose a path.
    Name,
    "name",
    "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$",
    is_name
);
text_newtype!(
    /// The operator's name of one ACS resource.
    ResourceName,
    "resource name",
    "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$",
    is_name
);
text_newtype!(
    /// The operator's name of a sink.
    SinkName,
    "sink name",
    "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$",
    is_name
);
text_newtype!(
    /// The operator's name of a job.
    JobName,
    "job name",
    "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$",
    is_name
);
text_newtype!(
    /// The operator's name of a source of identities.
    SourceName,
    "source name",
    "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$",
    is_name
);
text_newtype!(
    /// The operator's name of one machine of a cluster.
    NodeName,
    "node name",
    "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$",
    is_name
);
text_newtype!(
    /// The operator's name of a cluster: what its machines have in common.
    ClusterName,
    "cluster name",
    "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$",
    is_name
);
text_newtype!(
    /// Names of nodes: `*` stands for any characters, `?` for one.
    NodePattern,
    "pattern of node names",
    "it holds letters, digits or any of . _ @ + -, * for any of them and ? for one, and has at most 128 characters",
    "^[A-Za-z0-9._@+*?-]{1,128}$",
    is_pattern
);
text_newtype!(
    /// What ACS calls an identity, such as `8:acs:<resource>_<user>`.
    IdentityId,
    "identity id",
    "it must start with \"8:\" and hold only visible ASCII without spaces, at most 256 characters",
    "^8:[!-~]{1,254}$",
    is_id
);

/// A sink, and in a cluster the machine whose own it is. It is printed `NAME@NODE`, which nobody takes apart: a name
/// may hold an `@` itself, so whoever reads it back has all of it for a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkAt {
    name: SinkName,
    node: Option<NodeName>,
    printed: Arc<str>,
}

impl SinkAt {
    /// `node` is none outside clusters, and of a sink that the leader serves.
    pub fn new(name: SinkName, node: Option<NodeName>) -> Self {
        let printed = match &node {
            Some(node) => format!("{name}@{node}").into(),
            None => Arc::clone(&name.0),
        };
        Self {
            name,
            node,
            printed,
        }
    }

    pub fn name(&self) -> &SinkName {
        &self.name
    }

    pub fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }

    /// As it is printed.
    pub fn as_str(&self) -> &str {
        &self.printed
    }
}

impl From<SinkName> for SinkAt {
    fn from(name: SinkName) -> Self {
        Self::new(name, None)
    }
}

/// One that is nobody's own: all of the text is its name.
impl FromStr for SinkAt {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Ok(name.parse::<SinkName>()?.into())
    }
}

impl fmt::Display for SinkAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.printed)
    }
}

impl fmt::Debug for SinkAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.printed, f)
    }
}

impl serde::Serialize for SinkAt {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.printed)
    }
}

impl<'de> serde::Deserialize<'de> for SinkAt {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let printed = String::deserialize(deserializer)?;
        Ok(SinkName(printed.into()).into())
    }
}

#[cfg(test)]
impl schemars::JsonSchema for SinkAt {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SinkAt".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let says = "the name of a sink; in a cluster, of one that is a machine's own, with @ and the machine behind it";
        schemars::json_schema!({ "type": "string", "description": says })
    }
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=128).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(b))
}

fn is_pattern(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._@+-*?".contains(&b))
}

impl NodePattern {
    pub fn is_of(&self, node: &NodeName) -> bool {
        matches(self.as_str().as_bytes(), node.as_str().as_bytes())
    }
}

/// Whether a pattern means the whole of a text: the last `*` that was met takes one more each time the rest of
/// the pattern does not fit.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, t));
                p += 1;
            }
            (Some(wanted), _) if *wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            (_, Some((at, taken))) => {
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

fn is_id(text: &str) -> bool {
    text.starts_with("8:")
        && (3..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic())
}

/// The byte order mark of UTF-8, which Windows programs put before a text.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Why bytes are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotText {
    /// Two bytes a character.
    #[error("it is UTF-16 (Windows programs say Unicode); save it as UTF-8")]
    Utf16,
    /// Some other encoding, or no text at all.
    #[error("it is not UTF-8 text")]
    Other,
}

/// The bytes without a byte order mark before them.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// Whether a text that begins so is UTF-16: its mark, or every second byte zero.
pub fn is_utf16(start: &[u8]) -> bool {
    let zeros = |from: usize| {
        let mut bytes = start.iter().skip(from).step_by(2).take(8).peekable();
        bytes.peek().is_some() && start.len() >= 4 && bytes.all(|byte| *byte == 0)
    };
    start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") || zeros(0) != zeros(1)
}

/// The text that bytes are, without a byte order mark.
///
/// # Errors
/// When they are no UTF-8; the reason names UTF-16.
pub fn text_of(bytes: &[u8]) -> Result<&str, NotText> {
    if is_utf16(bytes) {
        return Err(NotText::Utf16);
    }
    std::str::from_utf8(without_mark(bytes)).map_err(|_| NotText::Other)
}

/// What separates the columns of a head line, where that is no comma: a word for it.
pub fn other_delimiter(head: &str) -> Option<&'static str> {
    let of = |c| head.matches(c).count();
    [(';', "semicolons"), ('\t', "tabs"), ('|', "bars")]
        .into_iter()
        .filter(|(c, _)| of(*c) > of(','))
        .max_by_key(|(c, _)| of(*c))
        .map(|(_, word)| word)
}

/// The lines of a text, each with its number as every editor counts: a line ends with `\n`, `\r\n` or
/// `\r`, and one without anything in it counts.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    number: u64,
    after_return: bool,
}

impl<R: BufRead> Lines<R> {
    pub fn of(from: R) -> Self {
        Self {
            from,
            number: 0,
            after_return: false,
        }
    }

    /// The rest of a line without its end; `None` at the end of the text.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = None::<Vec<u8>>;
        loop {
            let chunk = match self.from.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if std::mem::take(&mut self.after_return) && chunk.first() == Some(&b'\n') {
                self.from.consume(1);
                continue;
            }
            if chunk.is_empty() {
                return Ok(line);
            }
            let line = line.get_or_insert_default();
            let end = chunk.iter().position(|byte| is_line_end(*byte));
            let (text, rest) = chunk.split_at(end.unwrap_or(chunk.len()));
            line.extend_from_slice(text);
            self.after_return = rest.first() == Some(&b'\r');
            let read = text.len() + usize::from(end.is_some());
            self.from.consume(read);
            if end.is_some() {
                return Ok(Some(std::mem::take(line)));
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.line().transpose()?;
        self.number += 1;
        Some(line.map(|line| (self.number, line)))
    }
}

/// Whether a line may end with this byte.
pub fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// A file that a sink has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub path: PathBuf,
    /// SHA-256 of what was written.
    pub digest: [u8; 32],
}

/// One ACS token scope. Source: ACS REST 2023-10-01, `CommunicationTokenScope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Chat,
    /// Chat without creating, updating or deleting threads.
    ChatJoin,
    /// As `ChatJoin`, also without adding or removing participants.
    ChatJoinLimited,
    /// Start and join calls.
    Voip,
    VoipJoin,
}

impl Scope {
    /// Every scope, in the order in which they are written out.
    pub const ALL: [Self; 5] = [
        Self::Chat,
        Self::ChatJoin,
        Self::ChatJoinLimited,
        Self::Voip,
        Self::VoipJoin,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::ChatJoin => "chat.join",
            Self::ChatJoinLimited => "chat.join.limited",
            Self::Voip => "voip",
            Self::VoipJoin => "voip.join",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            format!("{text:?} is not a scope; known are chat, chat.join, chat.join.limited, voip, voip.join")
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Scope {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scope".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "enum": Self::ALL })
    }
}

impl serde::Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text as it may stand in a path, a query or a URI: what `encoded` names is
/// percent-encoded, as is all that is not ASCII. Source: RFC 3986, 2.3.
pub fn percent_encoded(text: impl AsRef<[u8]>, encoded: &'static AsciiSet) -> String {
    percent_encode(text.as_ref(), encoded).to_string()
}

/// All but the characters that stand for themselves anywhere in a URI.
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
mod names_tests {
    use super::*;

    #[test]
    fn names_cannot_choose_a_path() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "-x",
            "a b",
            "ä",
            &"x".repeat(129),
            "a\0",
            "a\n",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        let node: NodeName = "web-12".parse().unwrap();
        for (pattern, fits) in [
            ("web-12", true),
            ("web-*", true),
            ("*", true),
            ("*-*2*", true),
            ("web-??", true),
            ("web-?", false),
            ("*1", false),
            ("web", false),
            ("web-12?", false),
        ] {
            let pattern: NodePattern = pattern.parse().unwrap();
            assert_eq!(pattern.is_of(&node), fits, "{pattern}");
        }
        for good in ["a", "support-bot", "a.b@c+d_e", &"x".repeat(128)] {
            assert!(good.parse::<Name>().is_ok(), "{good:?}");
        }
    }
}

#[cfg(test)]
mod foreign_tests {
    use super::*;

    #[test]
    fn lines_are_numbered_as_editors_do_whatever_ends_them() {
        let told = |text: &str, room| {
            let lines = Lines::of(io::BufReader::with_capacity(room, text.as_bytes()));
            let lines = lines.map(|line| {
                line.map(|(n, line)| format!("{n}{}", String::from_utf8(line).unwrap()))
            });
            lines.collect::<io::Result<Vec<String>>>().unwrap()
        };
        for room in [1, 2, 3, 64] {
            for end in ["\n", "\r\n", "\r"] {
                let text = ["a", "", "b", "", "", "c"].join(end);
                let wanted = ["1a", "2", "3b", "4", "5", "6c"];
                assert_eq!(told(&text, room), wanted, "{end:?}");
                assert_eq!(told(&(text + end), room), wanted, "{end:?}");
            }
            assert_eq!(told("a\n\rb\r\r\nc", room), ["1a", "2", "3b", "4", "5c"]);
            assert!(told("", room).is_empty());
        }
    }

    #[test]
    fn a_mark_is_skipped_and_other_encodings_are_named() {
        assert_eq!(text_of(b"\xef\xbb\xbfanna"), Ok("anna"));
        assert_eq!(text_of("Müller".as_bytes()), Ok("Müller"));
        for utf16 in [
            &b"\xff\xfea\0b\0"[..],
            b"\xfe\xff\0a\0b",
            b"a\0b\0c\0",
            b"\0a\0b\0c",
        ] {
            assert_eq!(text_of(utf16), Err(NotText::Utf16), "{utf16:?}");
        }
        assert_eq!(text_of(b"M\xfcller"), Err(NotText::Other));
        for text in ["", "a", "{}", "\0\0\0\0"] {
            assert_eq!(text_of(text.as_bytes()), Ok(text));
        }
    }

    #[test]
    fn other_delimiters_are_named() {
        assert_eq!(other_delimiter("name;id;scopes"), Some("semicolons"));
        assert_eq!(other_delimiter("name\tid"), Some("tabs"));
        assert_eq!(other_delimiter("name,id,label_a;b"), None);
        assert_eq!(other_delimiter("name"), None);
    }
}
