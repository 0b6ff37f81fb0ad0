//! A way to a server that loses things.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// How a proxy is now.
#[derive(Debug, Default)]
struct State {
    loses: Mutex<Option<Loses>>,
    /// Whether it lets nobody through.
    shut: AtomicBool,
    /// Whether what it takes goes nowhere, as with a frozen host.
    frozen: AtomicBool,
    /// What went nowhere on connections that it had, in bytes.
    swallowed: AtomicUsize,
}

/// What is lost at the next commit. Nothing more comes back on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loses {
    /// What the server says to it.
    Answer,
    /// The commit, on its way there.
    Commit,
}

/// Passes on what is said to a server in plain text, and what it says.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<State>,
    /// Kept open where nothing is passed on.
    _silent: Option<TcpListener>,
}

impl Proxy {
    /// One before a port of this machine.
    pub fn before(server: u16) -> Self {
        let (listener, port) = listener();
        let state = Arc::<State>::default();
        let its = state.clone();
        thread::spawn(move || {
            let mut unheard = Vec::new();
            for client in listener.incoming().filter_map(Result::ok) {
                if its.shut.load(Ordering::SeqCst) {
                    continue;
                }
                if its.frozen.load(Ordering::SeqCst) {
                    unheard.push(client);
                    continue;
                }
                if let Ok(to) = TcpStream::connect(("127.0.0.1", server)) {
                    pass(client, to, &its);
                }
            }
        });
        Self {
            port,
            state,
            _silent: None,
        }
    }

    /// One that takes connections and says nothing, as a frozen host does.
    pub fn silent() -> Self {
        let (listener, port) = listener();
        Self {
            port,
            state: Arc::default(),
            _silent: Some(listener),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Loses something at the next commit.
    pub fn lose(&self, what: Loses) {
        *self.state.loses.lock().unwrap() = Some(what);
    }

    /// Whether it has happened.
    pub fn has_lost(&self) -> bool {
        self.state.loses.lock().unwrap().is_none()
    }

    /// Whether new connections are closed at once.
    pub fn shut(&self, shut: bool) {
        self.state.shut.store(shut, Ordering::SeqCst);
    }

    /// From now on it takes what is said, and says nothing.
    pub fn freeze(&self) {
        self.state.frozen.store(true, Ordering::SeqCst);
    }

    /// How many bytes it has taken since it is frozen, on connections that it had.
    pub fn swallowed(&self) -> usize {
        self.state.swallowed.load(Ordering::SeqCst)
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn pass(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let deaf = Arc::new(AtomicBool::new(false));
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (its, is_deaf) = (state.clone(), deaf.clone());
    thread::spawn(move || {
        let mut bytes = [0; 65536];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            if its.frozen.load(Ordering::SeqCst) {
                its.swallowed.fetch_add(length, Ordering::SeqCst);
                continue;
            }
            let commits = bytes[..length].windows(6).any(|word| word == b"COMMIT");
            let lost = its.loses.lock().unwrap().take_if(|_| commits);
            if lost.is_some() {
                is_deaf.store(true, Ordering::SeqCst);
            }
            if lost != Some(Loses::Commit) && to.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Both).ok();
    });
    let (mut from, mut to, its) = (server, client, state.clone());
    thread::spawn(move || {
        let mut bytes = [0; 65536];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            let says = !deaf.load(Ordering::SeqCst) && !its.frozen.load(Ordering::SeqCst);
            if says && to.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        if !deaf.load(Ordering::SeqCst) {
            to.shutdown(Shutdown::Both).ok();
        }
    });
}
