//! The listeners: binds what the configuration says and serves it until told to stop. The local socket takes the
//! place of a dead daemon's file, never of a living one's.

use std::{
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener as StdUnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Seats, SlotLimits},
    guard::Listener,
    handle::{Api, Unbound},
    local, public,
    serve::{serve_tcp, serve_unix},
    watch,
};
use crate::{
    config::DaemonSettings,
    model::{Amiss, is_lasting},
};

/// Anyone may connect: who the peer is decides, not the file.
const MODE: u32 = 0o666;
/// As the unit makes its runtime folder: anyone may pass through and nobody else lists it.
const FOLDER_MODE: u32 = 0o711;
/// A living daemon accepts within this.
const ANSWER: Duration = Duration::from_secs(2);

/// Why a listener could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody answers on the socket.
    #[error("a daemon already answers on {}; stop it, or set another [daemon] socket", path.display())]
    Taken { path: PathBuf },
    /// Something else lies there.
    #[error("{} is in the way: it is not a socket; move it away, or set another [daemon] socket", path.display())]
    InTheWay { path: PathBuf },
    /// The socket cannot be made in its folder.
    #[error("[daemon] socket: {} cannot be made: {}", path.display(), advice(path, source))]
    Socket { path: PathBuf, source: io::Error },
    /// What the service manager passed cannot be listened on.
    #[error("the socket that the service manager passed cannot be listened on: {0}")]
    Passed(#[source] io::Error),
}

impl ListenError {
    /// Whether only a person can mend it; a daemon that answers there may end by itself.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Taken { .. } | Self::Passed(_) => false,
            Self::InTheWay { .. } => true,
            Self::Socket { source, .. } => is_lasting(source),
        }
    }
}

/// What is wrong with the folder, and what can be done.
fn advice(path: &Path, source: &io::Error) -> String {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let folder = parent.display();
    let user = rustix::process::geteuid().as_raw();
    match source.kind() {
        io::ErrorKind::NotFound => format!(
            "the folder {folder} does not exist, nor does the one above it; make it for the user of renewd (uid {user}), \
             or set another path"
        ),
        io::ErrorKind::NotADirectory => {
            format!("{folder} is not a folder; set another path")
        }
        io::ErrorKind::PermissionDenied if parent.exists() => format!(
            "the folder {folder} may not be written by uid {user}; give it to that user, or set another path"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "the folder {folder} does not exist and may not be made by uid {user}; make it for that user, or set \
             another path"
        ),
        io::ErrorKind::ReadOnlyFilesystem => format!(
            "the folder {folder} is read-only for renewd; set a path below /run/renewd, or open the folder in a \
             drop-in of the unit (ReadWritePaths=)"
        ),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => format!(
            "its {} bytes are too long for a Unix socket, which takes 107; set a shorter path",
            path.as_os_str().len()
        ),
        _ => source.to_string(),
    }
}

/// The bound socket; its file goes when this does, if we made it.
#[derive(Debug)]
pub(super) struct BoundSocket {
    pub listener: Arc<UnixListener>,
    /// The file, by device and inode, if we made it.
    ours: Option<(PathBuf, (u64, u64))>,
    /// The file that the service manager made.
    passed: Option<(PathBuf, (u64, u64))>,
}

/// Takes a socket over that the service manager holds open, and whose file is its own.
pub(super) fn take_over(
    socket: std::os::unix::net::UnixListener,
) -> Result<BoundSocket, ListenError> {
    let address = socket.local_addr().ok();
    let path = address.and_then(|address| address.as_pathname().map(Path::to_owned));
    Ok(BoundSocket {
        listener: Arc::new(UnixListener::from_std(socket).map_err(ListenError::Passed)?),
        ours: None,
        passed: path.and_then(|path| Some((path.clone(), place(&path).ok()?))),
    })
}

