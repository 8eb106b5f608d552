//! `pintle key revoke`: the end of a compromised key. The running process acts; this command prints the effects before, and
//! the progress.

use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Output;
use super::remote::send;
use super::results::Results;
use super::status::{list, minute, text};
use crate::acme::request::{Compromised, LockedOutClients, Revoking};
use crate::control::client::PATIENCE;
use crate::reason::pasted::pintle;
use crate::reason::{Reason, counted};

/// The time limit for the progress. pintle continues without the command.
const WAIT: Duration = Duration::from_secs(180);
/// The time between two questions for the progress.
const POLL: Duration = Duration::from_millis(300);

/// The arguments.
#[derive(Debug, Clone)]
pub struct Options {
    /// Any host of the site.
    pub host: String,
    /// The algorithm; `None` for all of the site's certificates.
    pub algorithm: Option<String>,
    /// `true` for the next key, `false` for the live one.
    pub is_next: bool,
    /// The day until which the operator accepts a lockout.
    pub accept: Option<String>,
    /// `true` to print the effects alone.
    pub dry_run: bool,
    /// `true` to wait for the end.
    pub waits: bool,
    /// `true` for JSON.
    pub as_json: bool,
}

/// Ends a compromised key. Exit code 0 if it is burnt and its certificates are revoked.
pub fn revoke(path: &Path, options: &Options, output: &Output) -> ExitCode {
    let mut results = Results::new(options.as_json);
    let ok = run(path, options, output, &mut results).unwrap_or(false);
    results.end(ok)
}

fn run(path: &Path, options: &Options, output: &Output, results: &mut Results) -> Option<bool> {
    let effects = ask(path, options, true, output, results)?;
    results.set("keys", json!(effects.keys));
    for key in &effects.keys {
        before(key).into_iter().for_each(|line| results.say(line));
    }
    if !effects.ok {
        return Some(refused(effects, results));
    }
    if options.dry_run {
        results.say("nothing is changed");
        return Some(true);
    }
    let done = ask(path, options, false, output, results)?;
    if !done.ok {
        return Some(refused(done, results));
    }
    let site = done.keys.first().map_or_else(|| options.host.clone(), |key| key.site.clone());
    let plan = pintle(format_args!("acme plan --site {site}"));
    if !options.waits {
        results.say(format!("begun; pintle continues by itself: {plan}"));
        return Some(true);
    }
    follow(path, &done.keys, &plan, output, results)
}

/// Prints a refusal. Returns `false`.
fn refused(Revoking { error, hints, .. }: Revoking, results: &mut Results) -> bool {
    results.refuse(&Reason::new(error).hints(hints))
}

fn ask(path: &Path, options: &Options, dry_run: bool, output: &Output, results: &mut Results) -> Option<Revoking> {
    let mut command = format!("/acme/revoke?host={}", options.host.replace('*', "%2A"));
    let key = options.is_next.then(|| "next".to_owned());
    let dry_run = dry_run.then(|| "true".to_owned());
    let parameters = [
        ("algorithm", options.algorithm.clone()),
        ("key", key),
        ("accept_lockout_until", options.accept.clone()),
        ("dry_run", dry_run),
    ];
    for (name, value) in parameters {
        if let Some(value) = value {
            let value: String = value.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
            command += &format!("&{name}={value}");
        }
    }
    let answer = send(path, Method::POST, &command, PATIENCE, output, results)?;
    results.understood(&answer)
}

/// The effects for one key, in lines.
fn before(key: &Compromised) -> Vec<String> {
    let Compromised { site, algorithm, role, pin, .. } = key;
    let mut lines = vec![format!("{site} ({algorithm}): the {role} key {pin} is compromised")];
    match &key.successor {
        Some(successor) => {
            lines.push(format!("  1. pintle orders a certificate for the next key {successor}, and serves it"));
            match key.until.as_deref() {
                None => lines.push("     nobody is locked out: every promise in force has that key".to_owned()),
                Some(until) => {
                    let words = "     LOCKED OUT until";
                    lines.push(format!(
                        "{words} {until}: {}",
                        key.locked_out.iter().map(clients).collect::<Vec<_>>().join("; ")
                    ));
                }
            }
        }
        None => lines.push("  1. pintle makes another next key, and promises that one".to_owned()),
    }
    lines.push(
        "  2. then the ledger marks the key as burnt: it never serves again, and does not count as a backup".to_owned(),
    );
    if key.certificates.is_empty() {
        lines.push("  3. it has no valid certificate: nothing is revoked".to_owned());
    } else {
        lines.push(format!(
            "  3. then the CA revokes {} of the compromised key, reason keyCompromise:",
            counted(key.certificates.len(), "certificate")
        ));
        for certificate in &key.certificates {
            let (serial, end) = (&certificate.serial, minute(&certificate.not_after));
            lines.push(format!("     {serial}, valid until {end}, from {}", certificate.authority));
        }
    }
    lines
}

fn clients(locked_out: &LockedOutClients) -> String {
    format!("clients of {} that hold older pins of {}", locked_out.hosts.join(", "), locked_out.site)
}

