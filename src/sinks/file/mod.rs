//! Token files: one per identity, or one for all of a sink's, complete at every instant, readable by
//! exactly whom they are for; what one holds, by format; and why one is not as it should be, with what an
//! operator can do about it.
//!
//! A file is never changed in place, unless the operator says so. Its successor is written beside it
//! under a temporary name, with its final access, flushed, and renamed over it; so a reader sees the
//! old file or the new one, and a full disk or a power cut leaves the old one. No symbolic link is
//! followed on the way.

mod access;
mod batch;
mod path;
mod replace;
pub(super) mod template;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use self::{
    access::{Access, Readers},
    batch::{FileQueue, QueuedFile},
    replace::{Folder, Missing},
    template::Renderer,
};
use super::{DeliveryOutcome, Receipt, SinkDelivery, SinkError};
use crate::{
    config::{FileFormat, FileSinkSettings, WriteMode},
    model::{
        Name, Placed, Reader, ResourceName, Scope, Secret, State, TokenDocument, whole_seconds,
    },
    pool, sandbox,
};

pub use path::{PathError, PathPattern};
pub use replace::TakenBack;
pub use replace::{remove_private, write_private};
pub use template::TemplateError;

/// Threads that work on the files of one sink: where they hang, other sinks go on.
const AT_ONCE: usize = 4;

/// A sink that keeps one file per identity.
#[derive(Debug, Clone)]
pub struct FileSink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathPattern,
    format: Format,
    mode: u32,
    owner: Option<Reader>,
    group: Option<Reader>,
    is_bundle: bool,
    /// Who may read a bundle, if the operator said so.
    bundle_readers: Option<Vec<Reader>>,
    write: WriteMode,
    readers: Readers,
    /// Whether to work on the calling thread, as simulated time demands.
    inline: bool,
    turns: Arc<Semaphore>,
    queue: FileQueue,
}

impl FileSink {
    /// Makes the sink; `inline` keeps its work on the calling thread.
    ///
    /// # Errors
    /// When the path or the template cannot be used.
    pub fn new(settings: &FileSinkSettings, inline: bool) -> Result<Self, SinkError> {
        let format = match settings.format {
            FileFormat::Json => Format::Json,
            FileFormat::Token => Format::Token,
            FileFormat::Env => Format::Env,
            FileFormat::Template => {
                let text = settings
                    .template
                    .as_ref()
                    .map_or("", |template| &template.text);
                Format::Template(Renderer::new(text)?)
            }
        };
        Ok(Self(Arc::new(Inner {
            path: settings.path.parse()?,
            format,
            mode: settings.mode,
            owner: settings.owner.clone().map(Reader::User),
            group: settings.group.clone().map(Reader::Group),
            is_bundle: settings.bundle,
            bundle_readers: settings.readers.clone(),
            write: settings.write,
            readers: Readers::default(),
            inline,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            queue: FileQueue::default(),
        })))
    }

    /// Makes the file hold what the document says, or removes it; together with others that wait for the same folder.
    ///
    /// # Errors
    /// When it does not hold that now; the old file is untouched.
    pub async fn deliver(
        &self,
        delivery: SinkDelivery,
        now: Timestamp,
    ) -> Result<Receipt, FileError> {
        let mut queued = QueuedFile::new(&self.0, delivery, now);
        let number = queued.number;
        tokio::select! {
            biased;
            ended = queued.ended() => return ended,
            () = self.on_disk(move |sink| sink.write_with(number)) => {}
        }
        queued.ended().await
    }

    /// Whether one file holds all identities of the sink; then [`FileSink::deliver_bundle`] is the
    /// verb.
    pub fn is_bundle(&self) -> bool {
        self.0.is_bundle
    }

    /// Makes the one file hold what these documents say, in the order of their names, or removes it.
    ///
    /// # Errors
    /// When it does not hold that now; the old file is untouched.
    pub async fn deliver_bundle(
        &self,
        members: Vec<SinkDelivery>,
        now: Timestamp,
    ) -> Result<Receipt, FileError> {
        self.on_disk(move |sink| sink.put_bundle(members, now))
            .await
    }

