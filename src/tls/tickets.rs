//! Session tickets (RFC 5077, RFC 8446 section 4.6.1) with keys that an upgrade hands over to the
//! new process.
//!
//! Otherwise they are like those of rustls: a key makes tickets for six hours, and opens them for
//! six more. A ticket is the key's name, a random nonce, and the session sealed with
//! AES-256-GCM-SIV, which tolerates a repeated nonce.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use crate::handover::TicketKey;

/// The time in which a key makes tickets, in seconds.
const ROTATE: u64 = 6 * 3600;
/// The lifetime of a ticket, in seconds: keys open tickets for as long.
const LIFETIME: u32 = 12 * 3600;
const NAME_LEN: usize = 16;

/// The ticket keys of all workers.
pub struct Tickets {
    keys: RwLock<Vec<SealingKey>>,
}

struct SealingKey {
    raw: TicketKey,
    key: LessSafeKey,
    /// Its age when this process got it, in seconds.
    age: u64,
    /// That moment, in seconds of the monotonic clock.
    since: u64,
}

/// A moment on the wall clock and on the monotonic clock, in seconds.
#[derive(Debug, Clone, Copy)]
struct Moment {
    wall: u64,
    uptime: u64,
}

impl Moment {
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
    fn new(raw: TicketKey, now: Moment) -> Result<Self, Unspecified> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &raw.secret[..])?);
        Ok(Self { key, age: now.wall.saturating_sub(raw.made), since: now.uptime, raw })
    }

    fn generate(now: Moment) -> Result<Self, Unspecified> {
        let mut raw = TicketKey { name: [0; NAME_LEN], secret: Zeroizing::default(), made: now.wall };
        rand::fill(&mut raw.name)?;
        rand::fill(&mut raw.secret[..])?;
        Self::new(raw, now)
    }

    /// Returns the key's age in seconds. A clock that was ahead when the key was made, and was
    /// corrected since, does not make it younger. The monotonic clock misses the sleep of a
    /// machine, which the wall clock counts.
    fn age(&self, now: Moment) -> u64 {
        let here = self.age.saturating_add(now.uptime.saturating_sub(self.since));
        here.max(now.wall.saturating_sub(self.raw.made))
    }

    fn is_aged(&self, age: u64, now: Moment) -> bool {
        self.age(now) >= age
    }

    /// Returns the key for another process, with its age as a time on the wall clock: the processes
    /// share only that.
    fn hand_over(&self, now: Moment) -> TicketKey {
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
        Ok(Self { keys: RwLock::new(vec![SealingKey::generate(Moment::now())?]) })
    }

    /// Returns the keys for the process that takes over.
    #[must_use]
    pub fn keys(&self) -> Vec<TicketKey> {
        self.keys_at(Moment::now())
    }

    fn keys_at(&self, now: Moment) -> Vec<TicketKey> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|key| key.hand_over(now)).collect()
    }

    /// Replaces the keys by those of the previous process. Ignores malformed keys, and an empty
    /// list.
    pub fn take_over(&self, raw: Vec<TicketKey>) {
        self.take_over_at(Moment::now(), raw);
    }

    fn take_over_at(&self, now: Moment, raw: Vec<TicketKey>) {
        let taken: Vec<SealingKey> = raw.into_iter().filter_map(|raw| SealingKey::new(raw, now).ok()).collect();
        if !taken.is_empty() {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = taken;
        }
    }

    fn encrypt_at(&self, now: Moment, session: &[u8]) -> Option<Vec<u8>> {
        let is_due = |keys: &[SealingKey]| keys.first().is_none_or(|key| key.is_aged(ROTATE, now));
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if !is_due(&keys) {
            return seal(keys.first()?, session);
        }
        drop(keys);
        let fresh = SealingKey::generate(now).ok()?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        // Another worker may have been faster.
        if is_due(&keys) {
            keys.insert(0, fresh);
            keys.retain(|key| !key.is_aged(u64::from(LIFETIME), now));
        }
        seal(keys.first()?, session)
    }

    fn decrypt_at(&self, now: Moment, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.iter().find(|key| key.raw.name == name && !key.is_aged(u64::from(LIFETIME), now))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut session = sealed.to_vec();
        let len = key.key.open_in_place(nonce, Aad::from(name), &mut session).ok()?.len();
        session.truncate(len);
        Some(session)
    }
}

