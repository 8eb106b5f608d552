//! `pintle verify`: what a strict client finds at a site.

mod json;
mod table;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;

use super::{Output, fail, pin};
use crate::keys::key_file::{self, Want};
use crate::keys::pin::Pin;
use crate::upstream::tls::default_roots;
use crate::verify::chain::Trust;
use crate::verify::finding::Level;
use crate::verify::target::{Place, Url};
use crate::verify::{Request, pin_file, verify as visit};

/// What the command line says.
#[derive(Debug)]
pub struct Wanted {
    /// The https URL.
    pub url: Url,
    /// Where to connect to in place of what DNS says.
    pub connect: Option<Place>,
    /// Where plain HTTP is.
    pub connect_http: Option<Place>,
    /// The file of roots.
    pub ca: Option<PathBuf>,
    /// The file of pins.
    pub pins: Option<PathBuf>,
}

/// Visits a site twice and tells what was found; exit code 1 if there is a fault.
pub fn verify(wanted: Wanted, as_json: bool, output: &Output) -> ExitCode {
    let (trust, pins) = match (trust(wanted.ca.as_deref()), wanted.pins.as_deref().map(read_pins).transpose()) {
        (Ok(trust), Ok(pins)) => (trust, pins),
        (Err(problem), _) | (_, Err(problem)) => {
            let code = fail(&problem.message);
            if let Some(hint) = problem.hint {
                eprintln!("  hint: {hint}");
            }
            return code;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let Wanted { url, connect, connect_http, .. } = wanted;
    let request = Request { url, connect, connect_http, trust, pins, now: Timestamp::now() };
    let outcome = runtime.block_on(visit(&request));
    // A lookup that nobody waits for any more ends with the process.
    runtime.shutdown_background();
    let (text, code) = match &outcome {
        Ok(report) => {
            let color = output.color && io::stdout().is_terminal();
            let text = match as_json {
                true => format!("{:#}\n", json::report(&request, report)),
                false => table::render(&request, report, color),
            };
            (text, ExitCode::from(u8::from(report.count(Level::Error) > 0)))
        }
        Err(failure) => {
            let code = fail(&format!("{}: cannot be reached: {failure}", request.url));
            eprintln!("  hint: --connect ADDR connects elsewhere than where DNS leads");
            (if as_json { format!("{:#}\n", json::unreachable(&request, failure)) } else { String::new() }, code)
        }
    };
    match say(&text) {
        Ok(()) => code,
        Err(error) => fail(&format!("standard output: {error}")),
    }
}

/// Prints a report. Whoever has read enough of it (`| head`) gets the exit code all the same.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// What is wrong with a file, and what to do about it.
struct Problem {
    message: String,
    hint: Option<String>,
}

fn trust(path: Option<&Path>) -> Result<Trust, Problem> {
    let Some(path) = path else { return Ok(Trust { roots: default_roots(), own: Vec::new() }) };
    let contents = read(path)?;
    let problem = |why: &str| Problem {
        message: format!("{}: {why}", path.display()),
        hint: Some("--ca takes certificates in PEM: roots, or the server's own".to_owned()),
    };
    let mut roots = RootCertStore::empty();
    let mut own = Vec::new();
    let certificates = key_file::certificates(&contents).map_err(|error| {
        let told = problem(&error.to_string());
        Problem { hint: error.hint(path, Want::Chain).or(told.hint), ..told }
    })?;
    for (_, certificate) in certificates {
        roots.add(certificate.clone()).map_err(|_| problem("a certificate in it cannot be a root"))?;
        own.push(certificate);
    }
    Ok(Trust { roots: Arc::new(roots), own })
}

fn read_pins(path: &Path) -> Result<Vec<Pin>, Problem> {
    let pins = pin_file::read(&read(path)?);
    pins.map_err(|error| Problem {
        message: format!("{}: {error}", path.display()),
        hint: error.hint().map(str::to_owned),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    pin::read(path).map_err(|error| Problem { message: format!("{}: {error}", path.display()), hint: None })
}
