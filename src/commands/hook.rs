//! `pintle hook test`: has the running process send an event to its hooks.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::Output;
use super::remote::ask_running;
use super::results::Results;
use crate::events::is_of_name;
use crate::reason::Reason;
use crate::reason::near::did_you_mean;
use crate::reason::pasted::pintle;

/// Each hook has `limits.hook_timeout`, after an attempt that is under way.
const PATIENCE: Duration = Duration::from_secs(900);

/// Tests one hook, or all. Exit code 1 if one fails.
pub fn test(path: &Path, name: Option<&str>, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    if let Some(wrong) = name.filter(|name| name.is_empty() || !name.chars().all(is_of_name)) {
        let reason = Reason::new(format!("{wrong:?} is not the name of a hook"));
        results.refuse(&reason.hint(format!("for all: {}", pintle("hook test"))));
        return results.end(false);
    }
    let command = match name {
        Some(name) => format!("/hook/test?name={name}"),
        None => "/hook/test".to_owned(),
    };
    let answers = [StatusCode::OK, StatusCode::CONFLICT, StatusCode::NOT_FOUND];
    let asked = (Method::POST, command.as_str());
    let Some((status, answer)) = ask_running(path, asked, PATIENCE, &answers, output, &mut results) else {
        return results.end(false);
    };
    let Some(answer) = results.understood::<Value>(&answer) else { return results.end(false) };
    let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    if status == StatusCode::NOT_FOUND {
        let known: Vec<String> = list("known").iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        results.refuse(&unknown(name, &known));
        return results.end(false);
    }
    let hooks = list("hooks");
    for hook in &hooks {
        let name = hook["hook"].as_str().unwrap_or_default();
        results.say(match hook["error"].as_str() {
            None => format!("{name}: delivered"),
            Some(error) => format!("{name}: failed: {error}"),
        });
    }
    results.set("hooks", hooks);
    results.end(status == StatusCode::OK)
}

fn unknown(name: Option<&str>, known: &[String]) -> Reason {
    match name {
        Some(name) if !known.is_empty() => Reason::new(format!("no hook is called {name:?}"))
            .hints(did_you_mean(name, known.iter().map(String::as_str)))
            .note(format!("expected one of: {}", known.join(", ")))
            .command(pintle("hook test")),
        _ => {
            let hint = format!("add a [[hook]], then `{}`", pintle("reload"));
            Reason::new("the running process has no hooks").hint(hint)
        }
    }
}
