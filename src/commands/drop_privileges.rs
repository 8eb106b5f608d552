//! From root to the user that serves: who that is, what it must be able to read and write, and the step itself.

use std::process::ExitCode;

use super::reach::{self, Pass};
use super::{Known, Output, fail, look_at_book, print_problems};
use crate::config::{At, Context, Draft, Problem, Problems, Severity};
use crate::os::privileges::{self, Account};

/// The user that serves where nobody else is named.
const USER: &str = "pintle";

/// Something that is not as it must be, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) what: String,
    pub(super) hint: String,
}

/// Becomes the user that serves, if this is root; gives what that user lacks.
pub(super) fn drop_privileges(draft: &Draft, allow_root: bool, output: &Output) -> Result<Vec<Trouble>, ExitCode> {
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
            return Err(refuse(&[trouble]));
        }
    };
    prepare(draft, &account);
    let folders = reach::folders(draft);
    let keep_bind = draft.process().bind_low_ports;
    account.become_it(keep_bind).map_err(|error| fail(&format!("cannot become the user {}: {error}", account.user)))?;
    Ok(reach::troubles(draft, &folders, &account, Pass::Making))
}

/// Tells all of it; exit code 1.
pub(super) fn refuse(troubles: &[Trouble]) -> ExitCode {
    for trouble in troubles {
        eprintln!("pintle: {}\n  hint: {}", trouble.what, trouble.hint);
    }
    ExitCode::from(1)
}

/// Who is to serve; nobody else, if root may.
fn account(draft: &Draft, allow_root: bool) -> Result<Option<Account>, Trouble> {
    let process = draft.process();
    let allow_root = allow_root || process.allow_root;
    let Some(user) = &process.user else {
        return match Account::find(USER, None) {
            _ if allow_root => Ok(None),
            Ok(account) => Ok(Some(account)),
            Err(why) => Err(Trouble {
                what: format!("will not serve as root, and {why}"),
                hint: format!(
                    "make one: useradd --system --no-create-home --shell /usr/sbin/nologin {USER}; or name another in \
                     process.user\n  hint: or start as an ordinary user: below port 1024 with CAP_NET_BIND_SERVICE, as \
                     systemd gives it by AmbientCapabilities=\n  hint: or, where nothing but pintle runs, \
                     process.allow_root = true, or --allow-root"
                ),
            }),
        };
    };
    let place = |at: &At<String>| {
        let (line, column) = draft.problems().line_and_column(at.span.start);
        format!("{}:{line}:{column}", draft.path().display())
    };
    let group = process.group.as_ref();
    let account = Account::find(&user.value, group.map(|group| group.value.as_str())).map_err(|why| Trouble {
        what: format!("{}: process: {why}", place(user)),
        hint: format!("useradd --system --no-create-home --shell /usr/sbin/nologin {}", user.value),
    })?;
    if account.is_root() && !allow_root {
        return Err(Trouble {
            what: format!("{}: process.user: will not serve as root", place(user)),
            hint: "name an ordinary user; or say process.allow_root = true, too".into(),
        });
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
    pub(super) troubles: Vec<Trouble>,
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
        // They are read by another process, which stays who started it.
        forbidden.retain(|problem| !problem.message.starts_with("site.certificate.key:"));
    }
    Ahead { troubles, forbidden, readable, account: Some(account) }
}

/// The problems that come of what the user may not read.
fn forbidden(problems: &Problems) -> Vec<Problem> {
    let all = problems.sorted().into_iter().filter(|p| p.severity == Severity::Error);
    all.filter(|p| p.message.contains(privileges::UNREADABLE)).cloned().collect()
}
