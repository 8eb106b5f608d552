//! The sandbox rules of a configuration: set at the start, and compared at each reload.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::socket_file::make_folder;
use super::watch::Ways;
use crate::config::{AccessTarget, AdminAddress, At, Config, Draft};
use crate::events::HookTarget;
use crate::os::plain_file::folder_of;
use crate::os::sandbox::{self, Calls, Rules, Sandbox, Strength};
use crate::policy::Scheme;
use crate::reason::Reason;
use crate::tls::key_process;

/// The port of DNS.
const DNS: u16 = 53;
/// The ports on which authorities validate names.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;
/// Paths that name devices or open files: their folders need no permission.
const DEVICES: [&str; 2] = ["/dev", "/proc"];

/// Creates the folder of the admin socket: inside the sandbox, there is no permission for its parent.
pub fn make_socket_folder(config: &Config) {
    if let Some(folder) = socket_folder(config) {
        // If it fails, so does the socket, which names the error.
        let _ = make_folder(folder);
    }
}

/// The rules for a process that starts with a configuration.
#[must_use]
pub fn rules(draft: &Draft, config: &Config) -> Rules {
    let mut rules = rules_of_reload(draft, config, None);
    rules.read.extend(config.sandbox.read.iter().cloned());
    rules.write.extend(config.sandbox.write.iter().cloned().chain(config.state.clone()));
    rules.connect = rules.connect.filter(|_| !config.sandbox.connect_anywhere);
    rules.connect.iter_mut().for_each(|ports| ports.extend(&config.sandbox.connect_ports));
    if config.sites().len() == 0 {
        // The page looks at the first site's upstream, and obtains its certificate.
        rules.connect.iter_mut().for_each(|ports| ports.extend([HTTP, HTTPS]));
    }
    // An installation is verified from outside.
    let own = config.https.iter().map(std::net::SocketAddr::port).filter(|port| *port > 0 && draft.may_edit());
    rules.connect.iter_mut().for_each(|ports| ports.extend(own.clone()));
    if let AccessTarget::File(path) = &config.access {
        let is_device = DEVICES.iter().any(|device| path.starts_with(device));
        rules.logs.insert(if is_device { path.clone() } else { folder_of(path).to_owned() });
    }
    rules
}

/// The ports of the listeners of this process, if pages may ask for a verification: it connects to itself then.
#[must_use]
pub fn own_ports(config: &Config, bound: &[(std::net::SocketAddr, Scheme)]) -> BTreeSet<u16> {
    let own = bound.iter().filter(|_| config.admin.is_some());
    own.map(|(address, _)| address.port()).collect()
}

/// The rules for a later configuration: the folders of its files, through all links, so that files
/// can be replaced there; and the ports of its upstreams. The state, the log and `[sandbox]` keep
/// their rules. `before`, the configuration in use, needs nothing more.
fn rules_of_reload(draft: &Draft, config: &Config, before: Option<&Config>) -> Rules {
    // The serving process must not read the keys of the key process.
    let kept = key_process::running().and_then(|_| draft.kept_keys()).into_iter().flatten().map(|key| key.value);
    let kept: BTreeSet<PathBuf> = kept.collect();
    // Of ten thousand sites, each has links to follow; unchanged ones were followed before.
    let files = config.files_beside(before).filter(|file| !kept.contains(*file)).chain([draft.path()]);
    let of_acme = config.acme.iter().flat_map(|acme| &acme.files).map(PathBuf::as_path);
    let mut read = Ways::default().folders(files.chain(config.files_of_receivers()).chain(of_acme));
    read.extend(config.snapshot.acme_webroot.clone());
    let sockets = socket_folder(config).map(Path::to_owned).into_iter().collect();
    let upstreams = config.sites().filter_map(|site| port_of(&site.upstream.as_ref()?.connect));
    let servers = config.name_servers.0.iter().map(std::net::SocketAddr::port);
    let senders = ports_of_senders(config);
    let connect = upstreams.chain(servers).chain(ports_of_acme(config)).chain(senders).chain([DNS]).collect();
    // The service manager may use an abstract socket.
    let abstract_sockets =
        std::env::var_os("NOTIFY_SOCKET").is_some_and(|name| name.as_encoded_bytes().starts_with(b"@"));
    let write = if draft.may_edit() { editable(draft) } else { BTreeSet::new() };
    Rules { read, write, sockets, connect: Some(connect), abstract_sockets, ..Rules::default() }
}

fn socket_folder(config: &Config) -> Option<&Path> {
    match &config.admin {
        Some(AdminAddress::Unix(path)) => Some(folder_of(path)),
        Some(AdminAddress::Tcp { .. }) | None => None,
    }
}

