//! `pintle pin`: pins of files, without a network.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{fail, refuse, warn};
use crate::keys::key_file::{FILE_MAX, PublicKey, Want, public_key};
use crate::keys::pin::Pin;
use crate::os::read_error;
use crate::policy::hpkp::{Hpkp, Mode, is_report_uri};
use crate::reason::Reason;

/// The format of the output.
#[derive(Debug, Clone)]
pub enum PinFormat {
    /// `base64  kind  algorithm  file`
    Lines,
    /// One JSON array.
    Json,
    /// The argument of `curl --pinnedpubkey`.
    Curl,
    /// Hexadecimal, one per line.
    Hex,
    /// The complete header.
    Header {
        /// Seconds.
        max_age: u64,
        /// `true` to bind the names below the host, too.
        include_subdomains: bool,
        /// The URI for reports of violations.
        report_uri: Option<String>,
    },
}

/// Prints the pins of all files. Exit code 1 if a file has none.
pub fn pin(files: &[PathBuf], form: &PinFormat) -> ExitCode {
    let mut keys: Vec<(&Path, PublicKey)> = Vec::new();
    let mut failed = false;
    for path in files {
        match read(path) {
            Ok(contents) => match public_key(&contents) {
                Ok(key) => keys.push((path, key)),
                Err(error) => {
                    failed = true;
                    let reason = Reason::new(format!("{}: {error}", path.display()));
                    refuse(&reason.hints(error.hint(path, Want::Pin)));
                }
            },
            Err(error) => {
                failed = true;
                refuse(&read_error::reason(path, &error));
            }
        }
    }
    let pins: Vec<Pin> = keys.iter().map(|(_, key)| key.pin).collect();
    match form {
        PinFormat::Lines => {
            for (path, key) in &keys {
                println!("{}  {}  {}  {}", key.pin, key.kind, key.algorithm, path.display());
            }
        }
        // The answer is the failure.
        PinFormat::Json if keys.is_empty() => {}
        PinFormat::Json => {
            let one = |(path, key): &(&Path, PublicKey)| {
                json!({
                    "pin": key.pin.to_string(), "hex": key.pin.to_hex(), "kind": key.kind.to_string(),
                    "algorithm": key.algorithm.to_string(), "file": path.display().to_string(),
                })
            };
            println!("{:#}", keys.iter().map(one).collect::<serde_json::Value>());
        }
        PinFormat::Curl => {
            let all: Vec<String> = pins.iter().map(|p| format!("sha256//{p}")).collect();
            println!("{}", all.join(";"));
        }
        PinFormat::Hex => pins.iter().for_each(|p| println!("{}", p.to_hex())),
        PinFormat::Header { max_age, include_subdomains, report_uri } => {
            if report_uri.as_deref().is_some_and(|uri| !is_report_uri(uri)) {
                fail(&"--report-uri: not an absolute http or https URI");
                return ExitCode::from(2);
            }
            // A header that lacks one of its pins would be a different header.
            if !failed {
                failed = !print_header(&pins, *max_age, *include_subdomains, report_uri.clone());
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

/// Refuses a header that clients would ignore.
fn print_header(pins: &[Pin], max_age: u64, include_subdomains: bool, report_uri: Option<String>) -> bool {
    let mut distinct: Vec<Pin> = Vec::new();
    for pin in pins {
        if !distinct.contains(pin) {
            distinct.push(*pin);
        }
    }
    let header = Hpkp { mode: Mode::Enforce, max_age, pins: distinct, include_subdomains, report_uri };
    println!("{}: {}", header.name(), header.value());
    if header.pins.len() < 2 {
        let reason = Reason::new("one pin only; clients ignore a header without a backup pin (RFC 7469 section 2.5)");
        warn(&reason.hint("name a backup key's file, too"));
    }
    true
}

/// Reads a file that may contain a key; `-` is standard input.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    let input: Box<dyn Read> = if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    input.take(FILE_MAX + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large to be a key or a certificate"));
    }
    Ok(contents)
}
