//! Session tickets (RFC 5077, RFC 8446 section 4.6.1) with keys that an upgrade hands over to the
//! new process.
//!
//! Otherwise they are like those of rustls: a key makes tickets for six hours, and opens them for
//! six more. A ticket is the key's name, a random nonce, and the session sealed with
//! AES-256-GCM-SIV, which tolerates a repeated nonce.
//!
//! A session also has the chain under which it began. A client that resumes it judges its pins by
//! that chain (RFC 7469 section 2.6), and may have noted newer pins over another connection. So a
//! ticket opens only while the requested name has a chain with the same keys. After a change of
//! keys, the next handshake is a full one.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use super::session_chain::{self, ChainId};
use crate::handover::TicketKey;

/// The time in which a key makes tickets, in seconds.
const ROTATE: u64 = 6 * 3600;
/// The lifetime of a ticket, in seconds: keys open tickets for as long.
const LIFETIME: u32 = 12 * 3600;
const NAME_LEN: usize = 16;
/// The format of the sealed contents: the id of a chain, then rustls' session. Tickets of versions
/// without the id do not open.
const FORMAT: u8 = 2;

/// The ticket keys of all workers.
pub struct Tickets {
    keys: RwLock<Vec<SealingKey>>,
}

struct SealingKey {
    raw: TicketKey,
    key: LessSafeKey,
    /// Its age when this process got it, in seconds.
    age: u64,
    /// The same moment, in seconds of the monotonic clock.
    since: u64,
}

/// A moment on the wall clock and on the monotonic clock, in seconds.
#[derive(Debug, Clone, Copy)]
struct TicketMoment {
    wall: u64,
    uptime: u64,
}

impl TicketMoment {
    fn now() -> Self {
        Self { wall: jiff::Timestamp::now().as_second().unsigned_abs(), uptime: crate::clock::uptime() / 1000 }
    }
}

impl fmt::Debug for Tickets {
    /// Omits the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl SealingKey {
    fn new(raw: TicketKey, now: TicketMoment) -> Result<Self, Unspecified> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &raw.secret[..])?);
        Ok(Self { key, age: now.wall.saturating_sub(raw.made), since: now.uptime, raw })
    }

    fn generate(now: TicketMoment) -> Result<Self, Unspecified> {
        let mut raw = TicketKey { name: [0; NAME_LEN], secret: Zeroizing::default(), made: now.wall };
        rand::fill(&mut raw.name)?;
        rand::fill(&mut raw.secret[..])?;
        Self::new(raw, now)
    }

    /// Returns the key's age in seconds. A clock that was ahead when the key was made, and was
    /// corrected since, does not make it younger. The monotonic clock misses the sleep of a
    /// machine, which the wall clock counts.
    fn age(&self, now: TicketMoment) -> u64 {
        let here = self.age.saturating_add(now.uptime.saturating_sub(self.since));
        here.max(now.wall.saturating_sub(self.raw.made))
    }

    fn is_aged(&self, age: u64, now: TicketMoment) -> bool {
        self.age(now) >= age
    }

    /// Returns the key for another process, with its age as a time on the wall clock: the processes
    /// share only that.
    fn hand_over(&self, now: TicketMoment) -> TicketKey {
        TicketKey { made: now.wall.saturating_sub(self.age(now)), ..self.raw.clone() }
    }
}

impl Tickets {
    /// Returns tickets with a new key.
    ///
    /// # Errors
    ///
    /// If the system has no randomness.
    pub fn new() -> Result<Self, Unspecified> {
        Ok(Self { keys: RwLock::new(vec![SealingKey::generate(TicketMoment::now())?]) })
    }

    /// Returns the keys for the process that takes over.
    #[must_use]
    pub fn keys(&self) -> Vec<TicketKey> {
        self.keys_at(TicketMoment::now())
    }

