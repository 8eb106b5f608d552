//! ACME renewal information (RFC 9773): the window in which the CA wants a certificate renewed.
//! Kept on disk.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::backoff::longer;
use crate::policy::promise::{DAY, Seconds};

/// The bounds of Retry-After (section 4.3), in seconds.
const RETRY_AFTER: (Seconds, Seconds) = (60, DAY);
/// The wait if the answer has no Retry-After, and the wait after lasting errors: 6 hours.
const LASTING: Seconds = 6 * 3600;
/// Temporary errors in a row, each with twice the wait of the previous one. Then they are lasting.
const TEMPORARY_MAX: u32 = 6;
/// The longest URL of an explanation, in bytes.
const URL_MAX: usize = 500;

/// Returns the identifier of a certificate (section 4.1), from the `keyIdentifier` of its authority
/// key identifier and the bytes of its serial number.
#[must_use]
pub fn certificate_id(authority_key: &[u8], serial: &[u8]) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(authority_key), URL_SAFE_NO_PAD.encode(serial))
}

/// The window that the CA suggests, as it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuggestedWindow {
    /// The window's start.
    pub start: Seconds,
    /// Its end, later than the start.
    pub end: Seconds,
    /// A page that explains the window.
    pub explanation: Option<String>,
}

impl SuggestedWindow {
    /// Reads the body of an answer; `None` if it is malformed, or if its window does not end after
    /// its start. Both count as no answer (section 4.2).
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(body).ok()?;
        let window = document.get("suggestedWindow")?;
        let time = |member: &str| Some(window.get(member)?.as_str()?.parse::<Timestamp>().ok()?.as_second());
        let (start, end) = (time("start")?, time("end")?);
        let explanation = document.get("explanationURL").and_then(Value::as_str);
        let is_fit = |url: &&str| url.len() <= URL_MAX && url.bytes().all(|b| b.is_ascii_graphic());
        let explanation = explanation.filter(is_fit).map(str::to_owned);
        (end > start).then_some(Self { start, end, explanation })
    }
}

/// A window, with the time in it at which pintle renews.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its start.
    pub start: Seconds,
    /// Its end.
    pub end: Seconds,
    /// A random time in it. It stays while the window does.
    pub chosen: Seconds,
    /// The time since which it is known.
    #[serde(default)]
    pub since: Seconds,
    /// A page that explains the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// The renewal information of one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RenewalInfo {
    /// The window of the last answer.
    pub window: Option<Window>,
    /// The time of the last question; `None` if there was none.
    pub asked: Option<Seconds>,
    /// The wait before the next question, in seconds.
    pub wait: Seconds,
    /// Questions in a row without an answer.
    pub failures: u32,
}

/// The reason why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// No connection, a server error, or a timeout.
    Temporary,
    /// A malformed answer, an inverted window, or a certificate that the CA does not know.
    Lasting,
}

impl RenewalInfo {
    /// Takes in an answer; returns `true` if the window moved. `retry_after` is in seconds, and
    /// `random` a number from 0 to 1 (exclusive).
    pub fn answered(
        &mut self,
        answer: SuggestedWindow,
        retry_after: Option<Seconds>,
        now: Seconds,
        random: f64,
    ) -> bool {
        let SuggestedWindow { start, end, explanation } = answer;
        let known = self.window.as_ref().filter(|window| (window.start, window.end) == (start, end));
        let has_moved = known.is_none() && self.window.is_some();
        let (chosen, since) = known.map_or_else(|| (within(start, end, random), now), |w| (w.chosen, w.since));
        self.window = Some(Window { start, end, chosen, since, explanation });
        self.asked = Some(now);
        self.wait = retry_after.unwrap_or(LASTING).clamp(RETRY_AFTER.0, RETRY_AFTER.1);
        self.failures = 0;
        has_moved
    }

    /// Takes in the absence of an answer. An earlier window remains.
    pub fn unanswered(&mut self, why: NoAnswer, retry_after: Option<Seconds>, now: Seconds, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let is_lasting = why == NoAnswer::Lasting || self.failures > TEMPORARY_MAX;
        let wait = if is_lasting { LASTING } else { RETRY_AFTER.0 << self.failures.saturating_sub(1).min(16) };
        let least = retry_after.map_or(0, |seconds| seconds.clamp(RETRY_AFTER.0, RETRY_AFTER.1));
        self.asked = Some(now);
        self.wait = longer(wait, random).max(least);
    }

    /// Returns the time of the next question.
    #[must_use]
    pub fn ask_from(&self) -> Seconds {
        self.asked.map_or(Seconds::MIN, |asked| asked.saturating_add(self.wait))
    }

