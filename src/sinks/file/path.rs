//! Where an identity's file lies: a path with `{name}` and `{resource}` in it.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::model::{Name, ResourceName};

/// Why a path cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Relative paths depend on where the daemon was started.
    #[error("the path {0:?} is not absolute; begin it with a /")]
    Relative(String),
    /// Nothing after the last slash.
    #[error("the path {0:?} names a folder; end it with a file name such as {{name}}.json")]
    NoFile(String),
    /// A component that moves about, or cannot be a name.
    #[error(
        "the path {path:?} holds {component:?}; write it without empty parts, dots alone or control characters"
    )]
    Component {
        path: String,
        /// The part of it.
        component: String,
    },
    /// A placeholder that does not exist.
    #[error("the path {path:?} holds {placeholder:?}; there are {{name}} and {{resource}}")]
    Placeholder { path: String, placeholder: String },
}

/// An absolute path with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    folders: Vec<Component>,
    file: Component,
}

/// One part of the path, between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Component(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name,
    Resource,
}

impl PathPattern {
    /// The folders from `/` on and the file name for one identity. Names cannot hold a slash or
    /// begin with a dot, so they never choose a folder of their own.
    pub(in super::super) fn place(
        &self,
        name: &Name,
        resource: &ResourceName,
    ) -> (Vec<String>, String) {
        let render = |component: &Component| component.render(name, resource);
        (
            self.folders.iter().map(render).collect(),
            render(&self.file),
        )
    }

    /// The same where the path holds no placeholder.
    pub(super) fn fixed_place(&self) -> (Vec<String>, String) {
        let fixed = |component: &Component| component.fixed().unwrap_or_default().to_owned();
        (self.folders.iter().map(fixed).collect(), fixed(&self.file))
    }

    /// The path, where it holds no placeholder.
    pub(super) fn fixed(&self) -> Option<PathBuf> {
        let mut path = self.root();
        let components = self.folders.iter().chain([&self.file]);
        let fixed: Vec<&str> = components.map(Component::fixed).collect::<Option<_>>()?;
        path.extend(fixed.last());
        Some(path)
    }

    /// The folders, placeholders included.
    pub(super) fn folders(&self) -> &[Component] {
        &self.folders
    }

    /// The folders from `/` on, as far as they do not depend on the identity's name.
    pub(super) fn folders_before_name(&self, resource: &ResourceName) -> Vec<String> {
        let nameless = self.folders.iter().map_while(|component| {
            let words = component.0.iter().map(|piece| match piece {
                Piece::Text(text) => Some(text.as_str()),
                Piece::Name => None,
                Piece::Resource => Some(resource.as_str()),
            });
            words.collect::<Option<String>>()
        });
        nameless.collect()
    }

    /// The folder that the operator chose: the part before the first placeholder.
    pub fn root(&self) -> PathBuf {
        let fixed = self.folders.iter().map_while(Component::fixed);
        std::iter::once("/").chain(fixed).collect()
    }
}

impl Component {
    /// The text, where it holds no placeholder.
    pub(super) fn fixed(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    fn render(&self, name: &Name, resource: &ResourceName) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Name => name.as_str(),
                Piece::Resource => resource.as_str(),
            })
            .collect()
    }
}

impl FromStr for PathPattern {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        let Some(rest) = path.strip_prefix('/') else {
            return Err(PathError::Relative(path.to_owned()));
        };
        let (folders, file) = rest.rsplit_once('/').unwrap_or(("", rest));
        if file.is_empty() {
            return Err(PathError::NoFile(path.to_owned()));
        }
        let folders = folders.split('/').filter(|_| !folders.is_empty());
        Ok(Self {
            folders: folders
                .map(|text| component(path, text))
                .collect::<Result<_, _>>()?,
            file: component(path, file)?,
        })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for component in self.folders.iter().chain([&self.file]) {
            f.write_str("/")?;
            for piece in &component.0 {
                f.write_str(match piece {
                    Piece::Text(text) => text,
                    Piece::Name => "{name}",
                    Piece::Resource => "{resource}",
                })?;
            }
        }
        Ok(())
    }
}

fn component(path: &str, text: &str) -> Result<Component, PathError> {
    if matches!(text, "" | "." | "..") || text.chars().any(char::is_control) {
        return Err(PathError::Component {
            path: path.to_owned(),
            component: text.to_owned(),
        });
    }
    let unknown = |placeholder: &str| PathError::Placeholder {
        path: path.to_owned(),
        placeholder: placeholder.to_owned(),
    };
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (before, placeholder) = rest
            .find(['{', '}'])
            .map_or((rest, ""), |at| rest.split_at(at));
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        rest = placeholder;
        if let Some(after) = rest.strip_prefix("{name}") {
            pieces.push(Piece::Name);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{resource}") {
            pieces.push(Piece::Resource);
            rest = after;
        } else if !rest.is_empty() {
            let end = rest.find('}').map_or(rest.len(), |at| at + 1);
            return Err(unknown(&rest[..end]));
        }
    }
    Ok(Component(pieces))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(pattern: &str) -> (Vec<String>, String) {
        let pattern: PathPattern = pattern.parse().unwrap();
        pattern.place(&"bot@x".parse().unwrap(), &"contoso".parse().unwrap())
    }

    #[test]
    fn placeholders_are_filled_in_anywhere() {
        let (folders, file) = place("/run/{resource}-tokens/{name}/t-{name}.json");
        assert_eq!(folders, ["run", "contoso-tokens", "bot@x"]);
        assert_eq!(file, "t-bot@x.json");
        assert_eq!(place("/token"), (vec![], "token".to_owned()));
    }

    #[test]
    fn the_root_ends_before_the_first_placeholder() {
        for (pattern, root) in [
            ("/run/renewd/tokens/{name}.json", "/run/renewd/tokens"),
            ("/srv/{resource}/a/{name}", "/srv"),
            ("/srv/a-{name}/token", "/srv"),
            ("/token", "/"),
        ] {
            let parsed: PathPattern = pattern.parse().unwrap();
            assert_eq!(parsed.root(), PathBuf::from(root), "{pattern}");
            assert_eq!(parsed.to_string(), pattern);
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for bad in [
            "",
            "tokens/{name}",
            "/run/",
            "/run//x",
            "/run/../x",
            "/run/./x",
            "/run/{nam}",
            "/run/{name",
            "/run/name}",
            "/run/{}",
            "/run/a\0b",
        ] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad:?}");
        }
    }
}
