//! One-time links and sessions: the readers of the pages, and the beginning and end of their visits.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::config::admin::{AdminAccess, AdminRole, StoredPassword};
use crate::tls::client_auth::ClientIdentity;

/// Random bytes of a link, a session and a form token.
const RANDOM: usize = 32;
/// Links that wait for their use, at most; the oldest makes room.
const LINKS_MAX: usize = 16;
/// Sessions at the same time, at most; the one that was idle longest makes room.
const SESSIONS_MAX: usize = 64;
/// The life of a link.
pub const LINK_LIFE: Duration = Duration::from_secs(120);
/// A session ends after this time without a request.
pub const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// A session ends after this time in any case.
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);

/// A reader: who it is, and what they may do.
#[derive(Debug, Clone)]
pub struct PageSession {
    /// The name, for logs and histories.
    pub who: String,
    /// The permissions.
    pub role: AdminRole,
    /// The token that each form of this session carries.
    pub csrf: String,
}

impl PageSession {
    /// `true` if the reader has the permissions of a role.
    #[must_use]
    pub fn may(&self, role: AdminRole) -> bool {
        self.role >= role
    }

    /// `true` if a form carries the token of this session.
    #[must_use]
    pub fn fits(&self, token: &str) -> bool {
        !self.csrf.is_empty() && verify_slices_are_equal(self.csrf.as_bytes(), token.as_bytes()).is_ok()
    }
}

/// The proof that began a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedInBy {
    /// A one-time link.
    Link,
    /// The password with this hash. A session ends when the hash or the role changes.
    Password(StoredPassword),
    /// A certificate, which each connection proves anew.
    Certificate,
}

/// The hash of a secret: the table holds no secret, and a search in it tells nothing about one.
type SecretHash = [u8; 32];

struct OneTimeLink {
    secret: SecretHash,
    who: String,
    role: AdminRole,
    until: Instant,
}

struct OpenSession {
    session: PageSession,
    by: SignedInBy,
    until: Instant,
    used: Instant,
}

/// The links and sessions of a process.
#[derive(Default)]
pub struct Sessions {
    links: Vec<OneTimeLink>,
    open: HashMap<SecretHash, OpenSession>,
    /// Sessions of certificates, by the hash of the certificate, which is public.
    certified: HashMap<[u8; 32], OpenSession>,
}

impl Sessions {
    /// Makes a link's secret; `None` without random bytes.
    pub fn link(&mut self, who: &str, role: AdminRole, now: Instant) -> Option<String> {
        let secret = random()?;
        self.links.retain(|link| link.until > now);
        if self.links.len() >= LINKS_MAX {
            self.links.remove(0);
        }
        self.links.push(OneTimeLink { secret: hash(&secret), who: who.to_owned(), role, until: now + LINK_LIFE });
        Some(secret)
    }

    /// Begins a session with a link's secret, which nobody can use again. Returns the id of the session; `None` if the
    /// link was used, is too old, or never was.
    pub fn redeem(&mut self, secret: &str, now: Instant) -> Option<String> {
        let secret = hash(secret);
        let link = self.links.remove(self.links.iter().position(|link| link.secret == secret)?);
        (link.until > now).then_some(())?;
        self.begin(&link.who, link.role, SignedInBy::Link, now)
    }

    /// Begins a session. Returns its id; `None` without random bytes.
    pub fn begin(&mut self, who: &str, role: AdminRole, by: SignedInBy, now: Instant) -> Option<String> {
        let (id, csrf) = (random()?, random()?);
        self.open.retain(|_, open| open.is_alive(now));
        if self.open.len() >= SESSIONS_MAX {
            let idlest = self.open.iter().min_by_key(|(_, open)| open.used).map(|(id, _)| *id);
            idlest.map(|id| self.open.remove(&id));
        }
        let session = PageSession { who: who.to_owned(), role, csrf };
        self.open.insert(hash(&id), OpenSession { session, by, until: now + SESSION_LIFE, used: now });
        Some(id)
    }

    /// The session with an id, which counts as used now; `None` if it has ended, or its password no longer holds.
    pub fn find(&mut self, id: &str, access: &AdminAccess, now: Instant) -> Option<PageSession> {
        let id = hash(id);
        let open = self.open.get_mut(&id)?;
        if !open.is_alive(now) || !open.holds(access) {
            self.open.remove(&id);
            return None;
        }
        open.used = now;
        Some(open.session.clone())
    }

    /// The session of a certificate that the client has just proved, and `true` if it begins now; `None` without random
    /// bytes.
    pub fn of_certificate(
        &mut self,
        is: &ClientIdentity,
        role: AdminRole,
        now: Instant,
    ) -> Option<(PageSession, bool)> {
        self.certified.retain(|_, open| open.is_alive(now));
        if let Some(open) = self.certified.get_mut(&is.fingerprint).filter(|open| open.session.role == role) {
            open.used = now;
            return Some((open.session.clone(), false));
        }
        if self.certified.len() >= SESSIONS_MAX {
            let idlest = self.certified.iter().min_by_key(|(_, open)| open.used).map(|(is, _)| *is);
            idlest.map(|is| self.certified.remove(&is));
        }
        let session = PageSession { who: is.subject.clone(), role, csrf: random()? };
        let (until, by) = (now + SESSION_LIFE, SignedInBy::Certificate);
        self.certified.insert(is.fingerprint, OpenSession { session: session.clone(), by, until, used: now });
        Some((session, true))
    }

    /// Ends a session.
    pub fn end(&mut self, id: &str) {
        self.open.remove(&hash(id));
    }
}

