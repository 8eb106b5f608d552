//! Requests and bytes of one site. Each worker has its own counters, made with the site's first request there.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;

use super::histogram::add;

/// The classes of methods.
pub const METHODS: [&str; 3] = ["read", "write", "other"];
/// The classes of status codes.
pub const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const KINDS: usize = METHODS.len() * STATUSES.len();

impl TrafficSum {
    /// The requests that were answered with a status of 500 or above.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.requests.iter().skip(STATUSES.len() - 1).step_by(STATUSES.len()).sum()
    }
}

/// The traffic of one site, by worker.
#[derive(Debug)]
pub struct SiteTraffic(Box<[OnceLock<Box<TrafficCounts>>]>);

/// The counts of one worker, or of all.
#[derive(Debug, Default)]
struct TrafficCounts {
    requests: [AtomicU64; KINDS],
    received: AtomicU64,
    sent: AtomicU64,
}

/// The sum of all workers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TrafficSum {
    /// Requests by class of method and of status: all classes of status for the first class of method come first.
    pub requests: [u64; KINDS],
    /// Bytes of request bodies.
    pub received: u64,
    /// Bytes of response bodies.
    pub sent: u64,
}

impl SiteTraffic {
    /// Makes counters for this number of workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| OnceLock::new()).collect())
    }

    /// Counts a request of a worker.
    pub fn note(&self, worker: usize, method: &Method, status: u16, received: u64, sent: u64) {
        let Some(own) = self.0.get(worker) else { return };
        let counts = own.get_or_init(Box::default);
        let class = usize::from(status / 100).clamp(1, STATUSES.len()) - 1;
        if let Some(requests) = counts.requests.get(class_of(method) * STATUSES.len() + class) {
            add(requests, 1);
        }
        add(&counts.received, received);
        add(&counts.sent, sent);
    }

    /// The sum of all workers.
    #[must_use]
    pub fn sum(&self) -> TrafficSum {
        let mut sum = TrafficSum::default();
        for counts in self.0.iter().filter_map(OnceLock::get) {
            for (sum, requests) in sum.requests.iter_mut().zip(&counts.requests) {
                *sum += requests.load(Ordering::Relaxed);
            }
            sum.received += counts.received.load(Ordering::Relaxed);
            sum.sent += counts.sent.load(Ordering::Relaxed);
        }
        sum
    }
}

fn class_of(method: &Method) -> usize {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => 0,
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let traffic = SiteTraffic::new(2);
        traffic.note(0, &Method::GET, 200, 0, 7);
        traffic.note(1, &Method::POST, 499, 5, 1);
        traffic.note(1, &Method::CONNECT, 999, 0, 0);
        traffic.note(9, &Method::GET, 200, 1, 1);
        let sum = traffic.sum();
        let at = |method: usize, status: usize| sum.requests[method * STATUSES.len() + status];
        assert_eq!((at(0, 1), at(1, 3), at(2, 4)), (1, 1, 1));
        assert_eq!(sum.failed(), 1);
        assert_eq!((sum.requests.iter().sum::<u64>(), sum.received, sum.sent), (3, 5, 8));
    }
}
