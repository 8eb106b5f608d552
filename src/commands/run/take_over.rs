//! The new process of an upgrade: check everything, and take over from the process that serves.

use std::path::Path;
use std::process::ExitCode;

use super::control_thread::block_on;
use super::preparation::{as_who_started_it, confine, prepare_keys, settle};
use super::start_log::{log_first_promises, log_process};
use crate::acme::lost::LostKey;
use crate::commands::drop_privileges::drop_privileges;
use crate::commands::first_promises::FirstPromises;
use crate::commands::{KnownPromises, Like, LoadedConfig, Output, Unfit, read, try_judge};
use crate::config::history::How;
use crate::config::{Draft, MayLack, StandIn};
use crate::control::{Beginning, Control, NearbyLedgers, NewProcess, StartError, log_warnings};
use crate::reason::{Problem, Reason};
use crate::telemetry::log;

/// Checks everything, and takes over from the process that has started this one.
pub(super) fn take_over(
    path: &Path,
    allow_root: bool,
    (mut newcomer, strict): (NewProcess, bool),
    output: &Output,
) -> ExitCode {
    let refused = |newcomer: &NewProcess, reasons: Vec<Problem>| {
        newcomer.fail(reasons);
        ExitCode::from(1)
    };
    let on_its_own = "the new process cannot begin: the log has its messages";
    let draft = match read(path) {
        Ok(draft) => draft,
        Err(reason) => return refused(&newcomer, vec![reason.into()]),
    };
    settle(&draft);
    // As at a start, if no folder was in use.
    let nearby = newcomer.may_be_first().then(|| NearbyLedgers::look(&draft));
    let Ok((mut beginning, no_launcher)) = as_who_started_it(&draft, Beginning { strict, ..Beginning::default() })
    else {
        return refused(&newcomer, vec![on_its_own.into()]);
    };
    beginning.left = nearby.iter().flat_map(NearbyLedgers::left_behind).collect();
    let Ok(troubles) = drop_privileges(&draft, allow_root) else {
        return refused(&newcomer, vec![on_its_own.into()]);
    };
    let lost = match make_state(&newcomer, &draft, &troubles).and_then(|()| prepare_keys(&draft, &troubles)) {
        Ok(lost) => lost,
        Err(trouble) => return refused(&newcomer, vec![trouble.into()]),
    };
    let first = begin_with(&mut newcomer, &draft, nearby.as_ref());
    let like = Like { stand_in: StandIn::Always, may_lack: if strict { MayLack::None } else { newcomer.may_lack() } };
    let LoadedConfig { draft, config, problems } = match try_judge(draft, |draft| known_by(&newcomer, draft), &like) {
        Ok(loaded) => loaded,
        Err(unfit) => return refused(&newcomer, errors_of(&unfit, &first)),
    };
    if !troubles.is_empty() {
        return refused(&newcomer, troubles.into_iter().map(Problem::from).collect());
    }
    let listeners = match newcomer.bind(&config) {
        Ok(listeners) => listeners,
        Err(reasons) => return refused(&newcomer, reasons),
    };
    if let Err(trouble) = confine(&draft, &config, listeners.own_ports(&config)) {
        return refused(&newcomer, vec![trouble.into()]);
    }
    let log = match log::start(output.log_format, output.log_level, output.color) {
        Ok(log) => log,
        Err(error) => return refused(&newcomer, vec![error.to_string().into()]),
    };
    let beginning = Beginning { how: How::Upgrade, warnings: log_warnings(&problems.shown()), ..beginning };
    lost.iter().for_each(LostKey::log);
    log_first_promises(&first);
    log_process(no_launcher);
    block_on(log, async {
        // The serving process reports why this one does not serve.
        let taken = Control::take_over(draft, config, newcomer, listeners, beginning).await;
        taken.map_err(|_| StartError(Reason::default())).inspect(Control::announce)
    })
}

/// The errors of a configuration that is not taken over to, and where promises come from that a chain may break.
fn errors_of(unfit: &Unfit, first: &FirstPromises) -> Vec<Problem> {
    let problems = unfit.problems.iter().flat_map(|all| all.shown());
    let errors = problems.filter(Problem::is_error).chain([unfit.reason.clone().into()]);
    errors.chain(first.reasons().into_iter().map(|reason| Problem::warning(&(0..0), reason))).collect()
}

/// Makes the state's folder.
fn make_state(newcomer: &NewProcess, draft: &Draft, troubles: &[Reason]) -> Result<(), Reason> {
    // With troubles, nobody takes over, and all of them are named.
    let is_usable = troubles.is_empty() && !draft.problems().has_errors();
    if is_usable { newcomer.make_state(draft) } else { Ok(()) }
}

/// Adds the promises that a first ledger begins with. There are none if the serving process has a folder.
fn begin_with(newcomer: &mut NewProcess, draft: &Draft, nearby: Option<&NearbyLedgers>) -> FirstPromises {
    // The judgement reports a ledger that cannot be read.
    let Some((nearby, book)) = nearby.zip(newcomer.book(draft).ok()) else { return FirstPromises::default() };
    let first = FirstPromises::of(draft, nearby, &book);
    newcomer.begin_with(first.records());
    first
}

/// The knowledge of the process that this one takes over from.
fn known_by(newcomer: &NewProcess, draft: &Draft) -> Result<KnownPromises, Reason> {
    let book = newcomer.book(draft)?;
    let (days, pages) = (newcomer.days(), newcomer.pages_in_use());
    let (named, copies) = (newcomer.named(), newcomer.copies());
    Ok(KnownPromises { days, pages, named, copies, ..KnownPromises::of_book(book) })
}