impl OpenSession {
    fn is_alive(&self, now: Instant) -> bool {
        self.until > now && now.saturating_duration_since(self.used) < IDLE_MAX
    }

    /// `true` if the reader could sign in again with the same proof, for the same role.
    fn holds(&self, access: &AdminAccess) -> bool {
        match &self.by {
            SignedInBy::Link | SignedInBy::Certificate => true,
            SignedInBy::Password(password) => access.users.iter().any(|user| {
                user.name == self.session.who && user.role == self.session.role && user.password == *password
            }),
        }
    }
}

fn random() -> Option<String> {
    let mut bytes = [0; RANDOM];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn hash(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::admin::AdminUser;

    const ANNA: &str = "anna";

    fn password(salt: &str) -> StoredPassword {
        StoredPassword::parse(&format!(
            "$argon2id$v=19$m=19456,t=2,p=1${salt}$iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A"
        ))
        .unwrap()
    }

    #[test]
    fn a_link_works_once_and_not_for_long() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let link = sessions.link(ANNA, AdminRole::View, now).unwrap();
        assert!(sessions.redeem("", now).is_none() && sessions.redeem(&link[1..], now).is_none());
        let id = sessions.redeem(&link, now).unwrap();
        assert!(sessions.redeem(&link, now).is_none());
        let session = sessions.find(&id, &AdminAccess::default(), now).unwrap();
        assert_eq!((session.who.as_str(), session.role), (ANNA, AdminRole::View));
        assert!(session.fits(&session.csrf) && !session.fits("") && !session.fits(&id));
        let late = sessions.link(ANNA, AdminRole::View, now).unwrap();
        assert!(sessions.redeem(&late, now + LINK_LIFE).is_none());
        // The seventeenth makes the first useless.
        let first = sessions.link(ANNA, AdminRole::View, now).unwrap();
        let last = (0..LINKS_MAX).map(|_| sessions.link(ANNA, AdminRole::View, now).unwrap()).last().unwrap();
        assert!(sessions.redeem(&first, now).is_none() && sessions.redeem(&last, now).is_some());
    }

    #[test]
    fn sessions_end() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let access = AdminAccess::default();
        let begin =
            |sessions: &mut Sessions, now| sessions.begin(ANNA, AdminRole::Configure, SignedInBy::Link, now).unwrap();
        let idle = begin(&mut sessions, now);
        assert!(sessions.find(&idle, &access, now + IDLE_MAX).is_none());
        let busy = begin(&mut sessions, now);
        let mut then = now;
        while then < now + SESSION_LIFE {
            assert!(sessions.find(&busy, &access, then).is_some());
            then += IDLE_MAX / 2;
        }
        assert!(sessions.find(&busy, &access, then).is_none(), "used all the time, and too old");
        let left = begin(&mut sessions, now);
        sessions.end(&left);
        assert!(sessions.find(&left, &access, now).is_none());
        let first = begin(&mut sessions, now);
        for second in 1..=SESSIONS_MAX as u64 {
            begin(&mut sessions, now + Duration::from_secs(second));
        }
        assert_eq!(sessions.open.len(), SESSIONS_MAX);
        assert!(sessions.find(&first, &access, now).is_none());
    }

    #[test]
    fn sessions_of_certificates_have_no_id() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let certificate = |n: u8| ClientIdentity { subject: ANNA.into(), serial: "01".into(), fingerprint: [n; 32] };
        let (first, is_new) = sessions.of_certificate(&certificate(1), AdminRole::View, now).unwrap();
        let (again, is_new_again) = sessions.of_certificate(&certificate(1), AdminRole::View, now).unwrap();
        assert!(is_new && !is_new_again && first.csrf == again.csrf && first.fits(&again.csrf));
        // A certificate is public, so its hash is not a cookie.
        for id in ["", ANNA, "01", &"01".repeat(32), &"\u{1}".repeat(32)] {
            assert!(sessions.find(id, &AdminAccess::default(), now).is_none(), "{id}");
        }
        let (other, is_new) = sessions.of_certificate(&certificate(1), AdminRole::Operate, now).unwrap();
        assert!(is_new && other.role == AdminRole::Operate && other.csrf != first.csrf);
        let (late, is_new) = sessions.of_certificate(&certificate(1), AdminRole::Operate, now + IDLE_MAX).unwrap();
        assert!(is_new && late.csrf != other.csrf);
        for n in 0..100 {
            let _ = sessions.of_certificate(&certificate(n), AdminRole::View, now + IDLE_MAX);
        }
        assert_eq!(sessions.certified.len(), SESSIONS_MAX);
    }

    #[test]
    fn sessions_end_with_their_password() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let user = |role, salt| AdminUser { name: ANNA.into(), role, password: password(salt) };
        let access = |user: Option<AdminUser>| AdminAccess { users: user.into_iter().collect(), allow_keys: false };
        let salt = "c29tZXNhbHRzb21l";
        let kept = access(Some(user(AdminRole::Operate, salt)));
        let changes = [
            access(None),
            access(Some(user(AdminRole::Operate, "c29tZXNhbHRzb21f"))),
            access(Some(user(AdminRole::View, salt))),
            access(Some(AdminUser { name: "bert".into(), ..user(AdminRole::Operate, salt) })),
        ];
        for changed in changes {
            let by = SignedInBy::Password(password(salt));
            let id = sessions.begin(ANNA, AdminRole::Operate, by, now).unwrap();
            assert!(sessions.find(&id, &kept, now).is_some());
            assert!(sessions.find(&id, &changed, now).is_none(), "{changed:?}");
            assert!(sessions.find(&id, &kept, now).is_none(), "it does not come back");
        }
    }
}
