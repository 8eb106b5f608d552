//! `pintle run`: drop privileges, load, record promises, bind, enter the sandbox, serve, drain.

mod control_thread;
mod listeners;
mod preparation;
mod start_log;
mod take_over;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use super::begun_ledger::{OpenedLedger, begun};
use super::drop_privileges::drop_privileges;
use super::{KnownPromises, Like, LoadedConfig, Output, fail, judge, read, refuse};
use crate::control::{Beginning, Control, NearbyLedgers, NewProcess, sandbox_rules};
use crate::ledger::Book;
use crate::policy::Scheme;
use crate::reason::Reason;
use crate::telemetry::log;

use control_thread::block_on;
use listeners::bind_all;
use preparation::{as_who_started_it, confine, prepare_keys, settle};
use start_log::log_start;
use take_over::take_over;

/// The remedy if the demo's ledger cannot be used.
const OTHER_DEMO: &str = "end the demo that runs with these files, or use another folder: pintle demo --dir FOLDER";

/// Serves until SIGTERM, SIGINT or SIGQUIT, or until an upgrade. A second signal ends it at once.
pub fn run(path: &Path, allow_root: bool, strict: bool, output: &Output) -> ExitCode {
    // Sockets from elsewhere count, too.
    crate::os::open_files::raise();
    match NewProcess::of_process() {
        Ok(Some(newcomer)) => return take_over(path, allow_root, (newcomer, strict), output),
        Ok(None) => {}
        Err(reason) => return refuse(&reason),
    }
    let (lent, pages) = match listeners::passed() {
        Ok(passed) => passed,
        Err(reason) => return refuse(&reason),
    };
    serve(path, allow_root, output, Beginning { lent, pages, strict, ..Beginning::default() }, |_| {})
}

/// Loads and serves a configuration. `ready` gets the addresses once everything is up.
pub(super) fn serve(
    path: &Path,
    allow_root: bool,
    output: &Output,
    beginning: Beginning,
    ready: impl FnOnce(&[(SocketAddr, Scheme)]),
) -> ExitCode {
    let draft = match read(path) {
        Ok(draft) => draft,
        Err(reason) => return refuse(&reason),
    };
    settle(&draft);
    // The serving user may be unable to read another folder.
    let nearby = if beginning.is_demo { NearbyLedgers::default() } else { NearbyLedgers::look(&draft) };
    let (mut beginning, no_launcher) = match as_who_started_it(&draft, beginning) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    beginning.left = nearby.left_behind();
    // From here on as the serving user: missing permissions show now and not at a reload.
    let troubles = match drop_privileges(&draft, allow_root) {
        Ok(troubles) => troubles,
        Err(code) => return code,
    };
    let lost = match prepare_keys(&draft, &troubles) {
        Ok(lost) => lost,
        Err(trouble) => return refuse(&trouble),
    };
    let (like, is_demo) = (Like::start(beginning.strict), beginning.is_demo);
    if !troubles.is_empty() {
        // The troubles name everything that the user cannot read, the ledger included.
        let _ = judge(draft, |_| Ok(KnownPromises::of_book(Book::default())), &like);
        return refuse_all(&troubles);
    }
    let opened = OpenedLedger::open(&draft, &nearby, is_demo).map_err(|reason| refuse(&of_demo(reason, is_demo)));
    let judged = opened.and_then(|opened| begun(judge(draft, |_| Ok(opened.known()), &like), opened, is_demo));
    let (LoadedConfig { draft, config, problems }, ledger, remarks) = match judged {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    beginning.warnings = problems.shown().len();
    let bound = match bind_all(&config, &mut beginning) {
        Ok(bound) => bound,
        Err(code) => return code,
    };
    if let Err(trouble) = confine(&draft, &config, sandbox_rules::own_ports(&config, &bound.addresses())) {
        return refuse(&trouble);
    }
    let log = match log::start(output.log_format, output.log_level, output.color) {
        Ok(log) => log,
        Err(error) => return fail(&error),
    };
    log_start(&remarks, &lost, no_launcher);
    block_on(log, async {
        let control = Control::start(draft, config, ledger, bound, beginning).await?;
        control.announce();
        ready(control.listening());
        Ok(control)
    })
}

fn refuse_all(troubles: &[Reason]) -> ExitCode {
    troubles.iter().for_each(|trouble| _ = refuse(trouble));
    ExitCode::from(1)
}

/// Replaces the remedies of a ledger that cannot be used, if it is the demo's.
fn of_demo(reason: Reason, is_demo: bool) -> Reason {
    if is_demo { Reason { hints: vec![OTHER_DEMO.to_owned()], ..reason } } else { reason }
}
