//! From root to the serving user: which user that is, what it must be able to read and write, and
//! the change itself.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::process::ExitCode;

use super::lost_ledger::{LostLedger, refusal};
use super::reach::{self, FolderTreatment};
use super::{KnownPromises, fail, look_at_book, print_problems, refuse};
use crate::config::{At, CheckContext, Draft, Problems};
use crate::os::privileges::{self, NoAccount, USER, UserAccount};
use crate::os::words::words;
use crate::reason::{Kind, Problem, Reason, shell_path, shell_word};

/// Returns the command that makes a user for pintle.
pub(super) fn useradd(user: &str) -> String {
    format!("useradd --system --no-create-home --shell /usr/sbin/nologin {}", shell_word(user))
}

/// Becomes the serving user if this process is root. Returns the problems of that user.
pub(super) fn drop_privileges(draft: &Draft, allow_root: bool) -> Result<Vec<Reason>, ExitCode> {
    // The judgement reports a configuration that cannot be parsed.
    if !privileges::is_root() || draft.problems().has_errors() {
        return Ok(Vec::new());
    }
    let account = match account(draft, allow_root) {
        Ok(Some(account)) => account,
        Ok(None) => return Ok(Vec::new()),
        Err(trouble) => {
            // Report all problems at once. An empty name is one of them.
            let known = look_at_book(draft);
            if let Ok(KnownPromises { book, now, .. }) = &known {
                print_problems(&draft.build(&CheckContext::new(book, *now)).1);
            }
            return Err(if known.is_ok() && has_empty_name(draft) { ExitCode::from(1) } else { refuse(&trouble) });
        }
    };
    prepare(draft, &account);
    let folders = reach::folders(draft);
    let keep_bind = draft.process().bind_low_ports;
    account
        .become_it(keep_bind)
        .map_err(|error| fail(&format!("cannot become the user {}: {}", account.user, words(&error))))?;
    Ok(reach::troubles(draft, &folders, &account, FolderTreatment::Making))
}

/// `true` if the configuration names nobody, which its judgement reports.
fn has_empty_name(draft: &Draft) -> bool {
    let process = draft.process();
    [process.user, process.group].iter().flatten().any(|name| name.value.is_empty())
}

/// The user that serves; `None` if root may serve.
fn account(draft: &Draft, allow_root: bool) -> Result<Option<UserAccount>, Reason> {
    let process = draft.process();
    let allow_root = allow_root || process.allow_root;
    let Some(user) = &process.user else {
        return match UserAccount::find(USER, None) {
            _ if allow_root => Ok(None),
            Ok(account) => Ok(Some(account)),
            Err(why) => Err(Reason::new(format!("will not serve as root, and {why}"))
                .hint(format!("make the user: {}", useradd(USER)))
                .hint("name another user: process.user = \"NAME\"")
                .hint(
                    "start as an ordinary user; below port 1024 with CAP_NET_BIND_SERVICE, which systemd grants with \
                     AmbientCapabilities=",
                )
                .hint("on a host where nothing but pintle runs: process.allow_root = true, or --allow-root")),
        };
    };
    let placed = |at: &At<String>, reason: Reason| draft.problems().placed(&Problem::error(&at.span, reason)).reason;
    let group = process.group.as_ref();
    let account =
        UserAccount::find(&user.value, group.map(|group| group.value.as_str())).map_err(|why| match &why {
            NoAccount::User(name) => placed(user, Reason::new(format!("process.user: {why}")).hint(useradd(name))),
            NoAccount::Group(name) => {
                let hint = format!("groupadd --system {}", shell_word(name));
                placed(group.unwrap_or(user), Reason::new(format!("process.group: {why}")).hint(hint))
            }
        })?;
    if account.is_root() && !allow_root {
        let reason = Reason::new("process.user: will not serve as root").hint("name an ordinary user");
        let hint = "on a host where nothing but pintle runs: process.allow_root = true, too";
        return Err(placed(user, reason.hint(hint)));
    }
    Ok((!account.is_root()).then_some(account))
}

