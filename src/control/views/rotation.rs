//! The effect of a rotation on the clients of a site: which sets of pins they hold, and which of them a key would break on
//! a day. The guard's own rules judge.

use serde_json::{Value, json};

use crate::config::report::SiteReport;
use crate::control::Control;
use crate::control::admin::{Answered, PageRefusal, RotationQuestion};
use crate::control::promises::promised_since;
use crate::export::Role;
use crate::keys::key_file::KeyKind;
use crate::keys::pin::Pin;
use crate::ledger::set_id;
use crate::ledger::time::{day, rfc3339};
use crate::policy::promise::{DAY, Promise, PromiseChannel, Seconds};
use crate::policy::rotation::{JudgedSet, RotationAnswer, SafeFrom, judge};
use crate::reason::Reason;

/// The longest time ahead that can be asked about, in days.
const AHEAD_MAX: i64 = 3 * 366;
/// Sets in one answer, the latest; a page shows fewer.
const SETS_MAX: usize = 200;

/// A key that a question can be about.
struct RotationKey {
    pin: Pin,
    role: &'static str,
    file: String,
    algorithm: String,
    /// Its file is a CSR.
    has_csr: bool,
}

/// The keys of a site: the served ones, then its backups.
fn candidates(site: &SiteReport) -> Vec<RotationKey> {
    let live = site.certificates.iter().map(|c| RotationKey {
        pin: c.pin,
        role: Role::Live.name(),
        file: c.file(),
        algorithm: c.algorithm.to_string(),
        has_csr: false,
    });
    let waiting = || site.backups.iter().filter(move |(_, key)| !site.promoted.contains(&key.pin));
    let algorithms = site.certificates.iter().map(|certificate| certificate.algorithm);
    let roles = Role::of_backups(algorithms, waiting().map(|(_, key)| Some(key.algorithm)));
    let backups = waiting().zip(roles).map(|((file, key), role)| RotationKey {
        pin: key.pin,
        role: role.name(),
        file: file.clone(),
        algorithm: key.algorithm.to_string(),
        has_csr: key.kind == KeyKind::Csr,
    });
    let mut found: Vec<RotationKey> = Vec::new();
    for candidate in live.chain(backups) {
        if found.iter().all(|known| known.pin != candidate.pin) {
            found.push(candidate);
        }
    }
    found
}

/// The beginning of a day, which must lie between today and some years ahead.
fn time_of(text: &str, now: Seconds) -> Result<Seconds, PageRefusal> {
    let wrong = |what: String| PageRefusal::wrong(Reason::new(what).hint(format!("day={}", day(now))));
    let date: jiff::civil::Date = text.parse().map_err(|_| wrong(format!("day: {text:?} is not a date")))?;
    let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| wrong(format!("day: {text:?} is not a date")))?;
    let at = zoned.timestamp().as_second();
    let days = at.div_euclid(DAY) - now.div_euclid(DAY);
    match days {
        ..0 => Err(wrong(format!("day: {text} is over"))),
        0 => Ok(now),
        1..=AHEAD_MAX => Ok(at),
        _ => Err(wrong(format!("day: {text} is more than {AHEAD_MAX} days ahead"))),
    }
}

impl Control {
    /// The answer.
    pub(super) fn rotation(&self, asked: &RotationQuestion) -> Answered {
        let index = self.index_of(&asked.host)?;
        let now = self.now();
        let at = asked.day.as_deref().map_or(Ok(now), |text| time_of(text, now))?;
        let site = self.config.sites().nth(index).ok_or_else(|| PageRefusal::no_site(&asked.host))?;
        let keys = candidates(site);
        let first =
            || keys.iter().find(|key| key.role != Role::Live.name()).or_else(|| keys.first()).map(|key| key.pin);
        let key = asked.key.or_else(first);
        let names = self.config.names_of(index).ok_or_else(|| PageRefusal::no_site(&asked.host))?;
        let ledger = self.ledger();
        // Of ten thousand sites, only this one's promises are looked at again for each key.
        let promises: Vec<Promise> =
            ledger.book().promises().iter().filter(|set| names.bound_by(set)).cloned().collect();
        // A replaced set is no longer sent, although its lease may not be over.
        let sent = self.config.sent_sets(names);
        let ask = |pin: Option<Pin>, at: Seconds| {
            // A live key is judged with the rest of its chain, which clients get with it.
            let served = site.certificates.iter().find(|c| Some(c.pin) == pin);
            let chain = served.map_or_else(|| pin.into_iter().collect(), |c| c.certain.clone());
            judge(&promises, names, &chain, (now, at), &|set| sent.contains(&set_id(set)))
        };
        let answer = ask(key, at);
        let roles = |pin: &Pin| keys.iter().find(|key| key.pin == *pin).map(|key| key.role);
        let mut sets: Vec<&JudgedSet> = answer.sets.iter().filter(|judged| is_enforced(&judged.set)).collect();
        sets.sort_by_key(|judged| (judged.set.first_sent, judged.set.honoured_until()));
        let older = sets.len().saturating_sub(SETS_MAX);
        let rows = (1..).zip(&sets).skip(older).map(|(number, judged)| set(number, judged, &roles, now));
        let ends = site.certificates.iter().map(|c| c.not_after).min();
        let if_promised_today = rfc3339(if_promised_today(&answer, now));
        let since = promised_since(ledger.book(), |of| of == site.name());
        let candidate = |key: &RotationKey| {
            let safe = ask(Some(key.pin), now).safe_from;
            json!({
                "pin": key.pin.to_string(), "role": key.role, "file": key.file, "algorithm": key.algorithm,
                "csr": key.has_csr,
                "promised_since": since.get(&(site.name(), key.pin)).copied().map(rfc3339),
                "safe_from": safe_from(safe), "is_safe_now": safe == SafeFrom::Now,
                "if_promised_today": if_promised_today,
            })
        };
        Ok(json!({
            "site": site.name(), "now": rfc3339(now), "day": day(at), "at": rfc3339(at),
            "key": key.map(|key| key.to_string()), "role": key.as_ref().and_then(roles),
            "locks_out": answer.broken().count() > 0,
            "safe_from": safe_from(answer.safe_from), "is_safe_now": answer.safe_from == SafeFrom::Now,
            "if_promised_today": if_promised_today,
            "certificate_ends": ends.map(|end| end.to_string()),
            "older_sets": older, "sets": rows.collect::<Vec<_>>(),
            "keys": keys.iter().map(candidate).collect::<Vec<_>>(),
        }))
    }
}

