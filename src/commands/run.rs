//! `pintle run`: drop privileges, load, record promises, bind, enter the sandbox, serve, drain; or
//! take over from a serving process.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::begun_ledger::{LedgerRemarks, OpenedLedger, begun};
use super::drop_privileges::drop_privileges;
use super::first_promises::FirstPromises;
use super::{
    KnownPromises, Like, LoadedConfig, Output, Unfit, fail, fail_with_hint, judge, keys, read, refuse, try_judge,
};
use crate::acme::hook;
use crate::acme::lost::LostKey;
use crate::config::history::How;
use crate::config::{Config, Draft, MayLack, StandIn};
use crate::control::{
    Beginning, Control, NearbyLedgers, NewProcess, PageSocket, ProcessEnd, StartError, bind_pages, log_warnings,
    sandbox_rules,
};
use crate::events::programs;
use crate::handover::Launcher;
use crate::ledger::Book;
use crate::os::privileges;
use crate::os::sandbox;
use crate::os::supervisor;
use crate::os::systemd::{self, Notify, PassedSocket};
use crate::os::usage;
use crate::os::words::words;
use crate::policy::Scheme;
use crate::reason::{Problem, Reason, shell_word};
use crate::server::{BindError, Bound, Lent, bind};
use crate::telemetry::{LogThread, log};
use crate::tls::key_process;

/// The remedy if the demo's ledger cannot be used.
const OTHER_DEMO: &str = "end the demo that runs with these files, or use another folder: pintle demo --dir FOLDER";

/// The name of a service manager's sockets for the pages over TLS.
const PAGES: &str = "admin";

/// Serves until SIGTERM, SIGINT or SIGQUIT, or until an upgrade. A second signal ends it at once.
pub fn run(path: &Path, allow_root: bool, strict: bool, output: &Output) -> ExitCode {
    // Sockets from elsewhere count, too.
    crate::os::open_files::raise();
    match NewProcess::of_process() {
        Ok(Some(newcomer)) => return take_over(path, allow_root, (newcomer, strict), output),
        Ok(None) => {}
        Err(reason) => return refuse(&reason),
    }
    let passed = match systemd::activation::passed() {
        Ok(passed) => passed,
        Err(reason) => return refuse(&reason),
    };
    let (pages, passed): (Vec<_>, Vec<_>) = passed.into_iter().partition(|passed| passed.name == PAGES);
    let pages = pages
        .into_iter()
        .filter_map(|passed| Some(PageSocket { asked: passed.listener.local_addr().ok()?, socket: passed.listener }));
    let lent = passed.into_iter().filter_map(lent).collect();
    let beginning = Beginning { lent, strict, pages: pages.collect(), ..Beginning::default() };
    serve(path, allow_root, output, beginning, |_| {})
}

/// A socket of the service manager, for the listener that its name says, if it says one.
fn lent(passed: PassedSocket) -> Option<Lent> {
    let scheme = match passed.name.as_str() {
        "https" => Some(Scheme::Https),
        "http" => Some(Scheme::Http),
        _ => None,
    };
    let address = passed.listener.local_addr().ok()?;
    Some(Lent { asked: None, address, scheme, listeners: vec![passed.listener] })
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
    tell(&remarks, &lost, no_launcher);
    block_on(log, async {
        let control = Control::start(draft, config, ledger, bound, beginning).await?;
        control.announce();
        ready(control.listening());
        Ok(control)
    })
}

/// Binds the listeners of the sites, and those of the pages that can be bound: ports below 1024 need a permission that is
/// dropped next.
fn bind_all(config: &Config, beginning: &mut Beginning) -> Result<Bound, ExitCode> {
    let bound = bind(&config.https, &config.http, config.workers, &mut beginning.lent);
    let bound = bound.map_err(|errors| cannot_bind(&errors, beginning.is_demo))?;
    if let Some(unused) = beginning.lent.first() {
        return Err(unused_socket(unused));
    }
    let pages = bind_pages(config, &mut beginning.pages);
    match std::mem::replace(&mut beginning.pages, pages).first() {
        None => Ok(bound),
        Some(PageSocket { asked, .. }) => {
            let what = format!("systemd passes a socket named {PAGES} on {asked}, which is not in admin.https.listen");
            Err(fail_with_hint(&what, &"name it there, or leave it out of the socket unit"))
        }
    }
}