/// The folders of the files that the page may change: the configuration, and the chains and keys that it names.
fn editable(draft: &Draft) -> BTreeSet<PathBuf> {
    let outline = draft.outline();
    let pairs = outline.iter().flat_map(|outline| {
        let given = outline.sites.iter().flat_map(|site| site.certificates.iter().map(move |pair| (site, pair)));
        let given = given.filter(|(site, (chain, _))| site.given_chains.contains(chain));
        given
            .flat_map(|(_, (chain, key))| [Some(chain), key.as_ref()].into_iter().flatten())
            .map(|file| outline.path(file))
    });
    let files: Vec<PathBuf> = pairs.collect();
    Ways::default().folders(files.iter().map(PathBuf::as_path).chain([draft.path()]))
}

/// The keys of the key process that the sandbox lets the serving process read.
#[must_use]
pub fn keys_in_reach(draft: &Draft, config: &Config) -> Vec<At<PathBuf>> {
    let kept = draft.kept_keys().unwrap_or_default();
    let is_kept = |file: &Path| kept.iter().any(|key| key.value == file);
    let read = Ways::default().folders(config.files().filter(|file| !is_kept(file)).chain([draft.path()]));
    let places = [&config.sandbox.read, &config.sandbox.write].into_iter().flatten().chain(&config.state);
    let places = read.iter().chain(places).chain(&config.snapshot.acme_webroot);
    let places: Vec<PathBuf> = places.filter_map(|place| std::fs::canonicalize(place).ok()).collect();
    let is_in_reach = |key: &At<PathBuf>| {
        let real = std::fs::canonicalize(&key.value);
        config.sandbox.landlock == Strength::Off
            || real.is_ok_and(|real| places.iter().any(|place| real.starts_with(place)))
    };
    kept.iter().filter(|key| is_in_reach(key)).cloned().collect()
}

/// The rules of the key process: reading the folders of its keys.
#[must_use]
pub fn key_process_rules(keys: &[PathBuf]) -> Rules {
    let read = Ways::default().folders(keys.iter().map(PathBuf::as_path));
    Rules { read, connect: Some(BTreeSet::new()), calls: Calls::Keys, ..Rules::default() }
}

/// The ports of the authorities, and of pintle's own listeners, where it looks at its answers as an authority does.
fn ports_of_acme(config: &Config) -> Vec<u16> {
    let Some(acme) = &config.acme else { return Vec::new() };
    let directory = |authority: &crate::config::Authority| {
        authority.directory.parse::<http::Uri>().ok().and_then(|url| url.port_u16()).unwrap_or(HTTPS)
    };
    let own = config.http.iter().chain(&config.https).map(std::net::SocketAddr::port).filter(|port| *port > 0);
    // The preflight asks for its own challenges, as the authorities do.
    let probed = [acme.http_port, acme.tls_port];
    acme.authorities.iter().map(directory).chain(own).chain([HTTP, HTTPS]).chain(probed).collect()
}

/// The ports of webhooks, of Graphite and of the collector of traces.
fn ports_of_senders(config: &Config) -> impl Iterator<Item = u16> {
    let urls = config.hooks.iter().filter_map(|hook| match &hook.target {
        HookTarget::Url { url, .. } => url.parse::<http::Uri>().ok(),
        HookTarget::Command(_) => None,
    });
    let default = |url: &http::Uri| if url.scheme_str() == Some("http") { HTTP } else { HTTPS };
    let collector = config.traces.iter().filter_map(|to| to.url.parse::<http::Uri>().ok());
    let urls = urls.chain(collector).map(move |url| url.port_u16().unwrap_or_else(|| default(&url)));
    urls.chain(config.graphite.iter().map(|to| to.port))
}

fn port_of(authority: &str) -> Option<u16> {
    authority.rsplit_once(':')?.1.parse().ok()
}

/// The permissions that a configuration needs, `before` did not need, and this process's sandbox
/// lacks; each with its remedy.
pub(super) fn beyond(draft: &Draft, config: &Config, before: &Config) -> Vec<Reason> {
    let Some(held) = sandbox::held().filter(|held| held.landlock().is_some()) else { return Vec::new() };
    held.beyond(&rules_of_reload(draft, config, Some(before)))
}

/// Logs what the sandbox enforces, and what it lacks.
pub fn announce(held: &Sandbox) {
    let (read, write) = held.places();
    tracing::info!(
        user = crate::os::privileges::user(),
        landlock = held.landlock(),
        folders_read = read,
        folders_written = write,
        ports = held.ports().map(ports),
        system_calls = held.calls(),
        lacks = (!held.lacks().is_empty()).then(|| held.lacks().join("; ")),
        "sandbox"
    );
}

/// The same, for `pintle status`.
pub(super) fn status() -> Value {
    let Some(held) = sandbox::held() else { return Value::Null };
    let (read, write) = held.places();
    json!({
        "user": crate::os::privileges::user(),
        "landlock": held.landlock(),
        "folders_read": read,
        "folders_written": write,
        "ports": held.ports(),
        "system_calls": held.calls(),
        "lacks": held.lacks(),
        "key_process": key_process::running().map(key_process::KeyProcess::process),
    })
}

fn ports(ports: &BTreeSet<u16>) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
