//! `[daemon]`: where the process lives and who may control it.
//!
//! `[store]`: the database, its key, and how long the audit trail stays.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    super::{
        DaemonSettings, DatabaseSettings, Environment, HeartbeatSettings, Owner, StorePlace,
        StoreSettings,
        keys::{
            DAY, HOUR,
            Preset::{Is, Nothing, Required, Said},
            Table, Takes, key,
        },
        quantity::shown,
        reader::{Item, Section},
    },
    references,
};
use crate::model::Name;

pub(super) static DAEMON: Table = Table {
    name: "daemon",
    header: "[daemon]",
    says: "",
    groups: &[&[
        key(
            "state_dir",
            Takes::Path,
            Said(
                "$STATE_DIRECTORY, which systemd sets; else /var/lib/renewd, or for an ordinary user $XDG_STATE_HOME/renewd.",
            ),
            "\"/var/lib/renewd\"",
            "What must survive: the database, its key, the map of ids.",
        )
        .restart(),
        key(
            "listen",
            Takes::Text,
            Is("\"127.0.0.1:9847\""),
            "\"127.0.0.1:9847\"",
            "Where health, metrics and the page are served over TCP; no secret ever is. \"\" turns it off. A port that is taken stops nothing: `status` says so, and it is tried again every 5 s.",
        )
        .quoted()
        .restart(),
        key(
            "socket",
            Takes::Path,
            Said(
                "renewd.sock in $RUNTIME_DIRECTORY, which systemd sets; else in /run/renewd, or for an ordinary user in $XDG_RUNTIME_DIR/renewd.",
            ),
            "\"/run/renewd/renewd.sock\"",
            "The local socket: `renewd token NAME`, and control for admins. At most 107 bytes. Its folder is made where it is missing. --socket and RENEWD_SOCKET come before it.",
        )
        .restart(),
        key(
            "instance",
            Takes::Text,
            Said("the host's name"),
            "\"web-1\"",
            "This daemon's name in the `source` of events. Where it is set, the store belongs to it: under another name nothing is done before `renewd store adopt`.",
        )
        .quoted()
        .restart(),
        key(
            "admins",
            Takes::Accounts,
            Is("[]"),
            "[\"group:ops\"]",
            "Who may control it besides root and the daemon's own user: users, and groups as \"group:NAME\".",
        ),
        key(
            "page_names",
            Takes::Boolean,
            Is("false"),
            "false",
            "Whether the page shows names of identities.",
        ),
        key(
            "heartbeat",
            Takes::Table(&HEARTBEAT),
            Nothing,
            "{ url = { file = \"/etc/renewd/ping\" }, every = \"1m\" }",
            "Asks an address (healthchecks.io and its kin) every so often, as long as nothing holds for which a person should be woken, and every loop decides: whoever listens there wakes somebody when nothing comes. The address is a secret.",
        )
        .commented(),
    ]],
};

pub(super) static HEARTBEAT: Table = Table {
    name: "daemon.heartbeat",
    header: "`heartbeat`",
    says: "",
    groups: &[&[
        key(
            "url",
            Takes::Secret,
            Required,
            "{ file = \"/etc/renewd/ping\" }",
            "",
        ),
        key(
            "every",
            Takes::Duration(1, HOUR),
            Is("\"1m\""),
            "\"1m\"",
            "",
        ),
    ]],
};

/// The path of a Unix socket must fit `sun_path` with its closing zero byte: unix(7).
const LONGEST_SOCKET_PATH: usize = 107;

