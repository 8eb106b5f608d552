//! The steps between reading the configuration and serving, at a start and at an upgrade.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use crate::acme::hook;
use crate::acme::lost::LostKey;
use crate::commands::{self, keys};
use crate::config::{Config, Draft};
use crate::control::{Beginning, sandbox_rules};
use crate::events::programs;
use crate::handover::Launcher;
use crate::os::privileges;
use crate::os::sandbox;
use crate::os::supervisor;
use crate::os::systemd::Notify;
use crate::os::usage;
use crate::os::words::words;
use crate::reason::Reason;

/// Settles an interrupted installation: before anybody reads a key, and as the user that started this process, who may
/// have installed it.
pub(super) fn settle(draft: &Draft) {
    commands::settle(draft, false);
}

/// Makes the keys of certificates that pintle obtains, as the user that serves: their pins are promised from the
/// beginning. Returns the keys that were lost, for the log.
pub(super) fn prepare_keys(draft: &Draft, troubles: &[Reason]) -> Result<Vec<LostKey>, Reason> {
    // With troubles, pintle does not start, and names them all.
    match troubles.is_empty() && !draft.problems().has_errors() {
        true => crate::acme::store::prepare(&draft.managed()),
        false => Ok(Vec::new()),
    }
}

/// The steps that run as the user that started this process: only that user may be able to read the
/// keys, and a later upgrade must begin in the same way.
pub(super) fn as_who_started_it(
    draft: &Draft,
    beginning: Beginning,
) -> Result<(Beginning, Option<std::io::Error>), ExitCode> {
    // Before any other process starts: where something ends with this one, no other can take over.
    let tie = supervisor::tie();
    keys::start(draft)?;
    let can_upgrade = !beginning.is_demo && tie.is_none();
    let (launcher, error) = match can_upgrade.then(|| Launcher::start(std::env::args_os().skip(1))) {
        Some(Ok(launcher)) => (Some(launcher), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    Ok((Beginning { launcher, tie, notify: Notify::from_env(), ..beginning }, error))
}

/// Gives up what is left of root, and enters the sandbox: before there are threads, and with
/// everything that the sandbox forbids later. `own` are ports of this process, to which it connects
/// itself.
pub(super) fn confine(draft: &Draft, config: &Config, own: BTreeSet<u16>) -> Result<(), Reason> {
    // As the serving user, and outside the sandbox, where nothing can be started later.
    if let Some(program) = config.acme.as_ref().and_then(|acme| acme.dns_hook.as_deref()) {
        hook::begin(program, config.snapshot.limits.dns_hook)
            .map_err(|error| Reason::new(format!("cannot start the process for acme.dns_hook: {}", words(&error))))?;
    }
    begin_hooks(config)?;
    if let Err(error) = privileges::settle(config.process.bind_low_ports) {
        return Err(Reason::new(format!("cannot drop capabilities: {}", words(&error)))
            .hint("start pintle as the user that serves")
            .hint("let the filter of system calls allow capset"));
    }
    usage::open();
    sandbox_rules::make_socket_folder(config);
    let mut rules = sandbox_rules::rules(draft, config);
    rules.connect.iter_mut().for_each(|ports| ports.extend(&own));
    sandbox::enter(&rules, &config.sandbox).map(drop).map_err(|error| error.reason())?;
    // jemalloc's thread must be in the sandbox, too. Without it, memory is returned when somebody
    // allocates.
    #[cfg(feature = "jemalloc")]
    let _ = tikv_jemalloc_ctl::background_thread::write(true);
    Ok(())
}

/// Starts the process that starts the programs of hooks.
fn begin_hooks(config: &Config) -> Result<(), Reason> {
    let wanted: Vec<_> = config.hooks.iter().filter_map(|hook| hook.target.program()).map(Path::to_owned).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    programs::begin(wanted, config.snapshot.limits.hook_timeout)
        .map_err(|error| Reason::new(format!("cannot start the process for hook.command: {}", words(&error))))
}
