//! ACME operators over ten simulated years: clients by RFC 7469 against the plan, the guard and the ledger.
//!
//! The code under test is the real one: `acme::plan` with its back-off, budget and renewal information, `policy::guard`,
//! `policy::promise` and the ledger's book. The driver's part between them is written again here, without files and
//! sockets. Restarts keep what is kept on disk, and nothing else.
//!
//! # What is claimed
//!
//! 1. No client is ever locked out, unless the operator accepted that for a compromised key.
//! 2. There is always a valid certificate, unless no CA could give one for half of the time that was left, or the machine's
//!    clock is so far behind that the renewal is not due yet by that clock.
//! 3. A renewal keeps the key. A key changes over only to one that clients have received for longer than the longest
//!    promise; and it does so when it is planned.
//! 4. No CA ever refuses an order because of a rate limit on orders for the same names.
//!
//! `PINTLE_ACME_HISTORIES=1000 cargo test --test it model::acme` plays that many; `PINTLE_SEED` makes them other ones.

mod authority;
mod operator;

use std::panic::{AssertUnwindSafe, catch_unwind};

use pintle::policy::promise::Seconds;

use super::number;
use super::random::Random;
use operator::{Operator, Played};

const HOUR: Seconds = 3600;
const DAY: Seconds = 86_400;
/// The length of a history.
const YEARS: Seconds = 3652 * DAY;
/// Histories in an ordinary run.
const HISTORIES: u64 = 8;

#[test]
fn ten_years_without_a_lockout_or_a_day_without_a_certificate() {
    let (histories, seed) = (number("PINTLE_ACME_HISTORIES", HISTORIES), number("PINTLE_SEED", 8555));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let play = |thread: u64| {
        let mut sum = Played::default();
        for number in (thread..histories).step_by(threads as usize) {
            let mut random = Random::new(seed.wrapping_mul(1 << 40).wrapping_add(number));
            let mut operator = Operator::new(&mut random);
            let played = catch_unwind(AssertUnwindSafe(|| operator.play(&mut random)));
            match played {
                Ok(played) => sum.add(&played),
                Err(panic) => {
                    let words = panic.downcast_ref::<String>().cloned();
                    let words = words.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                    return Err(format!(
                        "PINTLE_SEED={seed}, history {number}: {}\n  {}",
                        words.unwrap_or_default(),
                        operator.trace().join("\n  ")
                    ));
                }
            }
        }
        Ok(sum)
    };
    let played: Vec<Result<Played, String>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || play(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut sum = Played::default();
    for result in played {
        sum.add(&result.unwrap_or_else(|history| panic!("{history}")));
    }
    println!("{histories} histories: {sum:?}");
    sum.assert_enough(histories);
}