/// Creates the folders and files that the user will own. `reach` reports failures, since it
/// inspects the results.
fn prepare(draft: &Draft, account: &UserAccount) {
    for folder in reach::folders(draft) {
        let _ = account.create_folder(&folder.path);
    }
    if let Some(file) = draft.access_file() {
        let _ = account.create_file(&file);
    }
}

/// Creates the state folder for the serving user: for commands that write there while no process
/// serves.
///
/// # Errors
///
/// If that user cannot make it: one of root would keep the next start out.
pub(super) fn make_state(draft: &Draft) -> Result<(), Reason> {
    let (true, Some(state), Ok(Some(account))) = (privileges::is_root(), draft.state(), account(draft, false)) else {
        return Ok(());
    };
    let _ = account.create_folder(&state);
    if state.exists() {
        return Ok(());
    }
    // Others may have prepared the place, so it is made with the rights of that user alone.
    let why = match account.as_it(|| DirBuilder::new().recursive(true).mode(0o700).create(&state)) {
        Some(Ok(())) => return Ok(()),
        Some(Err(error)) => words(&error),
        None => "this process cannot become that user".to_owned(),
    };
    let (user, place) = (shell_word(&account.user), shell_path(&state));
    let what = format!("{}: the user {} cannot make it: {why}", state.display(), account.user);
    Err(Reason::new(what).hint(format!("make it: install -d -o {user} -m 700 {place}")))
}

/// The findings of a check about the serving user.
#[derive(Default)]
pub(super) struct Ahead {
    /// The problems that keep it from serving.
    pub(super) troubles: Vec<Reason>,
    /// The files that it cannot read.
    pub(super) forbidden: Vec<Problem>,
    /// Warnings: keys that it can read, although a key process holds them, and next keys that it cannot read.
    pub(super) readable: Vec<Problem>,
    /// The user, if it is not the one that starts pintle.
    pub(super) account: Option<UserAccount>,
}

/// The problems that would keep `pintle run` from serving as another user than root: for `pintle
/// check`, which stays root.
pub(super) fn look_ahead(draft: &Draft, known: &KnownPromises, allow_root: bool) -> Ahead {
    if draft.problems().has_errors() || has_empty_name(draft) {
        return Ahead::default();
    }
    if !privileges::is_root() {
        return Ahead { forbidden: reach::of_own_log(draft).into_iter().collect(), ..Ahead::default() };
    }
    let account = match account(draft, allow_root) {
        Ok(Some(account)) => account,
        Ok(None) => return Ahead { forbidden: reach::of_own_log(draft).into_iter().collect(), ..Ahead::default() },
        Err(trouble) => return Ahead { troubles: vec![trouble], ..Ahead::default() },
    };
    let folders = reach::folders(draft);
    let looked = account.as_it(|| {
        let (_, problems) = draft.build(&CheckContext::new(&known.book, known.now));
        let mut troubles = reach::troubles(draft, &folders, &account, FolderTreatment::Looking);
        // It may be unable to read what root can.
        troubles.extend(refusal(LostLedger::of(draft, &known.book).as_ref(), draft));
        (troubles, reach::readable_keys(draft, &account.user), problems)
    });
    let Some((troubles, readable, problems)) = looked else { return Ahead::default() };
    let mut forbidden = forbidden(&problems);
    let mut readable = readable;
    readable.extend(forbidden_next_keys(&problems));
    if draft.kept_keys().is_some() {
        // The key process reads them, as the user that started it.
        forbidden.retain(|problem| problem.kind != Kind::UnreadableKey);
    }
    Ahead { troubles, forbidden, readable, account: Some(account) }
}

/// The warnings of next keys that the user cannot read.
fn forbidden_next_keys(problems: &Problems) -> Vec<Problem> {
    let all = problems.sorted().into_iter().filter(|p| !p.is_error() && p.kind == Kind::UnreadableKey);
    all.cloned().collect()
}

/// The problems of files that the user cannot read.
fn forbidden(problems: &Problems) -> Vec<Problem> {
    let all = problems.sorted().into_iter().filter(|p| p.is_error());
    all.filter(|p| matches!(p.kind, Kind::Unreadable | Kind::UnreadableKey)).cloned().collect()
}