/// Prints the progress until the keys are burnt.
fn follow(path: &Path, keys: &[Compromised], plan: &str, output: &Output, results: &mut Results) -> Option<bool> {
    let begun = Instant::now();
    let mut printed: Vec<String> = Vec::new();
    loop {
        let answer = send(path, Method::GET, "/acme", PATIENCE, output, results)?;
        let plans: Vec<Value> = serde_json::from_str(&answer).unwrap_or_default();
        let mut left = 0;
        let mut ok = true;
        let mut after = Vec::new();
        for key in keys {
            let of_key = |plan: &&Value| text(plan, "site") == key.site && text(plan, "algorithm") == key.algorithm;
            let Some(plan) = plans.iter().find(of_key) else { continue };
            if text(&plan["compromise"], "pin") == key.pin {
                left += 1;
                let line = progress(key, plan);
                if !printed.contains(&line) {
                    results.say(line.clone());
                    printed.push(line);
                }
                continue;
            }
            let revoked =
                list(&plan["retired"], "certificates").iter().all(|certificate| certificate["revoked"] == true);
            ok &= revoked && text(&plan["retired"], "pin") == key.pin;
            after.push(json!({
                "site": key.site, "algorithm": key.algorithm, "live": plan["live"], "next": plan["next"],
                "not_after": plan["not_after"], "retired": plan["retired"],
            }));
        }
        if left == 0 {
            for done in &after {
                ended(done).into_iter().for_each(|line| results.say(line));
            }
            results.set("done", after);
            return Some(ok);
        }
        if begun.elapsed() > WAIT {
            let what = format!("not done within {} seconds; pintle continues by itself", WAIT.as_secs());
            return Some(results.fail_with_hint(&what, &format!("see {plan}")));
        }
        sleep(POLL);
    }
}

fn progress(key: &Compromised, plan: &Value) -> String {
    let (site, algorithm, compromise) = (&key.site, &key.algorithm, &plan["compromise"]);
    let failed = |of: &Value| of["problem"].as_str().map(|why| format!(" (failed: {why})")).unwrap_or_default();
    let what = match text(compromise, "step") {
        "ordering" => format!("ordering a certificate for the next key{}", failed(plan)),
        "revoking" => format!("another key serves; revoking{}", failed(compromise)),
        _ => "recording the key as burnt".to_owned(),
    };
    format!("{site} ({algorithm}): {what}")
}

fn ended(done: &Value) -> Vec<String> {
    let (site, algorithm) = (text(done, "site"), text(done, "algorithm"));
    let retired = &done["retired"];
    let mut lines = vec![format!(
        "{site} ({algorithm}): the live key is {}, the next key is {}",
        text(done, "live"),
        text(done, "next")
    )];
    for certificate in list(retired, "certificates") {
        let (serial, authority) = (text(certificate, "serial"), text(certificate, "authority"));
        match certificate["revoked"] == true {
            true => lines.push(format!("  {authority} has revoked {serial}")),
            false => lines.push(format!("  NOT REVOKED: {serial}, by {authority}: {}", text(retired, "problem"))),
        }
    }
    lines.push(format!("  burnt: {}", text(retired, "pin")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::request::ToRevoke;

    fn key() -> Compromised {
        Compromised {
            site: "a.example".to_owned(),
            algorithm: "ecdsa-p256".to_owned(),
            role: "live".to_owned(),
            pin: "L=".to_owned(),
            successor: Some("N=".to_owned()),
            certificates: vec![ToRevoke {
                serial: "4c".to_owned(),
                not_after: "2027-02-25T03:14:15Z".to_owned(),
                authority: "letsencrypt".to_owned(),
            }],
            ..Compromised::default()
        }
    }

    #[test]
    fn effects_in_lines() {
        let want = [
            "a.example (ecdsa-p256): the live key L= is compromised",
            "  1. pintle orders a certificate for the next key N=, and serves it",
            "     nobody is locked out: every promise in force has that key",
            "  2. then the ledger marks the key as burnt: it never serves again, and does not count as a backup",
            "  3. then the CA revokes 1 certificate of the compromised key, reason keyCompromise:",
            "     4c, valid until 2027-02-25 03:14 UTC, from letsencrypt",
        ];
        assert_eq!(before(&key()), want);
        let locked_out =
            LockedOutClients { site: "a.example".to_owned(), hosts: vec!["a.example".to_owned()], until: 0 };
        let lines =
            before(&Compromised { locked_out: vec![locked_out], until: Some("2026-12-24".to_owned()), ..key() });
        assert_eq!(
            lines[2],
            "     LOCKED OUT until 2026-12-24: clients of a.example that hold older pins of a.example"
        );
        let lines =
            before(&Compromised { successor: None, certificates: Vec::new(), role: "next".to_owned(), ..key() });
        assert_eq!(lines[1..3].join("\n").lines().count(), 2);
    }

    #[test]
    fn the_end_in_lines() {
        let certificate = json!({ "serial": "4c", "authority": "letsencrypt", "revoked": false });
        let retired = json!({ "pin": "L=", "problem": "no account", "certificates": [certificate] });
        let done =
            json!({ "site": "a.example", "algorithm": "ecdsa-p256", "live": "N=", "next": "F=", "retired": retired });
        let lines = ended(&done);
        assert_eq!(lines[1..], ["  NOT REVOKED: 4c, by letsencrypt: no account", "  burnt: L="]);
    }
}
