//! Reads the secrets that the configuration refers to, at load and again when asked.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{Environment, LoadedSecret, SecretRef, read_regular};
use crate::model::{NotText, Secret, text_of};

/// No secret is larger.
const LARGEST: u64 = 64 << 10;

/// Why a secret cannot be read. It names where the secret lies, never what it is.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// It is a directory, a pipe, a device.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// Nothing is in it.
    #[error("{0} is empty")]
    Empty(String),
    /// It is too large for a secret.
    #[error("{0} is larger than 64 KiB, so it is hardly a secret")]
    TooLarge(PathBuf),
    /// It is a certificate, or a PFX with its key, in the form of bytes.
    #[error("{0} holds bytes of DER or PKCS#12 (a PFX), not PEM, which is text")]
    Der(PathBuf),
    /// It is no text.
    #[error("{path} is not text that can be read: {reason}", path = .0.display(), reason = .1)]
    NotText(PathBuf, NotText),
    /// There are no credentials.
    #[error("there is no credential {0:?}: $CREDENTIALS_DIRECTORY is not set")]
    NoCredentials(String),
    /// This credential was not passed.
    #[error("there is no credential {0:?} in $CREDENTIALS_DIRECTORY")]
    NoCredential(String),
    /// This variable was not passed.
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
}

/// How a PFX becomes PEM.
pub(super) const FROM_PFX: &str = "from a PFX: openssl pkcs12 -in NAME.pfx -out NAME.pem -nodes (with -legacy too where it says \"unsupported\")";

impl SecretError {
    /// What an operator can do about it.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("the daemon's own user must be able to read it".to_owned())
            }
            Self::File { .. } => {
                Some("a relative path starts at the directory of the configuration file".to_owned())
            }
            Self::NoCredentials(name) => Some(format!(
                "systemd sets it for a unit with LoadCredential={name}:/path/of/the/secret; to check by hand: CREDENTIALS_DIRECTORY=/directory/of/secrets renewd check"
            )),
            Self::NoCredential(name) => Some(format!(
                "add LoadCredential={name}:/path/of/the/secret to the unit, then restart it"
            )),
            Self::NoVariable(_) => Some("empty counts as not set".to_owned()),
            Self::Der(_) => Some(FROM_PFX.to_owned()),
            _ => None,
        }
    }
}

impl SecretError {
    /// The same without its place, where that may be the secret itself, written there by mistake.
    pub(super) fn without_its_place(&self) -> String {
        match self {
            Self::File { source, .. } => format!("cannot read the secret file: {source}"),
            Self::NotAFile(_) => "the secret file is not a regular file".to_owned(),
            Self::Empty(_) => "this secret is empty".to_owned(),
            Self::TooLarge(_) => "the secret file is larger than 64 KiB".to_owned(),
            Self::Der(_) => {
                "the secret file holds bytes of DER or PKCS#12 (a PFX), not PEM".to_owned()
            }
            Self::NotText(_, why) => format!("the secret is not text that can be read: {why}"),
            Self::NoCredentials(_) => {
                "there is no such credential: $CREDENTIALS_DIRECTORY is not set".to_owned()
            }
            Self::NoCredential(_) => {
                "there is no such credential in $CREDENTIALS_DIRECTORY".to_owned()
            }
            Self::NoVariable(_) => "this environment variable is not set".to_owned(),
        }
    }
}

/// Reads a secret again from where it lies: after it was rotated there, for instance.
///
/// # Errors
/// When it cannot be read; see [`SecretError`].
pub fn reload_secret(
    from: &SecretRef,
    environment: &Environment,
) -> Result<LoadedSecret, SecretError> {
    let secret = match from {
        SecretRef::File(path) => read(path)?,
        SecretRef::Credential(name) => {
            let directory = environment
                .directory("CREDENTIALS_DIRECTORY")
                .ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
            read(&directory.join(name)).map_err(|error| match error {
                SecretError::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    SecretError::NoCredential(name.clone())
                }
                other => other,
            })?
        }
        SecretRef::Env(name) => environment
            .variable(name)
            .map(|text| Zeroizing::new(text.into_bytes()))
            .ok_or_else(|| SecretError::NoVariable(name.clone()))
            .and_then(|bytes| text(&bytes, Path::new(name)))?,
    };
    Ok(LoadedSecret {
        from: from.clone(),
        secret,
    })
}

pub(super) fn read(path: &Path) -> Result<Secret, SecretError> {
    let cannot = |source| SecretError::File {
        path: path.to_owned(),
        source,
    };
    let meta = fs::metadata(path).map_err(cannot)?;
    if !meta.is_file() {
        return Err(SecretError::NotAFile(path.to_owned()));
    }
    if meta.len() > LARGEST {
        return Err(SecretError::TooLarge(path.to_owned()));
    }
    let bytes = Zeroizing::new(read_regular(path, LARGEST).map_err(cannot)?);
    text(&bytes, path)
}

/// The text without a byte order mark before it and one line end after it.
fn text(bytes: &[u8], path: &Path) -> Result<Secret, SecretError> {
    let text = text_of(bytes).map_err(|why| match bytes {
        [0x30, 0x80..=0x83, ..] => SecretError::Der(path.to_owned()),
        _ => SecretError::NotText(path.to_owned(), why),
    })?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(SecretError::Empty(path.display().to_string()));
    }
    Ok(Secret::new(text.to_owned()))
}

