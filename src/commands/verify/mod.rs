//! `pintle verify`: the verdict of a strict client on a site.

mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;

use super::{Output, fail, fail_with_hint, pin, refuse};
use crate::keys::pin::Pin;
use crate::os::read_error;
use crate::reason::Reason;
use crate::verify::chain::ClientTrust;
use crate::verify::finding::Level;
use crate::verify::target::{ConnectTo, Url};
use crate::verify::{Options, json, pin_file, trust as roots, verify as visit};

/// The arguments.
#[derive(Debug)]
pub struct Arguments {
    /// The https URL.
    pub url: Url,
    /// The address to connect to instead of DNS.
    pub connect: Option<ConnectTo>,
    /// The address of plain HTTP.
    pub connect_http: Option<ConnectTo>,
    /// The file of roots.
    pub ca: Option<PathBuf>,
    /// The file of pins.
    pub pins: Option<PathBuf>,
}

/// Verifies a site, and prints the report. Exit code 1 if a check failed.
pub fn verify(arguments: Arguments, as_json: bool, output: &Output) -> ExitCode {
    let (trust, pins) = match (trust(arguments.ca.as_deref()), arguments.pins.as_deref().map(read_pins).transpose()) {
        (Ok(trust), Ok(pins)) => (trust, pins),
        (Err(reason), _) | (_, Err(reason)) => return refuse(&reason),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let Arguments { url, connect, connect_http, .. } = arguments;
    let options = Options { url, connect, connect_http, trust, pins, now: Timestamp::now() };
    let outcome = runtime.block_on(visit(&options));
    // A lookup that still runs ends with the process.
    runtime.shutdown_background();
    let (text, code) = match &outcome {
        Ok(report) => {
            let color = output.color_of_stdout;
            let text = match as_json {
                true => format!("{:#}\n", json::report(&options, report)),
                false => table::render(&options, report, color),
            };
            (text, ExitCode::from(u8::from(report.count(Level::Error) > 0)))
        }
        Err(failure) => {
            let what = format!("{}: cannot be reached: {failure}", options.url);
            let code = fail_with_hint(&what, &"--connect ADDR connects to another address than that of DNS");
            (if as_json { format!("{:#}\n", json::unreachable(&options, failure)) } else { String::new() }, code)
        }
    };
    print!("{text}");
    code
}

/// Reads the file of roots, or takes Mozilla's.
pub(super) fn trust(path: Option<&Path>) -> Result<ClientTrust, Reason> {
    let Some(path) = path else { return Ok(roots::of_browsers()) };
    roots::of_file(&read(path)?, path, "--ca takes certificates in PEM: roots, or the server's own")
}

fn read_pins(path: &Path) -> Result<Vec<Pin>, Reason> {
    let pins = pin_file::read(&read(path)?);
    pins.map_err(|error| Reason::new(format!("{}: {error}", path.display())).hints(error.hint().map(str::to_owned)))
}

fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    pin::read(path).map_err(|error| read_error::reason(path, &error))
}