    /// Where the file of this identity lies, or the bundle.
    pub fn path_for(&self, name: &Name, resource: &ResourceName) -> PathBuf {
        let (folders, file) = self.0.path.place(name, resource);
        let mut path = PathBuf::from("/");
        path.extend(folders);
        path.join(file)
    }

    /// Whether there is nothing where the file of this identity, or the bundle, should lie.
    pub async fn lacks(&self, name: &Name, resource: &ResourceName) -> bool {
        let path = self.path_for(name, resource);
        let gone = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        self.on_disk(move |_| fs::symlink_metadata(&path).is_err_and(gone))
            .await
    }

    /// Whether there is a bundle, or something in its place.
    pub async fn has_bundle(&self) -> bool {
        let Some(path) = self.0.path.fixed() else {
            return false;
        };
        self.on_disk(move |_| fs::symlink_metadata(&path).is_ok())
            .await
    }

    /// Whether every identity's file, or the bundle, lies at this path.
    pub fn is_fixed_at(&self, path: &Path) -> bool {
        self.0.path.fixed() == Some(path.to_owned())
    }

    /// Removes a file that a sink once wrote, if it still holds what was written.
    ///
    /// # Errors
    /// When it is still there, or cannot be looked at.
    pub async fn take_back(placed: Placed, inline: bool) -> Result<TakenBack, FileError> {
        on_disk(inline, move || replace::take_back(&placed)).await
    }

    /// Removes the file of an identity.
    ///
    /// # Errors
    /// When it is still there.
    pub async fn withdraw(
        &self,
        name: &Name,
        resource: &ResourceName,
    ) -> Result<DeliveryOutcome, FileError> {
        let (folders, file) = self.0.path.place(name, resource);
        let removed = self.on_disk(move |sink| sink.remove(&folders, &file));
        removed.await.map(|receipt| receipt.outcome)
    }

    /// Writes a file that is only a test, where the real ones lie and by the same recipe, and removes
    /// it again. It has a name that no reader knows and that a sweep removes.
    ///
    /// # Errors
    /// When a real file could not have been written either.
    pub async fn try_out(
        &self,
        document: Arc<TokenDocument>,
    ) -> Result<DeliveryOutcome, FileError> {
        self.on_disk(move |sink| sink.try_out(&document)).await
    }

    /// The path with its placeholders.
    pub fn target(&self) -> String {
        self.0.path.to_string()
    }

    /// Removes the temporary files that a killed process left behind, and tells how many.
    ///
    /// # Errors
    /// When a folder cannot be searched.
    pub async fn sweep(&self) -> Result<usize, FileError> {
        self.on_disk(|sink| replace::sweep(&sink.path)).await
    }

    /// Files block, so in production they are written on threads made for that.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> T {
        let inner = Arc::clone(&self.0);
        let turn = Arc::clone(&self.0.turns).acquire_owned().await;
        on_disk(self.0.inline, move || {
            let _turn = turn;
            work(&inner)
        })
        .await
    }
}

