//! Changes of any page by people who are logged in: WordPress does not say which pages a change concerns.

use std::future::poll_fn;
use std::sync::Arc;

use http::StatusCode;

use super::super::asked::Turn;
use super::super::reply::Reply;
use crate::cache::editors::KnownEditors;
use crate::cache::purge::PurgeScope;
use crate::cache::purge_pace::PurgeTurn;
use crate::cache::store::Store;
use crate::clock::uptime;
use crate::message::{Name, RequestHead};

/// The files of `/wp-admin/` that WordPress shows to nobody who is not logged in. Others, such as `admin-ajax.php`, answer
/// strangers, too.
const GUARDED: [&str; 18] = [
    "",
    "admin.php",
    "customize.php",
    "edit-comments.php",
    "edit-tags.php",
    "edit.php",
    "index.php",
    "nav-menus.php",
    "options-general.php",
    "plugins.php",
    "post-new.php",
    "post.php",
    "profile.php",
    "site-editor.php",
    "themes.php",
    "upload.php",
    "users.php",
    "widgets.php",
];

/// Learns from an answer of WordPress who is logged in.
pub(super) fn learn(editors: &KnownEditors, reply: &Reply, turn: &Turn<'_>) {
    reply.head.fields.get_all(Name::SetCookie).for_each(|cookie| editors.learn_new(cookie));
    if reply.head.status == StatusCode::OK && is_guarded(turn.head.path()) {
        editors.learn(turn.head.fields.get_all(Name::Cookie));
    }
}

/// `true` for a request by which somebody who is logged in to WordPress may have changed any page. WordPress sends others
/// to its log-in page, or answers them as it answers strangers. A request to xmlrpc.php has its password in its body, and its
/// answer is 200 without it, too.
pub(super) fn is_editors(editors: &KnownEditors, reply: &Reply, turn: &Turn<'_>) -> bool {
    let head = turn.head;
    let to_log_in = reply.head.fields.get(Name::Location).unwrap_or_default();
    // WordPress refuses a wrong password for its API, and reads none elsewhere.
    let has_password = || is_of_api(head) && head.fields.value_of(b"authorization").is_some_and(is_basic);
    // WordPress may live in a folder.
    (head.path().contains("/wp-admin/") || is_of_api(head))
        && (editors.knows(head.fields.get_all(Name::Cookie)) || has_password())
        && memchr::memmem::find(to_log_in, b"/wp-login.php").is_none()
}

/// Purges everything softly, at most once in a while. No change is lost: the last purge comes after it.
pub(super) fn purge_all(store: &Arc<Store>, turn: &Turn<'_>) {
    let clock = &turn.context.worker.clock;
    match store.purge_pace.ask(clock.uptime()) {
        PurgeTurn::Now => _ = store.purge(&PurgeScope::Site, true),
        PurgeTurn::Waits => {}
        PurgeTurn::Later(pause) => {
            let (alarm, due) = (clock.alarm(), DuePurge(store.clone()));
            tokio::task::spawn_local(async move {
                alarm.set(pause);
                poll_fn(|cx| alarm.poll_due(cx)).await;
                drop(due);
            });
        }
    }
}

/// A purge that is done when this is dropped, at the latest when the worker ends.
struct DuePurge(Arc<Store>);

impl Drop for DuePurge {
    fn drop(&mut self) {
        self.0.purge_pace.begin(uptime());
        self.0.purge(&PurgeScope::Site, true);
    }
}

fn is_guarded(path: &str) -> bool {
    path.rsplit_once("/wp-admin/").is_some_and(|(_, file)| GUARDED.contains(&file))
}

/// `true` for a request to the API. Where permalinks are plain, the editor of blocks calls it by a parameter.
fn is_of_api(head: &RequestHead) -> bool {
    head.path().contains("/wp-json/") || has_parameter(head.target_bytes(), b"rest_route")
}

fn is_basic(credentials: &[u8]) -> bool {
    credentials.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "))
}

/// `true` if the query of a target has a parameter.
fn has_parameter(target: &[u8], name: &[u8]) -> bool {
    let query = target.iter().position(|b| *b == b'?').map_or(&[][..], |at| &target[at + 1..]);
    query.split(|b| *b == b'&').any(|pair| pair.split(|b| *b == b'=').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_whole_names() {
        for (target, want) in [
            ("/?rest_route=/wp/v2/posts", true),
            ("/index.php?a=b&rest_route=", true),
            ("/?xrest_route=1", false),
            ("/?a=rest_route=1", false),
            ("/rest_route=1", false),
            ("/", false),
        ] {
            assert_eq!(has_parameter(target.as_bytes(), b"rest_route"), want, "{target}");
        }
    }

    #[test]
    fn files_that_strangers_do_not_see() {
        for (path, want) in [
            ("/wp-admin/", true),
            ("/blog/wp-admin/post.php", true),
            ("/wp-admin/admin-ajax.php", false),
            ("/wp-admin/admin-post.php", false),
            ("/wp-admin/install.php", false),
            ("/wp-admin/css/post.php", false),
            ("/wp-admin/admin-ajax.php/post.php", false),
            ("/wp-admin", false),
            ("/post.php", false),
        ] {
            assert_eq!(is_guarded(path), want, "{path}");
        }
    }
}