    fn keys_at(&self, now: TicketMoment) -> Vec<TicketKey> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|key| key.hand_over(now)).collect()
    }

    /// Replaces the keys by those of the previous process. Ignores malformed keys, and an empty
    /// list.
    pub fn take_over(&self, raw: Vec<TicketKey>) {
        self.take_over_at(TicketMoment::now(), raw);
    }

    fn take_over_at(&self, now: TicketMoment, raw: Vec<TicketKey>) {
        let taken: Vec<SealingKey> = raw.into_iter().filter_map(|raw| SealingKey::new(raw, now).ok()).collect();
        if !taken.is_empty() {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = taken;
        }
    }

    fn encrypt_at(&self, now: TicketMoment, chain: ChainId, session: &[u8]) -> Option<Vec<u8>> {
        let is_due = |keys: &[SealingKey]| keys.first().is_none_or(|key| key.is_aged(ROTATE, now));
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if !is_due(&keys) {
            return seal(keys.first()?, chain, session);
        }
        drop(keys);
        let fresh = SealingKey::generate(now).ok()?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        // Another worker may have been faster.
        if is_due(&keys) {
            keys.insert(0, fresh);
            keys.retain(|key| !key.is_aged(u64::from(LIFETIME), now));
        }
        seal(keys.first()?, chain, session)
    }

    fn decrypt_at(&self, now: TicketMoment, ticket: &[u8]) -> Option<(ChainId, Vec<u8>)> {
        let (name, rest) = ticket.split_at_checked(NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.iter().find(|key| key.raw.name == name && !key.is_aged(u64::from(LIFETIME), now))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut session = sealed.to_vec();
        let len = key.key.open_in_place(nonce, Aad::from(bound(&key.raw)), &mut session).ok()?.len();
        session.truncate(len);
        let (chain, session) = session.split_first_chunk()?;
        Some((ChainId(*chain), session.to_vec()))
    }
}

/// Returns the bytes that a ticket is bound to, beside its secret.
fn bound(key: &TicketKey) -> [u8; NAME_LEN + 1] {
    let mut bound = [FORMAT; NAME_LEN + 1];
    bound[..NAME_LEN].copy_from_slice(&key.name);
    bound
}

