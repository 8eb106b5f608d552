//! Settings that are read at the start only.

use std::path::{Path, PathBuf};

use crate::config::{AccessTarget, Config, Process};
use crate::events::programs;
use crate::os::sandbox::SandboxSettings;
use crate::telemetry::AccessFormat;
use crate::upstream::dns::NameServers;

/// Settings that are read at the start only.
pub(in crate::control) struct Fixed {
    pub(in crate::control) state: Option<PathBuf>,
    pub(in crate::control) access: AccessTarget,
    access_format: Option<AccessFormat>,
    recent: usize,
    name_servers: NameServers,
    process: Process,
    key_process: bool,
    sandbox: SandboxSettings,
}

impl Fixed {
    pub(in crate::control) fn of(config: &Config) -> Self {
        Self {
            state: config.state.clone(),
            access: config.access.clone(),
            access_format: config.access_format,
            recent: config.recent,
            name_servers: config.name_servers.clone(),
            process: config.process.clone(),
            key_process: config.key_process,
            sandbox: config.sandbox.clone(),
        }
    }

    /// The changed settings that take effect at the next start only, each with a note.
    pub(in crate::control) fn differs_from(&self, config: &Config) -> Vec<(&'static str, String)> {
        let mut notes = Vec::new();
        let mut note = |key: &'static str, changed: bool| {
            if changed {
                notes.push((key, format!("{key} has changed: it takes effect at the next start")));
            }
        };
        note("log.access", config.access != self.access);
        note("log.format", config.access_format != self.access_format);
        note("log.recent", config.recent != self.recent);
        note("resolver.name_servers", config.name_servers != self.name_servers);
        note("process", config.process.words() != self.process.words());
        note("tls.key_process", config.key_process != self.key_process);
        note("sandbox", config.sandbox != self.sandbox);
        note("hook.command", new_programs(config).next().is_some());
        if config.state != self.state {
            let note = "state.directory has changed: it takes effect at the next start, or with `pintle upgrade`, which takes \
                        the promises along";
            notes.push(("state.directory", note.to_owned()));
        }
        notes
    }
}

/// The programs of hooks that this process did not start with.
fn new_programs(config: &Config) -> impl Iterator<Item = &Path> {
    config.hooks.iter().filter_map(|hook| hook.target.program()).filter(|program| !programs::knows(program))
}
