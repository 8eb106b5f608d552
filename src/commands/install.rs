//! `pintle install`: a renewed certificate, judged, put in its place, and looked at from outside.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use super::remote::print_verdict;
use super::{Output, fail, fail_with_hint, files, ledger, look_at_book, no_such_site, probe};
use crate::config::{self, AdminAddress, Context, Draft, Outline, Problem, Problems, Severity, SiteOutline};
use crate::control::Verdict;
use crate::control::client::{ClientError, ask};
use crate::key_file::{FILE_MAX, KeyAlgorithm, KeyKind, public_key};
use crate::ledger::time::wall;
use crate::ledger::{Book, Record};
use crate::pin::Pin;
use crate::tls::certificate::Chain;

/// Files that are looked through for the key of a chain.
const SEARCH_MAX: usize = 1000;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Any host of the site.
    pub host: String,
    /// The chain.
    pub chain: PathBuf,
    /// Its key; else the one in use, or another that fits and lies beside it.
    pub key: Option<PathBuf>,
    /// Whether only the verdict is wanted.
    pub dry_run: bool,
    /// The day until which the operator accepts that clients are locked out.
    pub accept: Option<String>,
}

/// Where things go, and what they are.
struct Plan {
    /// The site's first name.
    site: String,
    chain: Chain,
    /// Where it goes, and its contents; the key first.
    files: Vec<(PathBuf, Vec<u8>, u32)>,
}

/// Judges the certificate, and installs it if it is fit and that is wanted; exit code 0 if it is.
pub fn install(path: &Path, request: &Request, output: &Output) -> ExitCode {
    let draft = match config::read(path) {
        Ok(draft) => draft,
        Err(error) => return fail(&format!("{}: {error}", path.display())),
    };
    let Some(outline) = draft.outline() else {
        for problem in draft.problems().sorted() {
            eprint!("{}", draft.problems().render(problem, output.color));
        }
        return fail(&format!("{}: cannot be read", path.display()));
    };
    let Some(site) = outline.site(&request.host) else {
        let hosts = outline.sites.iter().flat_map(|s| s.hosts.iter().map(ToString::to_string));
        return no_such_site(&request.host, hosts);
    };
    let plan = match plan(&outline, site, request) {
        Ok(plan) => plan,
        Err((what, hint)) => return fail_with_hint(&what, &hint),
    };
    let book = match look_at_book(&draft) {
        Ok(book) => book,
        Err(error) => return fail(&error),
    };
    if !preflight(&draft, &book, &plan, request, output) {
        return fail(&"not installed: see above");
    }
    println!("{}: {}, pin {}: fit to be served", plan.site, request.chain.display(), plan.chain.pin());
    if request.dry_run {
        return ExitCode::SUCCESS;
    }
    carry_out(&draft, &plan, request)
}

/// What would be written where.
fn plan(outline: &Outline, site: &SiteOutline, request: &Request) -> Result<Plan, (String, String)> {
    let contents = read(&request.chain)?;
    let chain = Chain::from_pem(&contents).map_err(|e| {
        (
            format!("{}: {e}", request.chain.display()),
            format!("`pintle pin {}` tells what is in it", request.chain.display()),
        )
    })?;
    let (chain_path, key_path) = place(outline, site, &chain)?;
    let Some(key_path) = key_path else {
        let files = vec![(chain_path, contents, 0o644)];
        return Ok(Plan { site: site.label(), chain, files });
    };
    let key = match &request.key {
        Some(key) => Some(read(key)?),
        None if pin_of(&key_path) == Some(chain.pin()) => None,
        None => Some(find_key(outline, site, &key_path, &request.chain, chain.pin())?),
    };
    let mut files = Vec::new();
    files.extend(key.map(|key| (key_path, key, 0o600)));
    files.push((chain_path, contents, 0o644));
    Ok(Plan { site: site.label(), chain, files })
}

fn read(path: &Path) -> Result<Vec<u8>, (String, String)> {
    super::pin::read(path).map_err(|e| (format!("{}: {e}", path.display()), "a chain and a key in PEM".to_owned()))
}

