//! The ways in and out: the one-time link, the log-in, and the end of a session.

use std::cell::{OnceCell, RefCell};
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::asked::FormFields;
use super::attempts::{LogInAttempts, LogInNetwork, StrangerWarnings};
use super::guard;
use super::page::login;
use super::password::PasswordThread;
use super::reply::Page;
use super::session::{PageSession, Sessions, SignedInBy};
use crate::config::admin::{AdminRole, SharedAccess};
use crate::reason::counted;
use crate::tls::client_auth::ClientIdentity;

/// The path of a one-time link, before its secret.
const LINK: &str = "/link/";
/// The longest name in the log, in characters.
const NAME_SHOWN: usize = 64;

/// The connection of a request.
#[derive(Debug, Clone)]
pub struct PageVisitor {
    /// The address; `None` through the admin socket.
    pub address: Option<IpAddr>,
    /// `true` over TLS.
    pub is_secure: bool,
    /// The certificate of the client.
    pub client: ClientProof,
}

/// The worth of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientProof {
    /// Nobody asks for certificates here.
    NotWanted,
    /// The client has shown none.
    Missing,
    /// It does not let the client in: the reason.
    Refused(String),
    /// It lets the client in, with a role.
    Proved(ClientIdentity, AdminRole),
}

impl ClientProof {
    /// The reason why the certificate lets nobody in; `None` if it does, or if nobody asks for one.
    #[must_use]
    pub fn objection(&self) -> Option<String> {
        match self {
            Self::NotWanted | Self::Proved(..) => None,
            Self::Missing => Some("Your browser has shown no client certificate.".to_owned()),
            Self::Refused(why) => Some(format!("Your client certificate was refused: {why}.")),
        }
    }
}

impl PageVisitor {
    /// `true` if nobody on the way can read the request.
    #[must_use]
    pub fn is_confidential(&self) -> bool {
        self.is_secure || self.address.is_none_or(|address| address.to_canonical().is_loopback())
    }

    /// The address, for the log.
    #[must_use]
    pub fn from(&self) -> String {
        self.address.map_or_else(|| "admin socket".to_owned(), |address| address.to_canonical().to_string())
    }
}

/// The sessions, and everything that begins or ends one.
pub struct Entrance {
    access: SharedAccess,
    sessions: RefCell<Sessions>,
    attempts: RefCell<LogInAttempts>,
    warnings: RefCell<StrangerWarnings>,
    passwords: OnceCell<PasswordThread>,
}

/// `true` if a path is a way in or out.
#[must_use]
pub fn is_entrance(method: &Method, path: &str) -> bool {
    let reads = guard::is_safe(method);
    match path {
        "/login" => reads || *method == Method::POST,
        "/logout" => *method == Method::POST,
        _ => reads && path.strip_prefix(LINK).is_some_and(|secret| !secret.is_empty()),
    }
}

impl Entrance {
    /// The entrance of this host.
    #[must_use]
    pub fn new(access: SharedAccess) -> Self {
        let (sessions, attempts, warnings) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { access, sessions, attempts, warnings, passwords: OnceCell::new() }
    }

    /// Returns `true` if one more refusal of a stranger may be logged.
    #[must_use]
    pub fn may_warn(&self) -> bool {
        self.warnings.borrow_mut().may(Instant::now())
    }

    /// The session of a request, with its id; `None` without one.
    #[must_use]
    pub fn session(&self, headers: &HeaderMap, visitor: &PageVisitor) -> Option<(PageSession, String)> {
        let (access, now) = (self.access.now(), Instant::now());
        let mut sessions = self.sessions.borrow_mut();
        let by_cookie = guard::cookies(headers, visitor.is_secure)
            .find_map(|id| Some((sessions.find(id, &access, now)?, id.to_owned())));
        if by_cookie.is_some() {
            return by_cookie;
        }
        // The certificate replaces the session: there is no cookie, and no id.
        let ClientProof::Proved(identity, role) = &visitor.client else { return None };
        let (session, is_new) = sessions.of_certificate(identity, *role, now)?;
        if is_new {
            let (who, role, from) = (&session.who, session.role.name(), visitor.from());
            tracing::info!(who, role, from, serial = identity.serial, "signed in by certificate");
        }
        Some((session, String::new()))
    }

    /// Makes a one-time link for a reader. Returns its path; `None` without random bytes.
    #[must_use]
    pub fn link(&self, who: &str, role: AdminRole) -> Option<String> {
        let secret = self.sessions.borrow_mut().link(who, role, Instant::now())?;
        tracing::info!(who, role = role.name(), "one-time link made");
        Some(format!("{LINK}{secret}"))
    }

    /// Answers a request for a way in or out; `old` is the session that the browser has.
    pub async fn answer(
        &self,
        (method, path): (&Method, &str),
        form: &FormFields,
        old: Option<(PageSession, String)>,
        visitor: &PageVisitor,
    ) -> Page {
        match path {
            "/logout" => self.log_out(form, old, visitor),
            "/login" if *method == Method::POST => self.log_in(form, old, visitor).await,
            "/login" => self.login_page("", visitor.client.objection().as_deref()),
            _ => self.redeem(path.strip_prefix(LINK).unwrap_or_default(), old, visitor),
        }
    }

    fn login_page(&self, name: &str, wrong: Option<&str>) -> Page {
        login::show(!self.access.now().users.is_empty(), name, wrong, None)
    }

