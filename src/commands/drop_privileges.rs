//! From root to the user that serves: who that is, what it must be able to read and write, and the step itself.

use std::process::ExitCode;

use super::reach::{self, Pass};
use super::{Known, Output, fail, look_at_book, print_problems, refuse};
use crate::config::{Context, Draft, Problems};
use crate::os::privileges::{self, Account};
use crate::reason::{Kind, Problem, Reason};

/// The user that serves where nobody else is named.
const USER: &str = "pintle";

/// Becomes the user that serves, if this is root; gives what that user lacks.
pub(super) fn drop_privileges(draft: &Draft, allow_root: bool, output: &Output) -> Result<Vec<Reason>, ExitCode> {
    // What cannot be understood is told when it is judged.
    if !privileges::is_root() || draft.problems().has_errors() {
        return Ok(Vec::new());
    }
    let account = match account(draft, allow_root) {
        Ok(Some(account)) => account,
        Ok(None) => return Ok(Vec::new()),
        Err(trouble) => {
            // All that is wrong is told at once.
            if let Ok(Known { book, now, .. }) = look_at_book(draft) {
                print_problems(&draft.build(&Context::new(&book, now)).1, output);
            }
            return Err(refuse(&trouble));
        }
    };
    prepare(draft, &account);
    let folders = reach::folders(draft);
    let keep_bind = draft.process().bind_low_ports;
    account.become_it(keep_bind).map_err(|error| fail(&format!("cannot become the user {}: {error}", account.user)))?;
    Ok(reach::troubles(draft, &folders, &account, Pass::Making))
}

/// Who is to serve; nobody else, if root may.
fn account(draft: &Draft, allow_root: bool) -> Result<Option<Account>, Reason> {
    let process = draft.process();
    let allow_root = allow_root || process.allow_root;
    let Some(user) = &process.user else {
        return match Account::find(USER, None) {
            _ if allow_root => Ok(None),
            Ok(account) => Ok(Some(account)),
            Err(why) => Err(Reason::new(format!("will not serve as root, and {why}"))
                .hint(format!("make the user: useradd --system --no-create-home --shell /usr/sbin/nologin {USER}"))
                .hint("name another user: process.user = \"NAME\"")
                .hint(
                    "start as an ordinary user; below port 1024 with CAP_NET_BIND_SERVICE, which systemd gives by \
                     AmbientCapabilities=",
                )
                .hint("on a host where nothing but pintle runs: process.allow_root = true, or --allow-root")),
        };
    };
    let placed = |reason: Reason| draft.problems().placed(&Problem::error(&user.span, reason)).reason;
    let group = process.group.as_ref();
    let account = Account::find(&user.value, group.map(|group| group.value.as_str())).map_err(|why| {
        let hint = format!("useradd --system --no-create-home --shell /usr/sbin/nologin {}", user.value);
        placed(Reason::new(format!("process: {why}")).hint(hint))
    })?;
    if account.is_root() && !allow_root {
        let reason = Reason::new("process.user: will not serve as root").hint("name an ordinary user");
        return Err(placed(reason.hint("on a host where nothing but pintle runs: process.allow_root = true, too")));
    }
    Ok((!account.is_root()).then_some(account))
}

/// Makes what the user will own. Whatever fails is told by `reach`, which looks at what has come of it.
fn prepare(draft: &Draft, account: &Account) {
    for folder in reach::folders(draft) {
        let _ = account.own_folder(&folder.path);
    }
    if let Some(file) = draft.access_file() {
        let _ = account.own_file(&file);
    }
}

/// Makes the folder of the state for the user that will serve, for commands that write there while nobody serves.
pub(super) fn make_state(draft: &Draft) {
    if let (true, Some(state), Ok(Some(account))) = (privileges::is_root(), draft.state(), account(draft, false)) {
        let _ = account.own_folder(&state);
    }
}

/// What is found out about the user that will serve.
#[derive(Default)]
pub(super) struct Ahead {
    /// What keeps it from serving.
    pub(super) troubles: Vec<Reason>,
    /// What it may not read.
    pub(super) forbidden: Vec<Problem>,
    /// Keys that it may read itself, although another process has them.
    pub(super) readable: Vec<Problem>,
    /// Who it is, if it is another one than whoever starts pintle.
    pub(super) account: Option<Account>,
}

/// What would keep `pintle run` from serving as somebody else than root: for `pintle check`, which stays who it is.
pub(super) fn look_ahead(draft: &Draft, known: &Known, allow_root: bool) -> Ahead {
    if !privileges::is_root() || draft.problems().has_errors() {
        return Ahead::default();
    }
    let account = match account(draft, allow_root) {
        Ok(Some(account)) => account,
        Ok(None) => return Ahead::default(),
        Err(trouble) => return Ahead { troubles: vec![trouble], ..Ahead::default() },
    };
    let folders = reach::folders(draft);
    let looked = account.as_it(|| {
        let (_, problems) = draft.build(&Context::new(&known.book, known.now));
        let troubles = reach::troubles(draft, &folders, &account, Pass::Looking);
        (troubles, reach::readable_keys(draft, &account.user), problems)
    });
    let Some((troubles, readable, problems)) = looked else { return Ahead::default() };
    let mut forbidden = forbidden(&problems);
    if draft.kept_keys().is_some() {
        // The key process reads them, as the user that started it.
        forbidden.retain(|problem| problem.kind != Kind::UnreadableKey);
    }
    Ahead { troubles, forbidden, readable, account: Some(account) }
}

/// The problems that come of what the user may not read.
fn forbidden(problems: &Problems) -> Vec<Problem> {
    let all = problems.sorted().into_iter().filter(|p| p.is_error());
    all.filter(|p| matches!(p.kind, Kind::Unreadable | Kind::UnreadableKey)).cloned().collect()
}