/// Binds the socket at `path` with mode 0666, in a folder that is made where it is missing.
pub(super) async fn bind(path: &Path) -> Result<BoundSocket, ListenError> {
    make_folder(path)?;
    clear_the_way(path).await?;
    let made = || {
        let listener = UnixListener::bind(path)?;
        rustix::net::listen(&listener, QUEUE)?;
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        Ok((listener, place(path)?))
    };
    match made() {
        Ok((listener, place)) => Ok(BoundSocket {
            listener: Arc::new(listener),
            ours: Some((path.to_owned(), place)),
            passed: None,
        }),
        Err(source) => Err(ListenError::Socket {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The folder of the socket, where it is missing and what is above it is there: callers pass through it, and
/// see nothing in it but what they know by name.
fn make_folder(path: &Path) -> Result<(), ListenError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = fs::create_dir(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER_MODE)));
    match made {
        Ok(()) => {
            tracing::info!(folder = %folder.display(), "the folder of the local socket is made");
            Ok(())
        }
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // Whether it matters shows when the socket is made: the folder may be there and closed to us.
        Err(_) if folder.exists() => Ok(()),
        Err(source) => Err(ListenError::Socket {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Device and inode of a file.
fn place(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

impl BoundSocket {
    /// Looks whether callers still reach us by the file. One of ours that is gone is made again, which
    /// `made` is told of; what is wrong otherwise, in a sentence.
    pub(super) async fn look_after(
        &mut self,
        made: &mut (dyn FnMut(Arc<UnixListener>) + Send),
    ) -> Option<String> {
        let (path, known, is_ours) = match (&self.ours, &self.passed) {
            (Some((path, known)), _) => (path.clone(), *known, true),
            (None, Some((path, known))) => (path.clone(), *known, false),
            (None, None) => return None,
        };
        let shown = path.display();
        match place(&path) {
            Ok(found) if found == known => None,
            Ok(_) => Some(format!(
                "another file lies at {shown} than the socket that renewd listens on, so nobody reaches renewd there: \
                 remove it if it is not wanted"
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_ours => {
                match bind(&path).await {
                    Ok(new) => {
                        tracing::warn!("the socket {shown} was gone and is made again");
                        made(Arc::clone(&new.listener));
                        *self = new;
                        None
                    }
                    Err(error) => Some(format!(
                        "the socket {shown} is gone and cannot be made again: {error}"
                    )),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!(
                "the socket {shown} is gone, and the service manager holds it: restart the socket unit and renewd"
            )),
            Err(error) => Some(format!("the socket {shown} cannot be looked at: {error}")),
        }
    }
}

/// Removes a socket file on which nobody answers.
async fn clear_the_way(path: &Path) -> Result<(), ListenError> {
    let path = path.to_owned();
    let kind = match fs::symlink_metadata(&path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ListenError::Socket { path, source }),
    };
    if !kind.is_socket() {
        return Err(ListenError::InTheWay { path });
    }
    match timeout(ANSWER, UnixStream::connect(&path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A full queue of a daemon that does not accept is a daemon all the same.
        Ok(Ok(_)) | Err(_) => return Err(ListenError::Taken { path }),
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(ListenError::Taken { path });
        }
        Ok(Err(source)) => return Err(ListenError::Socket { path, source }),
    }
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ListenError::Socket { path, source })
        }
        _ => Ok(()),
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let Some((path, known)) = &self.ours else {
            return;
        };
        let ours = place(path).is_ok_and(|found| found == *known);
        if ours && let Err(error) = fs::remove_file(path) {
            tracing::debug!(path = %path.display(), %error, "the socket file stays behind");
        }
    }
}

/// Between two looks at the file of the local socket.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Callers who may wait to be taken in; the system's own bound is the same (net.core.somaxconn).
const QUEUE: i32 = 4096;
/// The same over TCP: whoever finds the line full comes again a second later, and a long one takes long.
const TCP_QUEUE: i32 = 512;
/// Between two attempts to listen on a TCP address that was refused.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// Bound, and not yet served: callers wait in the queue meanwhile.
#[derive(Debug)]
pub struct Listeners {
    socket: BoundSocket,
    tcp: Tcp,
}

/// TCP, which carries health, metrics and the page: no token waits for it, so that a start does not
/// either.
#[derive(Debug)]
enum Tcp {
    Off,
    Bound(TcpListener),
    Refused {
        address: SocketAddr,
        source: io::Error,
    },
}

impl Listeners {
    /// Binds the local socket and, where one is set, the TCP address; or takes what the service
    /// manager holds open (`socket`, `listen`) in place of either.
    pub async fn bind(
        daemon: &DaemonSettings,
        (socket, listen): (Option<StdUnixListener>, Option<std::net::TcpListener>),
    ) -> Result<Self, ListenError> {
        let tcp = match (listen, daemon.listen) {
            (Some(listen), _) => {
                Tcp::Bound(TcpListener::from_std(listen).map_err(ListenError::Passed)?)
            }
            (None, Some(address)) => match listening(address).await {
                Ok(tcp) => Tcp::Bound(tcp),
                Err(source) => Tcp::Refused { address, source },
            },
            (None, None) => Tcp::Off,
        };
        let socket = match socket {
            Some(socket) => take_over(socket)?,
            None => bind(&daemon.socket).await?,
        };
        Ok(Self { socket, tcp })
    }

    /// Where TCP is listened on, with the port that was found for port 0.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.tcp {
            Tcp::Bound(tcp) => tcp.local_addr().ok(),
            Tcp::Off | Tcp::Refused { .. } => None,
        }
    }

    /// Serves until `stop`; long polls are then answered at once.
    pub async fn serve(self, api: Api, stop: CancellationToken) -> Result<(), Infallible> {
        let api = Api {
            stop: stop.clone(),
            ..api
        };
        let Self { socket, tcp } = self;
        let local = local::router(api.clone());
        let telling = watch::run(api.clone(), stop.clone());
        let on_socket = serve_socket(socket, &api, local, &stop);
        let on_tcp = async {
            let Some(tcp) = tcp.bound(&api, &stop).await else {
                return;
            };
            let loopback = tcp
                .local_addr()
                .is_ok_and(|address| address.ip().is_loopback());
            let listener = if loopback {
                Listener::Loopback
            } else {
                Listener::Network
            };
            serve_tcp(&tcp, public::router(api.clone(), listener), stop.clone()).await;
        };
        let counting = api.reads.keep(&api.store, stop.clone());
        tokio::join!(on_socket, on_tcp, telling, counting);
        api.reads.write(&api.store).await;
        Ok(())
    }
}

/// Serves the local socket, and looks after its file: one that is gone is made again, while those who
/// are connected by the old one go on.
async fn serve_socket(
    mut socket: BoundSocket,
    api: &Api,
    router: Router,
    stop: &CancellationToken,
) {
    let mut serving = FuturesUnordered::new();
    let seats = Seats::new(SlotLimits::SOCKET);
    let served = |listener: Arc<UnixListener>| {
        let (seats, router, stop) = (seats.clone(), router.clone(), stop.clone());
        async move { serve_unix(&listener, (api, &seats), router, stop).await }
    };
    serving.push(served(Arc::clone(&socket.listener)));
    loop {
        tokio::select! {
            biased;
            ended = serving.next() => if ended.is_none() { return },
            () = tokio::time::sleep(LOOK_AGAIN), if !stop.is_cancelled() => {
                let before = api.socket.borrow().clone();
                let amiss = socket.look_after(&mut |new| serving.push(served(new))).await;
                let now = Amiss::still(amiss, before.as_ref(), api.clock.now());
                if now != before {
                    match &now {
                        Some(amiss) => tracing::error!("{}", amiss.what),
                        None => tracing::info!("the local socket can be reached again"),
                    }
                    api.socket.send_replace(now);
                }
            }
        }
    }
}

/// Listens on an address. Callers who come faster than they are taken in wait.
async fn listening(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    rustix::net::listen(&listener, TCP_QUEUE)?;
    Ok(listener)
}

impl Tcp {
    /// The listener; where the address was refused it is tried again, and everybody who looks is
    /// told why, until it binds. `None` where TCP is off, or when `stop` comes first.
    async fn bound(self, api: &Api, stop: &CancellationToken) -> Option<TcpListener> {
        let (address, source) = match self {
            Self::Off => return None,
            Self::Bound(tcp) => return Some(tcp),
            Self::Refused { address, source } => (address, source),
        };
        tracing::error!(
            %address, error = %source,
            "[daemon] listen cannot be listened on; tokens are kept fresh all the same, and it is tried again every 5 s"
        );
        api.unbound
            .send_replace(Some(Unbound::new(address, &source)));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(BIND_AGAIN) => {}
            }
            match listening(address).await {
                Ok(tcp) => {
                    tracing::info!(%address, "[daemon] listen is listened on now");
                    api.unbound.send_replace(None);
                    return Some(tcp);
                }
                Err(source) => {
                    api.unbound
                        .send_replace(Some(Unbound::new(address, &source)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let dead = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(dead);
        let bound = bind(&path).await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        assert!(matches!(bind(&path).await, Err(ListenError::Taken { .. })));
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(
            bind(&path).await,
            Err(ListenError::InTheWay { .. })
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let nowhere = folder.path().join("no/where/s");
        assert!(matches!(
            bind(&nowhere).await,
            Err(ListenError::Socket { .. })
        ));
    }

    #[tokio::test]
    async fn the_folder_of_the_socket_is_made_where_it_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/s");
        let bound = bind(&path).await.unwrap();
        let made = fs::metadata(folder.path().join("run")).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o711);
        assert_eq!(made.uid(), rustix::process::geteuid().as_raw());
        drop(bound);
        fs::set_permissions(folder.path().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
        let _bound = bind(&path).await.unwrap();
        let kept = fs::metadata(folder.path().join("run")).unwrap();
        assert_eq!(
            kept.permissions().mode() & 0o7777,
            0o755,
            "one that is there stays as it is"
        );
    }

    #[tokio::test]
    async fn a_successor_keeps_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let _second = bind(&path).await.unwrap();
        drop(first);
        assert!(path.exists());
    }
}
