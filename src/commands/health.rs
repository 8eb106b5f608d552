//! `pintle health`: is the running process accepting connections?

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};

use super::Output;
use super::remote::{address_of_running, say_to};
use super::results::Results;

/// Time limit for the answer. A container's health check repeats, so there is no use in a long wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the running process. Exit code 0 if it accepts connections, 1 if it drains, or does not
/// answer.
pub fn health(path: &Path, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let answers = [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE];
    let Some((draft, address)) = address_of_running(path, output, &mut results) else { return results.end(false) };
    // No wait for a process that is starting: it is not healthy yet.
    let asked = (Method::GET, "/ready", String::new());
    let asked = say_to((&draft, &address), asked, PATIENCE, &answers, &mut results);
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