fn refuse_all(troubles: &[Reason]) -> ExitCode {
    troubles.iter().for_each(|trouble| _ = refuse(trouble));
    ExitCode::from(1)
}

/// Replaces the remedies of a ledger that cannot be used, if it is the demo's.
fn of_demo(reason: Reason, is_demo: bool) -> Reason {
    if is_demo { Reason { hints: vec![OTHER_DEMO.to_owned()], ..reason } } else { reason }
}

/// Checks everything, and takes over from the process that has started this one.
fn take_over(path: &Path, allow_root: bool, (mut newcomer, strict): (NewProcess, bool), output: &Output) -> ExitCode {
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
    let Ok((beginning, no_launcher)) = as_who_started_it(&draft, Beginning { strict, ..Beginning::default() }) else {
        return refused(&newcomer, vec![on_its_own.into()]);
    };
    let Ok(troubles) = drop_privileges(&draft, allow_root) else {
        return refused(&newcomer, vec![on_its_own.into()]);
    };
    let prepared = make_state(&newcomer, &draft, &troubles).and_then(|()| prepare_keys(&draft, &troubles));
    let lost = match prepared {
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
    let warnings = log_warnings(&problems.shown());
    let beginning = Beginning { how: How::Upgrade, warnings, ..beginning };
    lost.iter().for_each(LostKey::log);
    tell_of_first(&first);
    tell_of_start(no_launcher);
    block_on(log, async {
        // The serving process reports why this one does not serve.
        let control = Control::take_over(draft, config, newcomer, listeners, beginning)
            .await
            .map_err(|_| StartError(Reason::default()))?;
        control.announce();
        Ok(control)
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

/// Logs where the promises of a first ledger come from.
fn tell_of_first(first: &FirstPromises) {
    first.found_reason().iter().for_each(|reason| tell_of_new(reason, false));
    first.lost.iter().for_each(|lost| tell_of_new(&lost.reason(), true));
    first.left_out.iter().for_each(tell_of_left_out);
}

fn tell_of_new(reason: &Reason, is_lost: bool) {
    let (problem, hint) = (reason.line(), reason.hint_line());
    match is_lost {
        true => tracing::error!(problem, hint, "the ledger is lost: the previous keys are assumed to be promised"),
        false => tracing::warn!(problem, hint, "the ledger is new"),
    }
}

fn tell_of_left_out(reason: &Reason) {
    let (problem, hint) = (reason.line(), reason.hint_line());
    tracing::error!(problem, hint, "promises in another folder may be missing");
}

/// The knowledge of the process that this one takes over from.
fn known_by(newcomer: &NewProcess, draft: &Draft) -> Result<KnownPromises, Reason> {
    let book = newcomer.book(draft)?;
    let (days, pages) = (newcomer.days(), newcomer.pages_in_use());
    let (named, copies) = (newcomer.named(), newcomer.copies());
    Ok(KnownPromises { days, pages, named, copies, ..KnownPromises::of_book(book) })
}

/// Before anybody reads a key, and as the user that started this process, who may have installed
/// them.
fn settle(draft: &Draft) {
    super::settle(draft, false);
}

/// Makes the keys of certificates that pintle obtains, as the user that serves: their pins are promised from the beginning.
/// Returns the keys that were lost, for the log.
fn prepare_keys(draft: &Draft, troubles: &[Reason]) -> Result<Vec<LostKey>, Reason> {
    // With troubles, pintle does not start, and names them all.
    match troubles.is_empty() && !draft.problems().has_errors() {
        true => crate::acme::store::prepare(&draft.managed()),
        false => Ok(Vec::new()),
    }
}

/// The steps that run as the user that started this process: only that user may be able to read the
/// keys, and a later upgrade must begin in the same way.
fn as_who_started_it(draft: &Draft, beginning: Beginning) -> Result<(Beginning, Option<std::io::Error>), ExitCode> {
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
fn confine(draft: &Draft, config: &Config, own: BTreeSet<u16>) -> Result<(), Reason> {
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

fn tell_of_start(no_launcher: Option<std::io::Error>) {
    if let Some(held) = sandbox::held() {
        sandbox_rules::announce(held);
    }
    if let Some(error) = no_launcher {
        tracing::warn!(error = %words(&error), "no launcher: upgrades are impossible");
    }
}

fn unused_socket(unused: &Lent) -> ExitCode {
    let scheme = unused.scheme.map(|s| format!(" as {}", s.as_str())).unwrap_or_default();
    fail_with_hint(
        &format!(
            "systemd passes a socket on {}{scheme}, which is in neither listen.https nor listen.http",
            unused.address
        ),
        &"name it there, or leave it out of the socket unit; a socket with FileDescriptorName=https or =http must be in the list \
          of that name",
    )
}

/// The command of this demo, with another port for a scheme.
fn demo_at(scheme: &str, port: u16) -> String {
    let option = format!("--{scheme}-port");
    let mut command = format!("pintle demo {option} {port}");
    let mut arguments = std::env::args().skip_while(|argument| argument != "demo").skip(1);
    while let Some(argument) = arguments.next() {
        if argument == option {
            arguments.next();
        } else if !argument.starts_with(&format!("{option}=")) {
            command = format!("{command} {}", shell_word(&argument));
        }
    }
    command
}

fn cannot_bind(errors: &[BindError], is_demo: bool) -> ExitCode {
    for error in errors {
        let reason = Reason::new(error.to_string()).hints(error.hint());
        let port = error.address.port().checked_add(1).unwrap_or(8000);
        refuse(&match is_demo {
            true => reason.hint(format!("choose another port: {}", demo_at(error.scheme.as_str(), port))),
            false => reason,
        });
    }
    ExitCode::from(1)
}

fn tell(remarks: &LedgerRemarks, lost: &[LostKey], no_launcher: Option<std::io::Error>) {
    lost.iter().for_each(LostKey::log);
    if let Some(reason) = &remarks.ahead {
        let (problem, hint) = (reason.line(), reason.hint_line());
        tracing::warn!(problem, hint, "the ledger has dates ahead of the clock");
    }
    if let Some(first) = &remarks.first {
        tell_of_new(&first.reason(), first.is_lost());
    }
    remarks.left_out.iter().for_each(tell_of_left_out);
    for notice in &remarks.notices {
        tracing::warn!(%notice, "ledger");
    }
    tell_of_start(no_launcher);
}

/// Runs the control thread from start to end.
fn block_on(log: LogThread, start: impl Future<Output = Result<Control, StartError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = match runtime.block_on(control(start)) {
        Ok(code) => code,
        Err(StartError(reason)) => {
            drop(log);
            if reason == Reason::default() { ExitCode::from(1) } else { refuse(&reason) }
        }
    };
    // After the drain's time limit, the rest ends with the process.
    runtime.shutdown_background();
    code
}

async fn control(start: impl Future<Output = Result<Control, StartError>>) -> Result<ExitCode, StartError> {
    let mut signals =
        [signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?, signals(SignalKind::quit())?];
    let mut asked = |cx: &mut std::task::Context<'_>| {
        let any = signals.iter_mut().any(|s| s.poll_recv(cx).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    };
    let control = start.await?;
    let ended = control.run(async || std::future::poll_fn(&mut asked).await).await;
    let lost_keys = key_process::running().is_some_and(key_process::KeyProcess::is_gone);
    Ok(match ended {
        Ok(ProcessEnd::Drained) if lost_keys => ExitCode::from(1),
        Ok(ProcessEnd::Drained) => ExitCode::SUCCESS,
        Ok(ProcessEnd::Asked) => ExitCode::from(1),
        Err(error) => fail(&error),
    })
}

fn signals(kind: SignalKind) -> Result<Signal, StartError> {
    Ok(signal(kind)?)
}
