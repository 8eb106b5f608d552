//! The key process: started by `pintle run`, with its orders on standard input.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

use super::{fail, fail_with_hint};
use crate::config::{At, Draft};
use crate::control::sandbox_rules;
use crate::os::privileges;
use crate::os::sandbox::{self, SandboxSettings, Strength};
use crate::os::words::words;
use crate::tls::key_process::{self, KeyProcess};

/// Starts it, if the configuration says so. It keeps the user that started pintle, and so can read
/// keys that the serving user cannot.
pub(super) fn start(draft: &Draft) -> Result<(), ExitCode> {
    let Some(keys) = draft.kept_keys() else { return Ok(()) };
    let started = std::env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        command.arg("keys");
        KeyProcess::start(command, plan(&keys).to_string().as_bytes())
    });
    started.map(drop).map_err(|error| fail(&format!("the key process cannot be started: {}", words(&error))))
}

fn plan(keys: &[At<PathBuf>]) -> Value {
    let keys = keys.iter().map(|key| std::path::absolute(&key.value).unwrap_or_else(|_| key.value.clone()));
    json!({ "keys": keys.collect::<Vec<_>>() })
}

/// Serves until its parent ends.
pub fn keys() -> ExitCode {
    crate::os::signals::hold_off_in_helper();
    let control_socket = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let orders =
        control_socket.and_then(|control_socket| key_process::plan(&control_socket).map(|plan| (control_socket, plan)));
    let Ok((control_socket, plan)) = orders else {
        return fail_with_hint(
            &"no serving process is connected",
            &"with `tls.key_process = true`, `pintle run` starts this command",
        );
    };
    let plan: Value = serde_json::from_slice(&plan).unwrap_or_default();
    let keys = plan["keys"].as_array().into_iter().flatten().filter_map(|key| key.as_str().map(PathBuf::from));
    let keys: Vec<PathBuf> = keys.collect();
    // AWS-LC opens its source of entropy once.
    let _ = aws_lc_rs::rand::fill(&mut [0; 8]);
    let settings = SandboxSettings { landlock: Strength::Auto, seccomp: Strength::Auto, ..SandboxSettings::default() };
    let rules = sandbox_rules::key_process_rules(&keys);
    let confined = privileges::settle_as_reader()
        .map_err(|error| words(&error))
        .and_then(|()| sandbox::enter(&rules, &settings).map_err(|error| error.to_string()));
    if let Err(error) = confined {
        return fail(&format!("the key process: {error}"));
    }
    match key_process::serve(&control_socket, &rules.read) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("the key process: {}", words(&error))),
    }
}
