//! The list of pages: the path, the method and the role of each.

use http::Method;

use super::api::{Answer, Api, Call, fits};
use super::asked::PageRequest;
use super::page;
use super::reply::Page;
use crate::config::admin::AdminRole;

/// A page, as an entry of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageName {
    /// `/`
    Overview,
    /// `/first`, the form of the first site
    First,
    /// `/live`: rates as server-sent events
    Live,
    /// `/site/HOST`
    Site,
    /// `/site/HOST/renew`
    Renew,
    /// `/site/HOST/verify`
    Verify,
    /// `/install`
    Install,
    /// `/install`, its forms
    InstallChange,
    /// `/fingerprint`
    Fingerprint,
    /// `/explain`
    Explain,
    /// `/doctor`
    Doctor,
    /// `/logs`
    Logs,
    /// `/config`
    Config,
    /// `/config`, the form of the editor
    ConfigChange,
    /// `/config/restore`
    ConfigRestore,
    /// `/keys`
    Keys,
    /// `/keys`, the form that makes one
    KeysMake,
    /// `/keys/csr`: a CSR to download
    KeysCsr,
    /// `/keys/withdraw`
    KeysWithdraw,
    /// `/keys/rotate`
    KeysRotate,
    /// `/keys/rotate`, its form
    KeysChangeOver,
}

/// Every page: method, path as a pattern of [`fits`], role.
const PAGES: &[(Method, &str, AdminRole, PageName)] = &[
    (Method::GET, "/", AdminRole::View, PageName::Overview),
    (Method::POST, "/first", AdminRole::Configure, PageName::First),
    (Method::GET, "/live", AdminRole::View, PageName::Live),
    (Method::GET, "/site/*", AdminRole::View, PageName::Site),
    (Method::POST, "/site/*/renew", AdminRole::Operate, PageName::Renew),
    (Method::POST, "/site/*/verify", AdminRole::Operate, PageName::Verify),
    (Method::GET, "/fingerprint", AdminRole::View, PageName::Fingerprint),
    (Method::POST, "/fingerprint", AdminRole::View, PageName::Fingerprint),
    (Method::GET, "/explain", AdminRole::View, PageName::Explain),
    (Method::GET, "/doctor", AdminRole::View, PageName::Doctor),
    (Method::GET, "/logs", AdminRole::View, PageName::Logs),
    (Method::GET, "/config", AdminRole::View, PageName::Config),
    (Method::POST, "/config", AdminRole::Configure, PageName::ConfigChange),
    (Method::POST, "/config/restore", AdminRole::Configure, PageName::ConfigRestore),
    (Method::GET, "/install", AdminRole::View, PageName::Install),
    (Method::POST, "/install", AdminRole::Operate, PageName::InstallChange),
    (Method::GET, "/keys", AdminRole::View, PageName::Keys),
    (Method::POST, "/keys", AdminRole::Configure, PageName::KeysMake),
    (Method::GET, "/keys/csr", AdminRole::View, PageName::KeysCsr),
    (Method::POST, "/keys/withdraw", AdminRole::Configure, PageName::KeysWithdraw),
    (Method::GET, "/keys/rotate", AdminRole::View, PageName::KeysRotate),
    (Method::POST, "/keys/rotate", AdminRole::Operate, PageName::KeysChangeOver),
];

/// The result of a search for a page.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The page, and the role that it needs.
    Page(PageName, AdminRole),
    /// The path has other methods.
    OtherMethod(String),
    /// No page has this path.
    Nothing,
}

/// Finds a page.
#[must_use]
pub fn find(method: &Method, path: &str) -> Found {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let of_path: Vec<_> = PAGES.iter().filter(|(_, known, ..)| fits(known, path)).collect();
    match of_path.iter().find(|(known, ..)| known == method) {
        Some((_, _, role, name)) => Found::Page(*name, *role),
        None if of_path.is_empty() => Found::Nothing,
        None => Found::OtherMethod(of_path.iter().map(|(method, ..)| method.as_str()).collect::<Vec<_>>().join(", ")),
    }
}

/// Renders a page.
pub async fn show(name: PageName, api: &impl Api, asked: &PageRequest) -> Page {
    let api = &OfReader { api, asked };
    match name {
        PageName::Overview => page::overview::show(api, asked).await,
        PageName::First => page::first::look(api, asked).await,
        PageName::Live => page::rates::live(api, asked).await,
        PageName::Site => page::site::show(api, asked).await,
        PageName::Renew => page::site::renew(api, asked).await,
        PageName::Verify => page::site::verify(api, asked).await,
        PageName::Fingerprint => page::fingerprint::show(api, asked).await,
        PageName::Explain => page::explain::show(api, asked).await,
        PageName::Doctor => page::doctor::show(api, asked).await,
        PageName::Logs => page::logs::show(api, asked).await,
        PageName::Config => page::config::show(api, asked).await,
        PageName::ConfigChange => page::config::change(api, asked).await,
        PageName::ConfigRestore => page::config::restore(api, asked).await,
        PageName::Install => page::install::show(api, asked).await,
        PageName::InstallChange => page::install::change(api, asked).await,
        PageName::Keys => page::keys::show(api, asked).await,
        PageName::KeysMake => page::keys::make(api, asked).await,
        PageName::KeysCsr => page::keys::csr(api, asked).await,
        PageName::KeysWithdraw => page::keys::withdraw(api, asked).await,
        PageName::KeysRotate => page::rotate::show(api, asked).await,
        PageName::KeysChangeOver => page::rotate::change_over(api, asked).await,
    }
}

/// The API with the permissions of a reader: a page can do no more than its reader may.
struct OfReader<'a, A> {
    api: &'a A,
    asked: &'a PageRequest,
}

impl<A: Api> Api for OfReader<'_, A> {
    async fn call(&self, call: Call) -> Answer {
        let needed = super::api::find(&call.path).and_then(|path| path.role(&call.method));
        match needed {
            Some(role) if !self.asked.session.may(role) => Answer::needs_role(role),
            _ => {
                self.api
                    .call(Call {
                        who: self.asked.session.who.clone(),
                        is_confidential: self.asked.is_confidential,
                        shows_secrets: self.asked.session.may(AdminRole::Configure),
                        ..call
                    })
                    .await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_pages() {
        assert_eq!(find(&Method::GET, "/"), Found::Page(PageName::Overview, AdminRole::View));
        assert_eq!(find(&Method::HEAD, "/"), Found::Page(PageName::Overview, AdminRole::View));
        assert_eq!(find(&Method::PUT, "/"), Found::OtherMethod("GET".into()));
        assert_eq!(find(&Method::GET, "/nothing"), Found::Nothing);
        for (pattern, path, is_fit) in [
            ("/site/*", "/site/a", true),
            ("/site/*", "/site/", false),
            ("/site/*", "/site", false),
            ("/site/*", "/site/a/b", false),
            ("/site/*/chain", "/site/a/chain", true),
        ] {
            assert_eq!(fits(pattern, path), is_fit, "{pattern} {path}");
        }
    }
}