/// Reads `[daemon]`, and whom a store would belong to.
pub(super) fn read(mut section: Section<'_>, environment: &Environment) -> (DaemonSettings, Owner) {
    let said = section.optional("instance").and_then(instance);
    let listen = SocketAddr::from(([127, 0, 0, 1], 9847));
    let declared = section.or("socket", environment.default_socket(), socket);
    let settings = DaemonSettings {
        state_dir: section.or("state_dir", environment.state_dir(), Item::path),
        listen: section.or("listen", Some(listen), address),
        socket: environment.named_socket().unwrap_or(declared),
        instance: said
            .clone()
            .unwrap_or_else(|| instance_of(environment.host())),
        admins: section.or("admins", Vec::new(), references::readers),
        page_names: section.boolean("page_names"),
        heartbeat: section
            .optional("heartbeat")
            .and_then(Item::section)
            .and_then(heartbeat),
    };
    section.finish();
    let owner = Owner {
        instance: said,
        machine: environment.machine(),
    };
    (settings, owner)
}

/// An https address, or http to this machine; errors never say it.
fn heartbeat(mut section: Section<'_>) -> Option<HeartbeatSettings> {
    let item = section.required("url");
    let every = section.duration("every");
    section.finish();
    let item = item?;
    let url = references::secret(item)?;
    match references::addressable(url.secret.expose()) {
        Some(address) if address.scheme() == "https" || references::is_loopback(&address) => {
            Some(HeartbeatSettings { url, every })
        }
        Some(_) => item.wrong(
            "this heartbeat would tell its secret address to the network",
            "what is referred to must begin with https://, or lead to this machine",
        ),
        None => item.wrong(
            "what this refers to is no address",
            "one line such as https://hc-ping.com/UUID",
        ),
    }
}

/// `socket` alone, where it is said and can be read.
pub(super) fn declared_socket(mut section: Section<'_>) -> Option<PathBuf> {
    section.optional("socket").and_then(socket)
}

fn address(item: Item<'_>) -> Option<Option<SocketAddr>> {
    let text = item.text()?;
    if text.is_empty() {
        return Some(None);
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        return item.wrong(
            format!("{} is not an address and a port", shown(text)),
            "write numbers, such as \"127.0.0.1:9847\" or \"[::1]:9847\"; \"\" turns it off",
        );
    };
    if !address.ip().is_loopback() {
        item.tell(
            item.warning(format!("{address} can be reached from other machines"))
                .hint("health and metrics hold no secret, but tell how many identities there are; 127.0.0.1 keeps them here"),
        );
    }
    Some(Some(address))
}

fn socket(item: Item<'_>) -> Option<PathBuf> {
    let path = item.path()?;
    if path.as_os_str().len() <= LONGEST_SOCKET_PATH {
        return Some(path);
    }
    item.wrong(
        "this path is too long for a Unix socket",
        format!("at most {LONGEST_SOCKET_PATH} bytes"),
    )
}

fn instance(item: Item<'_>) -> Option<String> {
    let text = item.text()?;
    if text.parse::<Name>().is_ok() {
        return Some(text.to_owned());
    }
    item.wrong(
        format!("{} is not a valid instance name", shown(text)),
        "it must start with a letter or digit, go on with letters, digits or any of . _ @ + -, and have at most 128 characters",
    )
}

/// The host's name, made fit for the `source` of events.
pub(super) fn instance_of(host: &str) -> String {
    let fit = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = host.chars().map(fit).take(128).collect();
    let name = name.trim_start_matches(['.', '_', '-']);
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name.to_owned()
    }
}

