//! Names and ids: parsed once, valid ever after.

use std::{fmt, str::FromStr, sync::Arc};

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
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $valid:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The text itself.
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
    is_name
);
text_newtype!(
    /// The operator's name of one ACS resource.
    ResourceName,
    "resource name",
    "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    is_name
);
text_newtype!(
    /// The operator's name of a sink.
    SinkName,
    "sink name",
    "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    is_name
);
text_newtype!(
    /// The operator's name of a job.
    JobName,
    "job name",
    "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    is_name
);
text_newtype!(
    /// The operator's name of a source of identities.
    SourceName,
    "source name",
    "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    is_name
);
text_newtype!(
    /// What ACS calls an identity, such as `8:acs:<resource>_<user>`.
    IdentityId,
    "identity id",
    "it must start with \"8:\" and hold only visible ASCII without spaces, at most 256 characters",
    is_id
);

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=128).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(b))
}

fn is_id(text: &str) -> bool {
    text.starts_with("8:")
        && (3..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
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
        for good in ["a", "support-bot", "a.b@c+d_e", &"x".repeat(128)] {
            assert!(good.parse::<Name>().is_ok(), "{good:?}");
        }
    }
}
