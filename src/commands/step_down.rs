//! From root to the user that serves: who that is, what it must be able to read and write, and the step itself.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{Access, access};

use super::{Output, fail, look_at_book, print_problems};
use crate::config::{AdminAddress, At, Context, Draft, Problem, Problems, Severity};
use crate::ledger::Book;
use crate::ledger::time::wall;
use crate::privileges::{self, Account};

/// The user that serves where nobody else is named.
const USER: &str = "pintle";

/// Something that is not as it must be, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) what: String,
    pub(super) hint: String,
}

/// Becomes the user that serves, if this is root; gives what that user lacks.
pub(super) fn step_down(draft: &Draft, allow_root: bool, output: &Output) -> Result<Vec<Trouble>, ExitCode> {
    // What cannot be understood is told when it is judged.
    if !privileges::is_root() || draft.problems().has_errors() {
        return Ok(Vec::new());
    }
    let account = match account(draft, allow_root) {
        Ok(Some(account)) => account,
        Ok(None) => return Ok(Vec::new()),
        Err(trouble) => {
            // All that is wrong is told at once.
            if let Ok(book) = look_at_book(draft) {
                print_problems(&draft.resolve(&Context::new(&book, wall())).1, output);
            }
            return Err(refuse(&[trouble]));
        }
    };
    prepare(draft, &account);
    let keep_bind = draft.process().bind_low_ports;
    account.become_it(keep_bind).map_err(|error| fail(&format!("cannot become the user {}: {error}", account.user)))?;
    Ok(troubles(draft, &account))
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

/// Makes what the user will own. Whatever fails is told by `troubles`, which looks at what has come of it.
fn prepare(draft: &Draft, account: &Account) {
    for folder in own_folders(draft) {
        let _ = account.own_folder(&folder);
    }
    if let Some(file) = draft.access_file() {
        let _ = account.own_file(&file);
    }
}

/// The folders in which the user makes files as it serves.
fn own_folders(draft: &Draft) -> Vec<PathBuf> {
    let socket = match draft.admin() {
        Some(AdminAddress::Unix(path)) => path.parent().map(Path::to_owned),
        Some(AdminAddress::Tcp(_)) | None => None,
    };
    let mut folders: Vec<PathBuf> = draft.state().into_iter().chain(socket).collect();
    folders.dedup();
    folders
}

/// What this process, or this thread, cannot do as the user that it has become.
fn troubles(draft: &Draft, account: &Account) -> Vec<Trouble> {
    let Account { user, group, .. } = account;
    let mut troubles = Vec::new();
    if let Err(error) = fs::File::open(draft.path()) {
        troubles.push(Trouble {
            what: format!("{}: the user {user} cannot read it: {error}", draft.path().display()),
            hint: account.hint_to_read(draft.path()),
        });
    }
    for folder in own_folders(draft) {
        let usable = match access(&folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|_| error)
            }
            other => other,
        };
        if let Err(error) = usable {
            troubles.push(Trouble {
                what: format!("{}: the user {user} cannot write there: {error}", folder.display()),
                hint: format!("install -d -o {user} -g {group} -m 700 {}", folder.display()),
            });
        }
    }
    if let Some(file) = draft.access_file()
        && let Err(error) = fs::OpenOptions::new().append(true).create(true).open(&file)
    {
        troubles.push(Trouble {
            what: format!("log.access: {}: the user {user} cannot write it: {error}", file.display()),
            hint: format!("install -o {user} -g {group} -m 640 /dev/null {}", file.display()),
        });
    }
    troubles
}

/// What would keep `pintle run` from serving as somebody else than root: for `pintle check`, which stays who it is.
pub(super) fn look_ahead(draft: &Draft, book: &Book, allow_root: bool) -> (Vec<Trouble>, Vec<Problem>) {
    if !privileges::is_root() || draft.problems().has_errors() {
        return (Vec::new(), Vec::new());
    }
    let account = match account(draft, allow_root) {
        Ok(Some(account)) => account,
        Ok(None) => return (Vec::new(), Vec::new()),
        Err(trouble) => return (vec![trouble], Vec::new()),
    };
    // A thread of its own can be another user, and takes that with it when it ends.
    let look = || {
        account.become_in_thread().ok()?;
        let (_, problems) = draft.resolve(&Context::new(book, wall()));
        Some((unreachable(draft, &account), problems))
    };
    let looked = std::thread::scope(|scope| scope.spawn(look).join().ok().flatten());
    let Some((troubles, problems)) = looked else { return (Vec::new(), Vec::new()) };
    let mut forbidden = forbidden(&problems);
    if draft.kept_keys().is_some() {
        // They are read by another process, which stays who started it.
        forbidden.retain(|problem| !problem.message.starts_with("site.certificate.key:"));
    }
    (troubles, forbidden)
}

/// The same as [`troubles`], of what is there, and without a trace.
fn unreachable(draft: &Draft, account: &Account) -> Vec<Trouble> {
    let there = own_folders(draft).into_iter().filter(|folder| folder.exists());
    let shut = there.filter(|folder| access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err());
    let folders = shut.map(|folder| Trouble {
        what: format!("{}: the user {} cannot write there", folder.display(), account.user),
        hint: format!("chown -R {}:{} {}", account.user, account.group, folder.display()),
    });
    let file = access(draft.path(), Access::READ_OK).is_err().then(|| Trouble {
        what: format!("{}: the user {} cannot read it", draft.path().display(), account.user),
        hint: account.hint_to_read(draft.path()),
    });
    folders.chain(file).collect()
}

/// The problems that come of what the user may not read.
fn forbidden(problems: &Problems) -> Vec<Problem> {
    let all = problems.sorted().into_iter().filter(|p| p.severity == Severity::Error);
    all.filter(|p| p.message.contains(privileges::UNREADABLE)).cloned().collect()
}
