//! `pintle demo`: everything on one machine, so that one can look at it.

mod blog;
mod keys;

use std::fs::{File, TryLockError};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use tracing::Level;

use super::{Output, fail, refuse, run, warn};
use crate::control::Beginning;
use crate::keys::pin::Pin;
use crate::ledger::is_held;
use crate::os::plain_file::replace;
use crate::os::read_error::describe;
use crate::os::words::words;
use crate::reason::{Reason, shell_path};
use crate::telemetry::log::LogFormat;

use keys::{Keys, make_folder};

/// The folder of the state, in that of the demo.
const STATE: &str = "state";
const OTHER_FOLDER: &str = "use another folder: pintle demo --dir FOLDER";
/// Attempts to take the folder, and the pause between them.
const CLAIMS: usize = 20;
const CLAIM_PAUSE: Duration = Duration::from_millis(100);

/// Makes what the demo needs, serves, and prints what to try. What is made is used again at the next start.
pub fn demo(folder: Option<PathBuf>, https: &[SocketAddr], http: &[SocketAddr], output: &Output) -> ExitCode {
    let port = |list: &[SocketAddr]| list.first().map_or(0, SocketAddr::port);
    let (https_port, http_port) = (port(https), port(http));
    if https_port == http_port && https_port != 0 {
        let reason =
            Reason::new(format!("--https-port and --http-port are both {https_port}: a port has one protocol"));
        let other = https_port.checked_add(1).unwrap_or(8080);
        refuse(&reason.hint(format!("pintle demo --https-port {https_port} --http-port {other}")));
        return ExitCode::from(2);
    }
    // The printed text says the same as the log of the start, which would surround it.
    let is_quiet = output.log_format == LogFormat::Text && output.log_level == Level::INFO;
    let output = &Output { log_level: if is_quiet { Level::WARN } else { output.log_level }, ..*output };
    let folder = folder.unwrap_or_else(default_folder);
    let claimed = match claim(&folder) {
        Ok(claimed) => claimed,
        Err(reason) => return refuse(&reason),
    };
    let keys = match Keys::ensure(&folder) {
        Ok(keys) => keys,
        Err(error) => return refuse(&unusable(&folder, &error)),
    };
    let (listener, blog) = match blog::bind() {
        Ok(bound) => bound,
        Err(error) => return fail(&format!("the blog cannot be started: {}", words(&error))),
    };
    let path = folder.join("pintle.toml");
    // Without IPv6, localhost is 127.0.0.1 alone.
    let ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let usable = |list: &[SocketAddr]| list.iter().copied().filter(|a| ipv6 || a.is_ipv4()).collect::<Vec<_>>();
    let text = configuration(&usable(https), &usable(http), blog);
    if let Err(error) = replace(&path, text.as_bytes(), 0o644) {
        return fail(&format!("{}: {}", path.display(), words(&error)));
    }
    // Root may stay root: nobody else reaches what listens on loopback, and all files are its own.
    let beginning = Beginning { is_demo: true, ..Beginning::default() };
    let code = run::serve(&path, true, output, beginning, |_| {
        // Now, so that its thread is in the sandbox, too.
        match blog::start(listener, blog) {
            Ok(()) => print_welcome(&folder, &keys, https_port, http_port),
            Err(error) => warn(&format!("the blog cannot be started: {}", words(&error)).into()),
        }
    });
    drop(claimed);
    code
}

/// Takes the folder for this demo alone, and writes nothing there yet: a second demo would replace the configuration of the
/// first. One that has just been ended may still be about to leave.
fn claim(folder: &Path) -> Result<File, Reason> {
    make_folder(folder).map_err(|error| unusable(folder, &error))?;
    let place = File::open(folder).map_err(|error| unusable(folder, &error))?;
    for _ in 0..CLAIMS {
        let is_taken = matches!(place.try_lock(), Err(TryLockError::WouldBlock));
        if !is_taken && !is_held(&folder.join(STATE)) {
            return Ok(place);
        }
        thread::sleep(CLAIM_PAUSE);
    }
    let reason = Reason::new(format!("{}: another demo has this folder", folder.display()));
    Err(reason.hint("end the other demo").hint(OTHER_FOLDER))
}

fn unusable(folder: &Path, error: &io::Error) -> Reason {
    let what = format!("{}: the demo cannot keep its files there: {}", folder.display(), describe(error));
    Reason::new(what).hint(OTHER_FOLDER)
}

/// Beside the other data of the user's programs.
fn default_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|h| Path::new(&h).join(".local/share"));
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home).filter(|p| p.is_absolute());
    data.unwrap_or_else(std::env::temp_dir).join("pintle/demo")
}

fn configuration(https: &[SocketAddr], http: &[SocketAddr], blog: SocketAddr) -> String {
    let list = |addresses: &[SocketAddr]| {
        addresses.iter().map(|a| format!("{:?}", a.to_string())).collect::<Vec<_>>().join(", ")
    };
    format!(
        "# Written by `pintle demo` at each start.\n\
         [admin]\nedit = true\n\n[state]\ndirectory = \"{STATE}\"\n\n\
         [listen]\nhttps = [{}]\nhttp  = [{}]\nworkers = 2\n\n\
         [[site]]\nhosts = [\"localhost\"]\nupstream = \"http://{blog}\"\n\n\
         [site.certificate]\nchain = \"live.pem\"\nkey   = \"live.key\"\n\n\
         [site.hsts]\nmax_age = \"1h\"          # short: this is your machine's localhost\n\n\
         [site.hpkp]\nmax_age = \"1h\"\nbackups = [\"next.csr\", \"spare.pub\"]\n\n\
         [site.response_headers]\nset = {{ \"X-Content-Type-Options\" = \"nosniff\" }}\n",
        list(https),
        list(http)
    )
}

fn print_welcome(folder: &Path, keys: &Keys, https: u16, http: u16) {
    let ca = shell_path(&folder.join("ca.pem"));
    let config = shell_path(&folder.join("pintle.toml"));
    let home = if https == 443 { "https://localhost/".to_owned() } else { format!("https://localhost:{https}/") };
    let plain = if http == 80 { "http://localhost".to_owned() } else { format!("http://localhost:{http}") };
    let pins = |list: &[Pin]| list.iter().map(|p| format!("sha256//{p}")).collect::<Vec<_>>().join(";");
    let right = pins(&[keys.live, keys.next]);
    let wrong = pins(&[keys.spare]);
    println!(
        "\npintle serves a small blog, on this machine only.\n\n  \
         {home}    the blog, over TLS\n  {plain}/     answers 301 to https\n\n\
         Try:\n\n  \
         # the page over HTTP/2; then HSTS and the pins of the live key and its two backups\n  \
         curl --cacert {ca} {home}\n  \
         curl --cacert {ca} --head {home}\n\n  \
         # plain HTTP redirects to https, with path and query\n  \
         curl --include '{plain}/about?from=http'\n\n  \
         # a client that enforces the pins: the live key passes, a key that is not live is refused\n  \
         curl --cacert {ca} --pinnedpubkey '{right}' {home}\n  \
         curl --cacert {ca} --pinnedpubkey '{wrong}' {home}\n\n  \
         # the site as a strict client sees it; and the state of pintle\n  \
         pintle verify --ca {ca} {home}\n  \
         pintle status -c {config}\n\n\
         Keys, certificates and the configuration are in {}.\n\
         To see the page in a browser, import ca.pem from there as a CA, and delete it afterwards.\n\
         Each request is a line below. Ctrl-C ends the demo.\n",
        folder.display(),
    );
}