fn seal(key: &SealingKey, session: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).ok()?;
    let mut sealed = session.to_vec();
    let unique = Nonce::assume_unique_for_key(nonce);
    key.key.seal_in_place_append_tag(unique, Aad::from(&key.raw.name), &mut sealed).ok()?;
    Some([&key.raw.name[..], &nonce, &sealed].concat())
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_at(Moment::now(), plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(Moment::now(), cipher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_can_be_opened_and_nothing_else() {
        let (own, other) = (Tickets::new().unwrap(), Tickets::new().unwrap());
        let ticket = own.encrypt(b"session").unwrap();
        assert_eq!(own.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_ne!(own.encrypt(b"session").unwrap(), ticket);
        assert_eq!(other.decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[at] ^= 1;
            assert_eq!(own.decrypt(&damaged), None, "byte {at}");
            assert_eq!(own.decrypt(&ticket[..at]), None, "{at} bytes");
        }
    }

    /// Returns a moment this many seconds later on both clocks.
    fn later(than: Moment, seconds: u64) -> Moment {
        Moment { wall: than.wall + seconds, uptime: than.uptime + seconds }
    }

    #[test]
    fn keys_change_and_old_ones_open_for_a_while() {
        let tickets = Tickets::new().unwrap();
        let now = Moment::now();
        let start = |seconds| later(now, seconds);
        let first = tickets.encrypt_at(start(0), b"first").unwrap();
        assert_eq!(tickets.encrypt_at(start(ROTATE - 60), b"x").unwrap()[..NAME_LEN], first[..NAME_LEN]);
        let second = tickets.encrypt_at(start(ROTATE + 60), b"second").unwrap();
        assert_ne!(second[..NAME_LEN], first[..NAME_LEN]);
        let lifetime = u64::from(LIFETIME);
        assert_eq!(tickets.decrypt_at(start(lifetime - 60), &first).as_deref(), Some(&b"first"[..]));
        assert_eq!(tickets.decrypt_at(start(lifetime + 60), &first), None);
        assert_eq!(tickets.decrypt_at(start(lifetime + 60), &second).as_deref(), Some(&b"second"[..]));
        tickets.encrypt_at(start(2 * lifetime), b"third").unwrap();
        assert_eq!(tickets.keys().len(), 1, "keys that open nothing are forgotten");
    }

    /// A clock is years ahead when a key is made, and is corrected then: the key ages nevertheless,
    /// here and in the next process. The same holds for a clock that is set back or stands still.
    #[test]
    fn keys_made_under_a_wrong_clock_age() {
        let right = Moment::now();
        let lifetime = u64::from(LIFETIME);
        for ahead in [0, 3600, 10 * 365 * 86_400] {
            let tickets = Tickets { keys: RwLock::new(Vec::new()) };
            let wrong = Moment { wall: right.wall + ahead, ..right };
            let first = tickets.encrypt_at(wrong, b"first").unwrap();
            assert_eq!(tickets.decrypt_at(right, &first).as_deref(), Some(&b"first"[..]), "{ahead}");
            let next = tickets.encrypt_at(later(right, ROTATE), b"x").unwrap();
            assert_ne!(next[..NAME_LEN], first[..NAME_LEN], "{ahead}");
            assert_eq!(tickets.decrypt_at(later(right, lifetime), &first), None, "{ahead}");
            // Handed over half-way, to a process whose monotonic clock begins anew.
            let heir = Tickets::new().unwrap();
            let handed = later(right, ROTATE);
            let begin = Moment { wall: handed.wall, uptime: 5 };
            heir.take_over_at(begin, tickets.keys_at(handed));
            let left = lifetime - ROTATE;
            assert!(heir.decrypt_at(later(begin, left - 1), &first).is_some(), "{ahead}");
            assert_eq!(heir.decrypt_at(later(begin, left), &first), None, "{ahead}");
            // From a process with wrong ages: the key ages from here on.
            let old = tickets.keys.read().unwrap().iter().map(|key| key.raw.clone()).collect();
            heir.take_over_at(begin, old);
            assert_eq!(heir.decrypt_at(later(begin, lifetime), &first), None, "{ahead}");
        }
        // A machine that slept: only the wall clock has advanced.
        let tickets = Tickets { keys: RwLock::new(Vec::new()) };
        let first = tickets.encrypt_at(right, b"first").unwrap();
        assert_eq!(tickets.decrypt_at(Moment { wall: right.wall + lifetime, ..right }, &first), None);
    }

    #[test]
    fn the_next_process_goes_on_with_the_keys() {
        let (old, new) = (Tickets::new().unwrap(), Tickets::new().unwrap());
        let first = old.encrypt(b"first").unwrap();
        let second = old.encrypt_at(later(Moment::now(), ROTATE + 60), b"second").unwrap();
        let json = serde_json::to_string(&old.keys()).unwrap();
        new.take_over(serde_json::from_str(&json).unwrap());
        assert_eq!(new.decrypt(&first).as_deref(), Some(&b"first"[..]));
        assert_eq!(new.decrypt(&second).as_deref(), Some(&b"second"[..]));
        new.take_over(Vec::new());
        assert!(new.decrypt(&second).is_some(), "an empty list keeps the keys");
        assert_eq!(format!("{new:?}"), "Tickets");
    }
}