pub(super) static STORE: Table = Table {
    name: "store",
    header: "[store]",
    says: "",
    groups: &[&[
        key(
            "path",
            Takes::Path,
            Said("renewd.db in state_dir"),
            "\"/var/lib/renewd/renewd.db\"",
            "The database, a file of SQLite.",
        )
        .restart(),
        key(
            "url",
            Takes::Secret,
            Nothing,
            "{ file = \"/etc/renewd/database\" }",
            "Instead of path: a database in PostgreSQL, 15 or newer, that several machines may share. What is referred to is an address as libpq takes it, such as postgresql://renewd:PASSWORD@db-1,db-2/renewd; the first of its hosts that takes writes is used. Other machines are reached with TLS, and only as the name in their certificate (sslmode=verify-full, whatever the address says); in plain text only this one, by 127.0.0.1, ::1, localhost or the folder of a Unix socket. sslcert and sslkey name a client certificate. A password that is changed there, too, is taken up without a restart.",
        )
        .commented()
        .restart(),
        key(
            "ca_file",
            Takes::Path,
            Said("the system's authorities"),
            "\"/etc/renewd/database-ca.pem\"",
            "With url: trust the certificates in this PEM file, and no others.",
        )
        .commented()
        .restart(),
        key(
            "seal_key",
            Takes::Secret,
            Said("a key file made in state_dir, mode 0600"),
            "{ credential = \"seal-key\" }",
            "The key that seals every token in the database.",
        )
        .restart(),
        key(
            "retention",
            Takes::Table(&RETENTION),
            Is("{ renewals = \"7d\", other = \"400d\" }"),
            "{ renewals = \"7d\", other = \"400d\" }",
            "How long the audit trail is kept, 1h to 3650d: routine renewals, and all else. A change needs a restart.",
        ),
        key(
            "withdrawn_copy",
            Takes::Path,
            Nothing,
            "\"/mnt/elsewhere/renewd-withdrawn.jsonl\"",
            "A second place of withdrawn.jsonl, the list of what was held, revoked and deleted, on a disk that is not put back together with state_dir. At a start the longer of the two counts.",
        )
        .restart(),
    ]],
};

pub(super) const KEPT: Takes = Takes::Duration(HOUR, 3650 * DAY);

pub(super) static RETENTION: Table = Table {
    name: "store.retention",
    header: "`retention`",
    says: "",
    groups: &[&[
        key("renewals", KEPT, Is("\"7d\""), "\"7d\"", "").restart(),
        key("other", KEPT, Is("\"400d\""), "\"400d\"", "").restart(),
    ]],
};

/// Reads `[store]`; nothing comes of it when the seal key cannot be read.
pub(super) fn read_store(
    mut section: Section<'_>,
    (daemon, owner): (&DaemonSettings, Owner),
) -> Option<StoreSettings> {
    let place = place(&mut section, &daemon.state_dir);
    let seal_key = match section.optional("seal_key") {
        Some(item) => references::secret(item).map(Some),
        None => Some(None),
    };
    let mut retention = section.inner("retention");
    let keep_renewals = retention.duration("renewals");
    let keep_other = retention.duration("other");
    retention.finish();
    let withdrawn_copy = section.optional("withdrawn_copy").and_then(Item::path);
    section.finish();
    Some(StoreSettings {
        withdrawn_copy,
        owner,
        place: place?,
        seal_key: seal_key?,
        keep_renewals,
        keep_other,
        save_before_migration: true,
        node: None,
    })
}

/// `path`, or `url` and `ca_file`.
fn place(section: &mut Section<'_>, state_dir: &Path) -> Option<StorePlace> {
    let (path, url) = (section.optional("path"), section.optional("url"));
    let ca_file = section.optional("ca_file");
    let Some(url) = url else {
        if let Some(item) = ca_file {
            return item.wrong(
                "`ca_file` belongs to `url`, which is not there",
                "a store in a file needs no authority; leave it out",
            );
        }
        let path = match path {
            Some(item) => item.path()?,
            None => state_dir.join("renewd.db"),
        };
        return Some(StorePlace::File(path));
    };
    if let Some(item) = path {
        return item.wrong(
            "[store] has `path` and `url`, and a store lies in one place",
            "leave out the one that it does not lie in; `renewd store move` takes it from one to the other",
        );
    }
    let ca_file = match ca_file {
        Some(item) => Some(references::ca_file(item)?),
        None => None,
    };
    let loaded = references::secret(url)?;
    match DatabaseSettings::read(&loaded.from, &loaded.secret, ca_file) {
        Ok(database) => Some(StorePlace::Database(Box::new(database))),
        Err(mistake) => url.wrong(mistake.message, mistake.hint),
    }
}