async fn on_disk<T: Send + 'static>(inline: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
    if inline {
        return work();
    }
    match pool::FILES.run(work).await {
        Ok(done) => done,
        // A panic goes on where it would have without the thread. Nothing else ends such work early
        // but the end of the runtime, and then nobody waits for this.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

impl Inner {
    fn put(&self, delivery: &SinkDelivery, now: Timestamp) -> Result<Receipt, FileError> {
        let document = &delivery.document;
        let content = self.format.one(document)?;
        let place = self.path.place(&document.name, &document.resource);
        self.keep(content, &place, &delivery.readers, now)
    }

    /// Writes and removes a file by the same recipe as the real ones.
    fn try_out(&self, document: &TokenDocument) -> Result<DeliveryOutcome, FileError> {
        let content = match self.is_bundle {
            true => self.format.many(&[document])?,
            false => self.format.one(document)?,
        };
        let Content::Bytes(bytes) = content else {
            return Ok(DeliveryOutcome::Unchanged);
        };
        let folders = self.path.folders_before_name(&document.resource);
        let Some(folder) = Folder::open(&folders, Missing::Create)? else {
            return Ok(DeliveryOutcome::Unchanged);
        };
        let file = replace::temporary_name(document.name.as_str());
        let access = self.access(&[], document.issued_at.unwrap_or_default())?;
        replace::replace(&folder, &file, &bytes, &access)?;
        replace::remove(&folder, &file)?;
        Ok(DeliveryOutcome::Written)
    }

    fn put_bundle(
        &self,
        mut members: Vec<SinkDelivery>,
        now: Timestamp,
    ) -> Result<Receipt, FileError> {
        members.sort_by(|a, b| a.document.name.cmp(&b.document.name));
        let documents: Vec<&TokenDocument> =
            members.iter().map(|member| &*member.document).collect();
        let content = self.format.many(&documents)?;
        let readers = match &self.bundle_readers {
            Some(readers) => readers.clone(),
            None => readers_of_all(&members),
        };
        self.keep(content, &self.path.fixed_place(), &readers, now)
    }

    /// Makes the file at this place hold the content.
    fn keep(
        &self,
        content: Content,
        (folders, file): &(Vec<String>, String),
        readers: &[Reader],
        now: Timestamp,
    ) -> Result<Receipt, FileError> {
        let Content::Bytes(bytes) = content else {
            return self.remove(folders, file);
        };
        let access = self.access(readers, now)?;
        let Some(folder) = Folder::open(folders, Missing::Create)? else {
            return Ok(Receipt::from(DeliveryOutcome::Unchanged));
        };
        let outcome = if replace::holds(&folder, file, &bytes, &access) {
            DeliveryOutcome::Unchanged
        } else {
            match self.write {
                WriteMode::Replace => replace::replace(&folder, file, &bytes, &access)?,
                WriteMode::InPlace => replace::overwrite(&folder, file, &bytes, &access)?,
            }
            DeliveryOutcome::Written
        };
        Ok(receipt(outcome, &folder, file, &bytes))
    }

    fn access(&self, readers: &[Reader], now: Timestamp) -> Result<Access, FileError> {
        let number = |who: &Option<Reader>| {
            let number = who.as_ref().map(|who| self.readers.number(who, now));
            number.transpose()
        };
        Ok(Access::new(
            self.mode,
            self.readers.resolve(readers, now)?,
            number(&self.owner)?,
            number(&self.group)?,
        ))
    }

    fn remove(&self, folders: &[String], file: &str) -> Result<Receipt, FileError> {
        let Some(folder) = Folder::open(folders, Missing::Leave)? else {
            return Ok(Receipt::from(DeliveryOutcome::Unchanged));
        };
        let is_changed = match self.write {
            WriteMode::Replace => replace::remove(&folder, file)?,
            WriteMode::InPlace => replace::empty(&folder, file)?,
        };
        let outcome = if is_changed {
            DeliveryOutcome::Removed
        } else {
            DeliveryOutcome::Unchanged
        };
        Ok(match self.write {
            WriteMode::Replace => Receipt::from(outcome),
            WriteMode::InPlace => receipt(outcome, &folder, file, b""),
        })
    }
}

fn receipt(outcome: DeliveryOutcome, folder: &Folder, file: &str, bytes: &[u8]) -> Receipt {
    let placed = Placed {
        path: folder.path_of(file),
        digest: Sha256::digest(bytes).into(),
    };
    Receipt {
        outcome,
        placed: Some(placed),
    }
}

/// A bundle shows every token in it, so only those may read it who may read each of them.
fn readers_of_all(members: &[SinkDelivery]) -> Vec<Reader> {
    let Some((first, others)) = members.split_first() else {
        return Vec::new();
    };
    let may_read_all =
        |reader: &&Reader| others.iter().all(|other| other.readers.contains(*reader));
    first.readers.iter().filter(may_read_all).cloned().collect()
}

/// Whether a file sink keeps something on disk for an identity in this state: JSON can say that a token
/// is withheld, other formats cannot.
fn keeps_file(is_json: bool, state: State) -> bool {
    match state {
        State::Active | State::Late => true,
        State::Held => is_json,
        State::New | State::Gone | State::Deleted => false,
    }
}

/// Why a file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot {doing} {}: {source}{}", path.display(), advice(*source))]
    Io {
        /// What was being done, as in "cannot … PATH".
        doing: &'static str,
        path: PathBuf,
        source: Errno,
    },
    /// A symbolic link stands in the way.
    #[error("{} is a symbolic link, and none is followed on the way to a token file; configure the path that it leads to", .0.display())]
    Symlink(PathBuf),
    /// Something else than a folder stands in the way.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Anyone could swap the file for another.
    #[error("every user may write to {}, so anyone could replace token files; run chmod o-w on it or choose another folder", .0.display())]
    WritableByOthers(PathBuf),
    /// A reader that the system does not know.
    #[error("the reader {0} is not known on this system; add it or correct `readers`")]
    UnknownReader(Reader),
    /// It cannot be given to its owner or group.
    #[error("cannot give {} to its owner and group: {source}; {}", path.display(), chown_advice())]
    Ownership { path: PathBuf, source: Errno },
    /// Somebody is to lose access to a file that cannot be replaced.
    #[error("{} may be read by somebody who is no reader any more and may have it open, and it cannot be replaced, since something is mounted on it; take the mount away, or, where nobody has it open, give it its new mode, ACL and owner yourself", .0.display())]
    Kept(PathBuf),
    /// Something else than a file lies there.
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    /// It may be another file of ours.
    #[error("{} has another name (a hard link), and others may write to its folder, so what is written into it could change another file; remove it, and renewd makes it anew", .0.display())]
    Linked(PathBuf),
    /// Readers cannot be granted there.
    #[error("the file system of {} keeps no POSIX ACLs, so no reader can be granted; choose one that does, such as tmpfs, ext4 or xfs", .0.display())]
    NoAcl(PathBuf),
    /// The format cannot hold the value.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// What an operator can do about the errors that have one cause.
fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ROFS => "; under the shipped unit a drop-in with ReadWritePaths= opens the folder",
        Errno::NOSPC | Errno::DQUOT => "; the file is as it was, free some space",
        Errno::ACCESS | Errno::PERM => "; the daemon's user needs write access to the folder",
        Errno::BUSY => {
            "; something is mounted on it: mount its folder instead, or set write = \"in-place\" for this sink"
        }
        _ => "",
    }
}

fn chown_advice() -> String {
    format!(
        "the daemon needs CAP_CHOWN for `owner`, and for a `group` that it is not in; under the shipped unit {}",
        sandbox::remedy(&sandbox::CHOWN)
    )
}

/// Why a format cannot hold a document. It names the field, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No way of writing it is read alike by shells, systemd and dotenv libraries.
    #[error(
        "the env format cannot hold the {key} of this identity: it has a character that its readers take differently; use format = \"json\""
    )]
    Env { key: &'static str },
    /// The template does not take it.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// What belongs into the file.
#[derive(Debug)]
enum Content {
    Bytes(Zeroizing<Vec<u8>>),
    /// There should be no file.
    Nothing,
}

/// How documents become bytes.
#[derive(Debug)]
enum Format {
    /// The token document, or an object of them.
    Json,
    Token,
    /// `KEY='value'` lines.
    Env,
    /// Whatever the operator wants.
    Template(Renderer),
}

impl Format {
    /// What the file of an identity holds at this document.
    fn one(&self, document: &TokenDocument) -> Result<Content, FormatError> {
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
    fn many(&self, documents: &[&TokenDocument]) -> Result<Content, FormatError> {
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