    /// Corrects a time in the future, which a clock that was ahead has left.
    pub fn settle(&mut self, now: Seconds) {
        self.asked = self.asked.map(|asked| asked.min(now));
        if let Some(window) = &mut self.window {
            window.since = window.since.min(now);
        }
    }
}

/// Returns a time within the window, its end excluded.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "clamped to the window")]
fn within(start: Seconds, end: Seconds, random: f64) -> Seconds {
    let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.0 };
    let length = end.saturating_sub(start);
    start.saturating_add(((length as f64 * random) as Seconds).clamp(0, length.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(start: &str, end: &str) -> Vec<u8> {
        format!("{{\"suggestedWindow\":{{\"start\":\"{start}\",\"end\":\"{end}\"}}}}").into_bytes()
    }

    /// The example of section 4.1.
    #[test]
    fn identifier() {
        let authority = [
            0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40, 0x41, 0xE1, 0xB3, 0x7B, 0x84, 0x7B, 0xA0, 0xAE, 0x2C, 0xDE, 0x01,
            0xC8, 0xD4,
        ];
        assert_eq!(certificate_id(&authority, &[0x00, 0x87, 0x65, 0x43, 0x21]), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
    }

    #[test]
    fn answers() {
        let found = SuggestedWindow::read(&body("2026-01-02T04:00:00Z", "2026-01-03T04:00:00Z")).unwrap();
        assert_eq!((found.start, found.end - found.start), (1_767_326_400, DAY));
        for wrong in [
            &body("2026-01-03T04:00:00Z", "2026-01-02T04:00:00Z")[..],
            &body("2026-01-03T04:00:00Z", "2026-01-03T04:00:00Z"),
            &body("soon", "2026-01-03T04:00:00Z"),
            b"{}",
            b"",
            b"[]",
            b"{\"suggestedWindow\":{\"start\":1,\"end\":2}}",
        ] {
            assert_eq!(SuggestedWindow::read(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
        let url = b"{\"suggestedWindow\":{\"start\":\"2026-01-02T04:00:00+01:00\",\"end\":\"2026-01-03T04:00:00Z\"},\
                    \"explanationURL\":\"https://ca.example/why\"}";
        assert_eq!(SuggestedWindow::read(url).unwrap().explanation.as_deref(), Some("https://ca.example/why"));
    }

    #[test]
    fn the_chosen_time_stays_with_the_window() {
        let answer = |start, end| SuggestedWindow { start, end, explanation: None };
        let mut info = RenewalInfo::default();
        assert_eq!(info.ask_from(), Seconds::MIN);
        assert!(!info.answered(answer(1000, 2000), Some(21_600), 0, 0.25));
        assert_eq!((info.window.as_ref().unwrap().chosen, info.ask_from()), (1250, 21_600));
        assert!(!info.answered(answer(1000, 2000), Some(5), 0, 0.75));
        assert_eq!((info.window.as_ref().unwrap().chosen, info.ask_from()), (1250, 60));
        assert!(info.answered(answer(1000, 2001), Some(i64::MAX), 0, 0.75));
        assert_eq!((info.window.as_ref().unwrap().chosen, info.ask_from()), (1750, DAY));
        assert!(!info.answered(answer(1000, 2001), None, 0, 0.0));
        assert_eq!(info.ask_from(), LASTING);
    }

    #[test]
    fn waits_without_an_answer() {
        let mut info = RenewalInfo::default();
        info.answered(SuggestedWindow { start: 5, end: 9, explanation: None }, None, 0, 0.0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            info.unanswered(NoAnswer::Temporary, None, 0, 0.0);
            waits.push(info.wait);
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, LASTING, LASTING]);
        assert!(info.window.is_some());
        let mut info = RenewalInfo::default();
        info.unanswered(NoAnswer::Lasting, None, 0, 0.0);
        assert_eq!(info.wait, LASTING);
        info.unanswered(NoAnswer::Temporary, Some(DAY), 0, 0.0);
        assert_eq!(info.wait, DAY);
        info.asked = Some(900 * DAY);
        info.settle(50);
        assert_eq!(info.ask_from(), 50 + DAY);
    }

    proptest! {
        #[test]
        fn the_chosen_time_is_in_the_window(start in any::<i64>(), length in 1i64..4000 * DAY, random in any::<f64>()) {
            let end = start.saturating_add(length);
            prop_assume!(end > start);
            let chosen = within(start, end, random);
            prop_assert!((start..end).contains(&chosen));
        }

        #[test]
        fn any_body(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = SuggestedWindow::read(&body);
        }
    }
}