fn seal(key: &SealingKey, chain: ChainId, session: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).ok()?;
    let mut sealed = [&chain.0[..], session].concat();
    let unique = Nonce::assume_unique_for_key(nonce);
    key.key.seal_in_place_append_tag(unique, Aad::from(bound(&key.raw)), &mut sealed).ok()?;
    Some([&key.raw.name[..], &nonce, &sealed].concat())
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    /// Makes no ticket if the chain of the session is not known.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_at(TicketMoment::now(), session_chain::current()?, plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (chain, session) = self.decrypt_at(TicketMoment::now(), cipher)?;
        if !session_chain::is_served(chain) {
            return None;
        }
        session_chain::open(chain);
        Some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: ChainId = ChainId([7; 32]);

    impl Tickets {
        fn seal(&self, now: TicketMoment, session: &[u8]) -> Option<Vec<u8>> {
            self.encrypt_at(now, CHAIN, session)
        }

        fn open(&self, now: TicketMoment, ticket: &[u8]) -> Option<Vec<u8>> {
            let (chain, session) = self.decrypt_at(now, ticket)?;
            assert_eq!(chain, CHAIN);
            Some(session)
        }
    }

    #[test]
    fn what_was_sealed_can_be_opened_and_nothing_else() {
        let (own, other) = (Tickets::new().unwrap(), Tickets::new().unwrap());
        let ticket = own.seal(TicketMoment::now(), b"session").unwrap();
        assert_eq!(own.open(TicketMoment::now(), &ticket).as_deref(), Some(&b"session"[..]));
        assert_ne!(own.seal(TicketMoment::now(), b"session").unwrap(), ticket);
        assert_eq!(other.open(TicketMoment::now(), &ticket), None);
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[at] ^= 1;
            assert_eq!(own.open(TicketMoment::now(), &damaged), None, "byte {at}");
            assert_eq!(own.open(TicketMoment::now(), &ticket[..at]), None, "{at} bytes");
        }
    }

    /// Tickets of versions before the id of the chain had the key's name alone as associated data.
    #[test]
    fn a_ticket_without_a_chain_does_not_open() {
        let tickets = Tickets::new().unwrap();
        let keys = tickets.keys.read().unwrap();
        let (nonce, mut sealed) = ([1; NONCE_LEN], vec![0; 64]);
        let unique = Nonce::assume_unique_for_key(nonce);
        keys[0].key.seal_in_place_append_tag(unique, Aad::from(&keys[0].raw.name), &mut sealed).unwrap();
        let ticket = [&keys[0].raw.name[..], &nonce, &sealed].concat();
        assert_eq!(tickets.decrypt_at(TicketMoment::now(), &ticket), None);
    }

    /// Returns a moment this many seconds later on both clocks.
    fn later(than: TicketMoment, seconds: u64) -> TicketMoment {
        TicketMoment { wall: than.wall + seconds, uptime: than.uptime + seconds }
    }

    #[test]
    fn keys_change_and_old_ones_open_for_a_while() {
        let tickets = Tickets::new().unwrap();
        let now = TicketMoment::now();
        let start = |seconds| later(now, seconds);
        let first = tickets.seal(start(0), b"first").unwrap();
        assert_eq!(tickets.seal(start(ROTATE - 60), b"x").unwrap()[..NAME_LEN], first[..NAME_LEN]);
        let second = tickets.seal(start(ROTATE + 60), b"second").unwrap();
        assert_ne!(second[..NAME_LEN], first[..NAME_LEN]);
        let lifetime = u64::from(LIFETIME);
        assert_eq!(tickets.open(start(lifetime - 60), &first).as_deref(), Some(&b"first"[..]));
        assert_eq!(tickets.open(start(lifetime + 60), &first), None);
        assert_eq!(tickets.open(start(lifetime + 60), &second).as_deref(), Some(&b"second"[..]));
        tickets.seal(start(2 * lifetime), b"third").unwrap();
        assert_eq!(tickets.keys().len(), 1, "keys that open nothing are forgotten");
    }

    /// A clock is years ahead when a key is made, and is corrected then: the key ages nevertheless,
    /// here and in the next process. The same holds for a clock that is set back or stands still.
    #[test]
    fn keys_made_under_a_wrong_clock_age() {
        let right = TicketMoment::now();
        let lifetime = u64::from(LIFETIME);
        for ahead in [0, 3600, 10 * 365 * 86_400] {
            let tickets = Tickets { keys: RwLock::new(Vec::new()) };
            let wrong = TicketMoment { wall: right.wall + ahead, ..right };
            let first = tickets.seal(wrong, b"first").unwrap();
            assert_eq!(tickets.open(right, &first).as_deref(), Some(&b"first"[..]), "{ahead}");
            let next = tickets.seal(later(right, ROTATE), b"x").unwrap();
            assert_ne!(next[..NAME_LEN], first[..NAME_LEN], "{ahead}");
            assert_eq!(tickets.open(later(right, lifetime), &first), None, "{ahead}");
            // Handed over half-way, to a process whose monotonic clock begins anew.
            let heir = Tickets::new().unwrap();
            let handed = later(right, ROTATE);
            let begin = TicketMoment { wall: handed.wall, uptime: 5 };
            heir.take_over_at(begin, tickets.keys_at(handed));
            let left = lifetime - ROTATE;
            assert!(heir.open(later(begin, left - 1), &first).is_some(), "{ahead}");
            assert_eq!(heir.open(later(begin, left), &first), None, "{ahead}");
            // From a process with wrong ages: the key ages from here on.
            let old = tickets.keys.read().unwrap().iter().map(|key| key.raw.clone()).collect();
            heir.take_over_at(begin, old);
            assert_eq!(heir.open(later(begin, lifetime), &first), None, "{ahead}");
        }
        // A machine that slept: only the wall clock has advanced.
        let tickets = Tickets { keys: RwLock::new(Vec::new()) };
        let first = tickets.seal(right, b"first").unwrap();
        assert_eq!(tickets.open(TicketMoment { wall: right.wall + lifetime, ..right }, &first), None);
    }

    #[test]
    fn the_next_process_goes_on_with_the_keys() {
        let (old, new) = (Tickets::new().unwrap(), Tickets::new().unwrap());
        let first = old.seal(TicketMoment::now(), b"first").unwrap();
        let second = old.seal(later(TicketMoment::now(), ROTATE + 60), b"second").unwrap();
        let json = serde_json::to_string(&old.keys()).unwrap();
        new.take_over(serde_json::from_str(&json).unwrap());
        assert_eq!(new.open(TicketMoment::now(), &first).as_deref(), Some(&b"first"[..]));
        assert_eq!(new.open(TicketMoment::now(), &second).as_deref(), Some(&b"second"[..]));
        new.take_over(Vec::new());
        assert!(new.open(TicketMoment::now(), &second).is_some(), "an empty list keeps the keys");
        assert_eq!(format!("{new:?}"), "Tickets");
    }
}