/// Why the access to a secret's file is too open, if it is; credentials are systemd's to guard.
pub(super) fn too_open(from: &SecretRef) -> Option<(String, String)> {
    let SecretRef::File(path) = from else {
        return None;
    };
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let (what, path) = match mode {
        _ if mode & 0o006 != 0 => ("every user of this machine", path.display()),
        _ if mode & 0o020 != 0 => ("its group, which may write to it,", path.display()),
        _ => return None,
    };
    Some((
        format!("the secret file {path} has mode {mode:04o}: it is open to {what}"),
        format!("chmod 0600 {path}, or 0640 with a group of the daemon's own"),
    ))
}

/// Whether a secret is `whsec_` and 24 to 64 bytes in standard, padded base64; if not, why not,
/// without showing it. Source: Standard Webhooks specification, "Signature scheme".
pub(super) fn check_webhook_secret(secret: &Secret) -> Result<(), String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let Some(encoded) = secret.expose().strip_prefix("whsec_") else {
        return Err("a webhook secret starts with whsec_; this one does not".to_owned());
    };
    let bytes = STANDARD
        .decode(encoded)
        .map(Zeroizing::new)
        .map_err(|_| "what follows whsec_ is not standard, padded base64".to_owned())?;
    if (24..=64).contains(&bytes.len()) {
        Ok(())
    } else {
        Err(format!(
            "a webhook secret has 24 to 64 bytes; this one has {}",
            bytes.len()
        ))
    }
}

/// Whether a text looks like a secret that stands where it does not belong: it has a word such as `accesskey`,
/// a URL's user or query, or a long run of capitals, letters and digits, and is no path of this machine. It decides
/// what is refused; what is shown does not rely on it.
pub(super) fn looks_secret(text: &str) -> bool {
    if is_path_here(text) {
        return false;
    }
    let lower = text.to_ascii_lowercase();
    let words = ["accesskey", "whsec_", "password", "sharedaccess", "bearer "];
    let in_run = |c: char| c.is_ascii_alphanumeric() || "+=".contains(c);
    let authority = lower.find("://").is_some_and(|at| {
        let rest = &lower[at + 3..];
        let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        host.find('@').is_some_and(|at| at > 0) || !rest.ends_with('?') && rest.contains('?')
    });
    words.iter().any(|word| lower.contains(word))
        || authority
        || text.split(|c| !in_run(c)).any(is_random)
}

/// Whether something lies at this absolute path, or could in a folder that is there; whatever its names look like. The
/// root alone says nothing: a key in base64 may begin with a slash.
fn is_path_here(text: &str) -> bool {
    let path = Path::new(text);
    let folder = path.parent().filter(|folder| folder.parent().is_some());
    path.is_absolute() && (folder.is_some_and(Path::is_dir) || path.symlink_metadata().is_ok())
}

fn is_random(word: &str) -> bool {
    let has = |test: fn(&u8) -> bool| word.bytes().any(|b| test(&b));
    let mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    (word.len() >= 20 && mixed && has(u8::is_ascii_digit))
        || (word.len() >= 40 && mixed)
        || (word.len() >= 32 && word.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_this_machine_is_no_secret_whatever_it_is_called() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("2aca9a1d4d784131aecab8e8cce541db");
        fs::create_dir(&folder).unwrap();
        let file = folder.join("password");
        let text = file.to_str().unwrap();
        assert!(!looks_secret(text), "it may come");
        fs::write(&file, "x").unwrap();
        assert!(!looks_secret(text));
        for other in [
            &format!("{text}/C2FVsBQIhrscChlQIMV"),
            "/C2FVsBQIhrscChlQIMV+b5sSYspob7oD=",
            "/no/such/folder/2aca9a1d4d784131aecab8e8cce541db",
            "2aca9a1d4d784131aecab8e8cce541db",
        ] {
            assert!(looks_secret(other), "{other}");
        }
    }

    #[test]
    fn webhook_secrets_are_judged_without_being_shown() {
        let judge = |text: &str| check_webhook_secret(&Secret::new(text.to_owned()));
        assert_eq!(judge("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), Ok(()));
        assert_eq!(
            judge("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
            Ok(())
        );
        for bad in [
            "",
            "whsec_",
            "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
            "whsec_C2FVsBQIhrscChlQIMV-b5sSYspob7oD",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRY=",
        ] {
            let why = judge(bad).unwrap_err();
            assert!(bad.len() < 10 || !why.contains(&bad[8..]), "{why}");
        }
    }

    #[test]
    fn one_line_end_is_taken_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let environment = Environment::given([("KEY", "from env")], "h", true);
        for (content, expected) in [
            ("a b", "a b"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            (" a \n", " a "),
            ("\u{feff}a\r\n", "a"),
        ] {
            fs::write(&path, content).unwrap();
            let loaded = reload_secret(&SecretRef::File(path.clone()), &environment).unwrap();
            assert_eq!(loaded.secret.expose(), expected);
        }
        let env = reload_secret(&SecretRef::Env("KEY".into()), &environment).unwrap();
        assert_eq!(env.secret.expose(), "from env");
        for content in [&b""[..], b"\n", b"\xff"] {
            fs::write(&path, content).unwrap();
            assert!(reload_secret(&SecretRef::File(path.clone()), &environment).is_err());
        }
        let pipe = SecretRef::File("/dev/null".into());
        assert!(matches!(
            reload_secret(&pipe, &environment),
            Err(SecretError::NotAFile(_))
        ));
    }
}
