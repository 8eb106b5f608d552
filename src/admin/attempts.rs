//! Limits on log-ins: for each client network, and for all of them.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Passwords that a network may try before a pause.
const TRIES: u32 = 5;
/// The first pause; each further wrong password doubles it.
const PAUSE: Duration = Duration::from_secs(60);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// Networks that pintle remembers; the one that was quiet longest makes room.
const NETWORKS_MAX: usize = 1024;
/// A network is forgotten after this time without a try.
const MEMORY: Duration = Duration::from_secs(3600);
/// Passwords from all networks within [`WINDOW`], except from those that know one.
const TRIES_OF_ALL: u32 = 60;
/// Networks from which somebody has signed in: the latest ones.
const KNOWN_MAX: usize = 64;
const WINDOW: Duration = Duration::from_secs(60);

/// Warnings about strangers within [`WINDOW`].
const WARNINGS: u32 = 60;

/// Bounds the warnings about strangers, so that nobody fills the log.
#[derive(Default)]
pub struct StrangerWarnings {
    window: Option<(Instant, u32)>,
}

impl StrangerWarnings {
    /// Counts a warning. Returns `true` if it may be logged.
    pub fn may(&mut self, now: Instant) -> bool {
        let (begun, used) =
            self.window.filter(|(begun, _)| now.saturating_duration_since(*begun) < WINDOW).unwrap_or((now, 0));
        self.window = Some((begun, used.saturating_add(1)));
        if used == WARNINGS {
            tracing::warn!(limit = WARNINGS, "further refusals of strangers are not logged in this minute");
        }
        used < WARNINGS
    }
}

/// The place that a log-in comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogInNetwork {
    /// Through the admin socket.
    Socket,
    /// An IPv4 address.
    V4([u8; 4]),
    /// An IPv6 network with 64 bits.
    V6([u8; 8]),
}

impl LogInNetwork {
    /// The network of an address; `None` is the admin socket.
    #[must_use]
    pub fn of(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            None => Self::Socket,
            // Every user of this host has sixteen million of them.
            Some(IpAddr::V4(address)) if address.is_loopback() => Self::V4([127, 0, 0, 1]),
            Some(IpAddr::V4(address)) => Self::V4(address.octets()),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

struct Tries {
    wrong: u32,
    /// No password is tried before.
    paused_until: Instant,
    last: Instant,
}

/// The log-ins of late.
#[derive(Default)]
pub struct LogInAttempts {
    networks: HashMap<LogInNetwork, Tries>,
    window: Option<(Instant, u32)>,
    /// Networks with a right password. Strangers elsewhere do not keep them waiting.
    known: VecDeque<LogInNetwork>,
}

impl LogInAttempts {
    /// Counts a try as wrong until [`Self::succeeded`] says otherwise, so that tries at the same time count, too. Returns the
    /// tries that are left before a pause.
    ///
    /// # Errors
    ///
    /// The pause, if no password may be tried now.
    pub fn begin(&mut self, from: LogInNetwork, now: Instant) -> Result<u32, Duration> {
        self.networks.retain(|_, tries| now.saturating_duration_since(tries.last) < MEMORY);
        let pause =
            self.networks.get(&from).map_or(Duration::ZERO, |tries| tries.paused_until.saturating_duration_since(now));
        if !pause.is_zero() {
            return Err(pause);
        }
        let (begun, used) =
            self.window.filter(|(begun, _)| now.saturating_duration_since(*begun) < WINDOW).unwrap_or((now, 0));
        if !self.known.contains(&from) {
            if used >= TRIES_OF_ALL {
                return Err((begun + WINDOW).saturating_duration_since(now));
            }
            self.window = Some((begun, used + 1));
        }
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&from) {
            let quietest = self.networks.iter().min_by_key(|(_, tries)| tries.last).map(|(network, _)| *network);
            quietest.map(|network| self.networks.remove(&network));
        }
        let tries = self.networks.entry(from).or_insert(Tries { wrong: 0, paused_until: now, last: now });
        tries.wrong = tries.wrong.saturating_add(1);
        tries.last = now;
        let left = TRIES.saturating_sub(tries.wrong);
        if left == 0 {
            let doublings = (tries.wrong - TRIES).min(8);
            tries.paused_until = now + (PAUSE * (1 << doublings)).min(PAUSE_MAX);
        }
        Ok(left)
    }

    /// Forgets the wrong passwords of a network, which has found the right one.
    pub fn succeeded(&mut self, from: LogInNetwork) {
        self.networks.remove(&from);
        self.known.retain(|known| *known != from);
        if self.known.len() >= KNOWN_MAX {
            self.known.pop_front();
        }
        self.known.push_back(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn network(n: u32) -> LogInNetwork {
        LogInNetwork::V4(n.to_be_bytes())
    }

    #[test]
    fn wrong_passwords_bring_longer_and_longer_pauses() {
        let (mut attempts, mut now) = (LogInAttempts::default(), Instant::now());
        for left in (0..TRIES).rev() {
            assert_eq!(attempts.begin(network(1), now), Ok(left));
        }
        for pause in [60, 120, 240, 480, 900, 900] {
            assert_eq!(attempts.begin(network(1), now), Err(pause * SECOND));
            now += pause * SECOND;
            assert_eq!(attempts.begin(network(1), now), Ok(0), "after {pause} seconds");
        }
        assert_eq!(attempts.begin(network(2), now), Ok(TRIES - 1), "others are not concerned");
        now += MEMORY;
        assert_eq!(attempts.begin(network(1), now), Ok(TRIES - 1));
    }

    #[test]
    fn warnings_about_strangers_are_bounded() {
        let (mut warnings, now) = (StrangerWarnings::default(), Instant::now());
        assert_eq!((0..1000).filter(|_| warnings.may(now)).count(), WARNINGS as usize);
        assert!(warnings.may(now + WINDOW));
    }

    #[test]
    fn the_right_password_clears_the_count() {
        let (mut attempts, now) = (LogInAttempts::default(), Instant::now());
        for _ in 0..20 {
            assert_eq!(attempts.begin(network(1), now), Ok(TRIES - 1));
            attempts.succeeded(network(1));
        }
    }

    #[test]
    fn many_networks_together_are_limited_and_forgotten() {
        let (mut attempts, mut now) = (LogInAttempts::default(), Instant::now());
        for n in 0..TRIES_OF_ALL {
            assert!(attempts.begin(network(n), now).is_ok());
        }
        assert_eq!(attempts.begin(network(1000), now), Err(WINDOW));
        now += WINDOW;
        for n in 0..5000 {
            assert!(attempts.begin(network(n), now).is_ok(), "{n}");
            now += SECOND;
        }
        assert_eq!(attempts.networks.len(), NETWORKS_MAX);
    }

    #[test]
    fn strangers_keep_no_network_waiting_from_which_somebody_signed_in() {
        let (mut attempts, now) = (LogInAttempts::default(), Instant::now());
        assert!(attempts.begin(network(9), now).is_ok());
        attempts.succeeded(network(9));
        for n in 100..100 + TRIES_OF_ALL {
            let _ = attempts.begin(network(n), now);
        }
        assert_eq!(attempts.begin(network(8), now), Err(WINDOW));
        for left in (0..TRIES).rev() {
            assert_eq!(attempts.begin(network(9), now), Ok(left), "its own limit stays");
        }
        assert_eq!(attempts.begin(network(9), now), Err(PAUSE));
    }

    #[test]
    fn networks_of_addresses() {
        let of = |text: &str| LogInNetwork::of(Some(text.parse().unwrap()));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("127.0.0.1"), of("127.9.8.7"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }
}