fn key_of(path: &Path) -> Option<crate::key_file::PublicKey> {
    let is_small = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= FILE_MAX);
    is_small.then(|| fs::read(path).ok()).flatten().and_then(|contents| public_key(&contents).ok())
}

fn pin_of(path: &Path) -> Option<Pin> {
    key_of(path).map(|key| key.pin)
}

/// The pair of files of the site that this one is to take the place of: of several, the one of the same kind of key.
fn place(outline: &Outline, site: &SiteOutline, chain: &Chain) -> Result<(PathBuf, Option<PathBuf>), (String, String)> {
    let pair =
        |(chain, key): &(String, Option<String>)| (outline.path(chain), key.as_ref().map(|key| outline.path(key)));
    let kind = |algorithm: &KeyAlgorithm| matches!(algorithm, KeyAlgorithm::Rsa(_));
    match site.certificates.as_slice() {
        [] => Err((
            format!("{}: the site has no certificate to be replaced", site.label()),
            "add [site.certificate] with chain and key".into(),
        )),
        [one] => Ok(pair(one)),
        several => several
            .iter()
            .map(pair)
            .find(|(path, _)| key_of(path).is_some_and(|key| kind(&key.algorithm) == kind(&chain.leaf.algorithm)))
            .ok_or_else(|| {
                let what = format!("none of the site's certificates has a key like {}", chain.leaf.algorithm);
                (what, "an RSA certificate takes an RSA one's place, an ECDSA one an ECDSA one's".into())
            }),
    }
}

/// Looks for the private key of a chain: beside the chain, the key in use, and the backups.
fn find_key(
    outline: &Outline,
    site: &SiteOutline,
    in_use: &Path,
    chain: &Path,
    pin: Pin,
) -> Result<Vec<u8>, (String, String)> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let near = [in_use.to_owned(), chain.to_owned()].into_iter().chain(site.backups.iter().map(|b| outline.path(b)));
    for file in near {
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    for entry in entries.take(SEARCH_MAX) {
        let path = entry.path();
        if key_of(&path).is_some_and(|key| key.pin == pin && key.kind == KeyKind::PrivateKey) {
            println!("the key of this chain is {}", path.display());
            return fs::read(&path).map_err(|e| (format!("{}: {e}", path.display()), "name the key".into()));
        }
    }
    let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    Err((
        format!("{}: its key is neither the one in use, nor in {}", chain.display(), looked.join(", ")),
        "name it: pintle install --site HOST CHAIN KEY".into(),
    ))
}

/// The same judgement as at start, as if the files were there. Errors that are there without them are not this
/// certificate's.
fn preflight(draft: &Draft, book: &Book, plan: &Plan, request: &Request, output: &Output) -> bool {
    let now = wall();
    let (before, old) = draft.resolve(&Context::new(book, now));
    let instead: HashMap<PathBuf, Vec<u8>> =
        plan.files.iter().map(|(path, contents, _)| (path.clone(), contents.clone())).collect();
    let accept = request.accept.clone().map(|day| (plan.site.clone(), day));
    let context = Context { before: before.as_ref(), instead, accept, ..Context::new(book, now) };
    let (_, problems) = draft.resolve(&context);
    let known: Vec<&Problem> = old.sorted();
    let fresh: Vec<&Problem> = problems.sorted().into_iter().filter(|p| !known.contains(p)).collect();
    tell(&problems, &fresh, output);
    if problems.sorted().len() > fresh.len() {
        let rest = problems.sorted().len() - fresh.len();
        println!("{}: {rest} more to be told by `pintle check`", draft.path().display());
    }
    !fresh.iter().any(|p| p.severity == Severity::Error)
}

fn tell(problems: &Problems, fresh: &[&Problem], output: &Output) {
    for problem in fresh {
        eprint!("{}", problems.render(problem, output.color));
    }
}

