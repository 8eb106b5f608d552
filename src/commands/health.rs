//! `pintle health`: is the running process accepting connections?

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};

use super::Output;
use super::remote::ask_running;
use super::results::Results;

/// Time limit for the answer. A container's health check repeats, so there is no use in a long wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the running process. Exit code 0 if it accepts connections, 1 if it drains, or does not
/// answer.
pub fn health(path: &Path, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let answers = [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE];
    let asked = ask_running(path, (Method::GET, "/ready"), PATIENCE, &answers, output, &mut results);
    let is_healthy = match asked {
        Some((StatusCode::OK, _)) => {
            results.say("healthy");
            true
        }
        Some(_) => results.fail(&"pintle drains: it accepts no new connections"),
        None => false,
    };
    results.end(is_healthy)
}