/// `true` for sets that clients enforce. Report-only and withdrawn ones bind nobody.
fn is_enforced(set: &Promise) -> bool {
    set.is_alive(set.honoured_until().saturating_sub(1))
}

/// `null` if there is no such time.
fn safe_from(safe: SafeFrom) -> Option<String> {
    match safe {
        SafeFrom::Now | SafeFrom::Never => None,
        SafeFrom::At(time) => Some(rfc3339(time)),
    }
}

/// The time from which a key is safe that every set gets from now on: the end of all sets that are held now. A set that is
/// sent now is held for its max-age from now.
fn if_promised_today(answer: &RotationAnswer, now: Seconds) -> Seconds {
    let end = |judged: &JudgedSet| {
        let age = i64::try_from(judged.set.max_age).unwrap_or(i64::MAX);
        // The set of the answer is stretched to the day; its end without that day counts.
        if judged.is_sent { now.saturating_add(age) } else { judged.set.honoured_until() }
    };
    answer.sets.iter().filter(|judged| is_enforced(&judged.set)).map(end).max().unwrap_or(now).max(now)
}

fn set(number: usize, judged: &JudgedSet, roles: &dyn Fn(&Pin) -> Option<&'static str>, now: Seconds) -> Value {
    let promise = &judged.set;
    let (channel, form, id) = match &promise.channel {
        PromiseChannel::Header(_) => ("header", None, None),
        PromiseChannel::Assumed => ("assumed", None, None),
        PromiseChannel::Export { form, id, .. } => ("export", Some(form), Some(id)),
    };
    let pins = promise.pins.iter().map(|pin| json!({ "pin": pin.to_string(), "role": roles(pin) }));
    json!({
        "number": number, "id": set_id(promise), "channel": channel, "form": form, "export": id,
        "site": promise.site, "max_age": promise.max_age, "include_subdomains": promise.include_subdomains,
        "pins": pins.collect::<Vec<_>>(),
        "first_sent": rfc3339(promise.first_sent), "last_sent": rfc3339(promise.last_sent), "is_sent": judged.is_sent,
        "held_until": rfc3339(promise.honoured_until()), "is_over": promise.honoured_until() <= now,
        "is_held": judged.is_held, "lets_in": judged.lets_in, "locks_out": judged.is_broken(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        let now = 1_800_000_000 - 1_800_000_000 % DAY + 3600;
        let at = |text: &str| time_of(text, now).ok();
        assert_eq!(at(&day(now)), Some(now));
        assert_eq!(at(&day(now + DAY)), Some(now - 3600 + DAY));
        for wrong in [day(now - DAY), "2027-02-30".into(), "x".into(), "9999-12-31".into(), "2027-01-01T00:00".into()] {
            assert_eq!(at(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn questions() {
        let pin = Pin::of_spki(b"key");
        let query = format!("host=a.example&key={}&day=2027-01-01", pin.to_string().replace('+', "%2B"));
        let asked = RotationQuestion::of(&query).unwrap();
        assert_eq!((asked.key, asked.day.as_deref()), (Some(pin), Some("2027-01-01")));
        assert!(RotationQuestion::of("host=a&key=nothing").is_err());
        assert!(RotationQuestion::of("host=a&key=&day=").unwrap().key.is_none());
    }
}