    /// The log-in for a reader whose session has ended, with the text that they have sent.
    #[must_use]
    pub fn ended(&self, text: &str) -> Page {
        let wrong = Some("Your session has ended. Nothing was changed.");
        let page = login::show(!self.access.now().users.is_empty(), "", wrong, Some(text));
        page.with_status(StatusCode::UNAUTHORIZED)
    }

    /// A new session gets a new id, whatever the browser sent: an id that somebody else has planted stays worthless.
    fn welcome(&self, id: &str, old: Option<(PageSession, String)>, visitor: &PageVisitor) -> Page {
        if let Some((_, old)) = old {
            self.sessions.borrow_mut().end(&old);
        }
        Page::see("/").with(header::SET_COOKIE, guard::set_cookie(Some(id), visitor.is_secure))
    }

    fn redeem(&self, secret: &str, old: Option<(PageSession, String)>, visitor: &PageVisitor) -> Page {
        let id = self.sessions.borrow_mut().redeem(secret, Instant::now());
        let Some(id) = id else {
            if self.may_warn() {
                tracing::warn!(from = visitor.from(), "one-time link refused: it was used, or is too old");
            }
            let wrong = "This link was used before, or is older than two minutes. Make another one.";
            return self.login_page("", Some(wrong)).with_status(StatusCode::FORBIDDEN);
        };
        if let Some(session) = self.sessions.borrow_mut().find(&id, &self.access.now(), Instant::now()) {
            let (who, role, from) = (session.who, session.role.name(), visitor.from());
            tracing::info!(who, role, from, "signed in by a one-time link");
        }
        self.welcome(&id, old, visitor)
    }

    async fn log_in(&self, form: &FormFields, old: Option<(PageSession, String)>, visitor: &PageVisitor) -> Page {
        let name = form.get("name").unwrap_or_default();
        let password = Zeroizing::new(form.get("password").unwrap_or_default().to_owned());
        let access = self.access.now();
        if access.users.is_empty() {
            return self.login_page(name, Some("No password is configured.")).with_status(StatusCode::FORBIDDEN);
        }
        let shown: String = name.chars().take(NAME_SHOWN).collect();
        let (network, from) = (LogInNetwork::of(visitor.address), visitor.from());
        let begun = self.attempts.borrow_mut().begin(network, Instant::now());
        let left = match begun {
            Ok(left) => left,
            Err(pause) => {
                let seconds = pause.as_secs().max(1);
                let wrong = format!("Too many wrong passwords. Try again in {}.", in_words(pause));
                let page = self.login_page(name, Some(&wrong)).with_status(StatusCode::TOO_MANY_REQUESTS);
                return page.with(header::RETRY_AFTER, seconds.to_string());
            }
        };
        let fits = match self.thread() {
            Some(thread) => thread.fits(&access, name, password).await,
            None => None,
        };
        let Some(fits) = fits else {
            let wrong = "pintle is checking too many passwords at once. Try again.";
            return self.login_page(name, Some(wrong)).with_status(StatusCode::SERVICE_UNAVAILABLE);
        };
        let user = access.users.iter().find(|user| fits && user.name == name);
        let id = user.and_then(|user| {
            let by = SignedInBy::Password(user.password.clone());
            self.sessions.borrow_mut().begin(&user.name, user.role, by, Instant::now())
        });
        let (Some(user), Some(id)) = (user, id) else {
            tracing::warn!(name = shown, from, tries_left = left, "log-in refused: wrong name or password");
            let wrong = match left {
                0 => "The name or the password is wrong. Wait one minute or longer.".to_owned(),
                left => format!(
                    "The name or the password is wrong. {} left before a pause of one minute.",
                    if left == 1 { "1 try is".to_owned() } else { format!("{left} tries are") }
                ),
            };
            return self.login_page(name, Some(&wrong)).with_status(StatusCode::UNAUTHORIZED);
        };
        self.attempts.borrow_mut().succeeded(network);
        tracing::info!(who = user.name, role = user.role.name(), from, "signed in by password");
        self.welcome(&id, old, visitor)
    }

    fn log_out(&self, form: &FormFields, old: Option<(PageSession, String)>, visitor: &PageVisitor) -> Page {
        let gone = Page::see("/login").with(header::SET_COOKIE, guard::set_cookie(None, visitor.is_secure));
        let Some((session, id)) = old else { return gone };
        if !session.fits(form.get("csrf").unwrap_or_default()) {
            let wrong = "The form was not from a page of this session. Nothing was changed.";
            return self.login_page("", Some(wrong)).with_status(StatusCode::FORBIDDEN);
        }
        self.sessions.borrow_mut().end(&id);
        tracing::info!(who = session.who, from = visitor.from(), "signed out");
        gone
    }

    fn thread(&self) -> Option<&PasswordThread> {
        if self.passwords.get().is_none() {
            match PasswordThread::start() {
                Ok(thread) => _ = self.passwords.set(thread),
                Err(error) => tracing::error!(%error, "no thread checks passwords"),
            }
        }
        self.passwords.get()
    }
}

fn in_words(pause: Duration) -> String {
    match pause.as_secs() {
        0..=90 => counted(pause.as_secs().max(1), "second"),
        seconds => counted(seconds.div_ceil(60), "minute"),
    }
}