fn carry_out(draft: &Draft, plan: &Plan, request: &Request) -> ExitCode {
    let before: Vec<Option<Vec<u8>>> = plan.files.iter().map(|(path, ..)| fs::read(path).ok()).collect();
    for (at, (path, contents, mode)) in plan.files.iter().enumerate() {
        if let Err(error) = files::put(path, contents, *mode) {
            put_back(&plan.files[..at], &before);
            return fail(&format!("not installed: {}: {error}", path.display()));
        }
    }
    for (path, ..) in &plan.files {
        println!("wrote {}", path.display());
    }
    let running = draft.admin().map(|address| (swap(&address, request), address));
    match running {
        None | Some((Err(ClientError::NotRunning(_)), _)) => not_running(draft, plan, request),
        Some((Err(error), _)) => {
            fail_with_hint(&error, &"the files are in place; a running pintle looks at them by itself")
        }
        Some((Ok(verdict), address)) if verdict.ok => {
            print_verdict(&verdict, "in use");
            verify(&address, plan, &request.host)
        }
        Some((Ok(verdict), _)) => {
            put_back(&plan.files, &before);
            print_verdict(&verdict, "not installed: the running process refuses it; the old files are back");
            ExitCode::from(1)
        }
    }
}

/// Puts what was there back in place.
fn put_back(files: &[(PathBuf, Vec<u8>, u32)], before: &[Option<Vec<u8>>]) {
    for ((path, _, mode), before) in files.iter().zip(before) {
        let done = match before {
            Some(contents) => files::put(path, contents, *mode),
            None => fs::remove_file(path),
        };
        if let Err(error) = done {
            eprintln!("pintle: {}: cannot be put back: {error}", path.display());
        }
    }
}

fn swap(address: &AdminAddress, request: &Request) -> Result<Verdict, ClientError> {
    let accept = request.accept.as_ref().map(|day| format!("&accept_lockout_until={day}")).unwrap_or_default();
    let (_, answer) =
        ask(address, Method::POST, &format!("/certificates?host={}{accept}", request.host), String::new())?;
    serde_json::from_str(&answer).map_err(|e| ClientError::Other(format!("the answer cannot be understood: {e}")))
}

/// Without a process to tell, what was accepted goes to the ledger from here.
fn not_running(draft: &Draft, plan: &Plan, request: &Request) -> ExitCode {
    if let (Some(day), true) = (&request.accept, draft.state().is_some()) {
        let book = match look_at_book(draft) {
            Ok(book) => book,
            Err(error) => return fail(&error),
        };
        let context = Context { accept: Some((plan.site.clone(), day.clone())), ..Context::new(&book, wall()) };
        let Some(config) = draft.resolve(&context).0 else {
            let what = "the files are in place, but the lockout is not accepted: the configuration has other errors";
            return fail_with_hint(&what, &"pintle check");
        };
        if let Err(why) = ledger::add(draft, config.accepted.into_iter().map(Record::Accepted).collect()) {
            return fail(&why);
        }
    }
    println!("pintle is not running with this configuration: served at the next start");
    ExitCode::SUCCESS
}

/// Looks at what is served, as a client would.
fn verify(address: &AdminAddress, plan: &Plan, host: &str) -> ExitCode {
    let status = ask(address, Method::GET, "/status", String::new());
    let status: Value = match status.map(|(_, answer)| serde_json::from_str(&answer)) {
        Ok(Ok(status)) => status,
        _ => return fail(&"in use, but not verified: the process does not say where it listens"),
    };
    let listeners = status["listening"].as_array().map(Vec::as_slice).unwrap_or_default();
    let https = listeners.iter().find(|l| l["scheme"] == "https").and_then(|l| l["address"].as_str()?.parse().ok());
    let Some(https) = https else {
        println!("not verified: it listens for no TLS");
        return ExitCode::SUCCESS;
    };
    let name = host.strip_prefix("*.").map_or_else(|| host.to_owned(), |base| format!("pintle-install.{base}"));
    match probe::leaf(https, &name, matches!(plan.chain.leaf.algorithm, KeyAlgorithm::Rsa(_))) {
        Ok(leaf) if leaf == *plan.chain.leaf_der() => {
            println!("verified: {https} serves it for {name}");
            ExitCode::SUCCESS
        }
        Ok(_) => fail(&format!("in use, but {https} still serves another certificate for {name}")),
        Err(error) => fail_with_hint(
            &format!("in use, but not verified: {https}: {error}"),
            &format!("openssl s_client -connect {https} -servername {name}"),
        ),
    }
}
