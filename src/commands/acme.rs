//! `pintle acme`: the plan of each certificate that pintle obtains, a renewal by hand, the accounts. And `pintle key
//! rotate`.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::remote::send;
use super::results::Results;
use super::status::{list, minute, text};
use super::{Output, read, refuse};
use crate::acme::request::{Renewing, WantedRenewal};
use crate::admin::asked::encoded;
use crate::control::client::PATIENCE;
use crate::host::HostPattern;
use crate::os::words::words;
use crate::reason::Reason;
use crate::reason::pasted::pintle;

/// The folder of ACME in the state folder.
const FOLDER: &str = "acme";
/// The largest file of an account, in bytes.
const ACCOUNT_MAX: u64 = 1 << 16;

/// Prints the plan of each certificate, or of one site's. Exit code 1 if one of them needs the operator, or is missing,
/// overdue or expired.
pub fn plan(path: &Path, host: Option<&str>, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let Some(answer) = send(path, Method::GET, "/acme", PATIENCE, output, &mut results) else {
        return results.end(false);
    };
    let Some(plans) = results.understood::<Vec<Value>>(&answer) else { return results.end(false) };
    let is_meant = |plan: &Value| host.is_none_or(|host| is_of(plan, host));
    let plans: Vec<Value> = plans.into_iter().filter(is_meant).collect();
    if plans.is_empty() {
        let what = match host {
            Some(host) => format!("{host}: pintle obtains no certificate for this host"),
            None => "pintle obtains no certificates".to_owned(),
        };
        results.fail_with_hint(&what, &format!("acme = true in [site.certificate], then `{}`", pintle("reload")));
        return results.end(false);
    }
    let needs_somebody = plans.iter().any(is_alarming);
    if as_json {
        println!("{:#}", Value::Array(plans));
    } else {
        for plan in &plans {
            lines(plan).iter().for_each(|line| println!("{line}"));
        }
    }
    if needs_somebody { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

/// `true` if a plan is of the site with this host.
fn is_of(plan: &Value, host: &str) -> bool {
    let Ok(wanted) = HostPattern::parse(host) else { return false };
    let names = list(plan, "names").iter().filter_map(Value::as_str).chain(plan["site"].as_str());
    let mut patterns = names.filter_map(|name| HostPattern::parse(name).ok());
    patterns.any(|pattern| pattern == wanted || wanted.exact().is_some_and(|name| pattern.matches(name)))
}

/// `true` if somebody should look at a certificate.
fn is_alarming(plan: &Value) -> bool {
    let unrevoked = |certificate: &Value| certificate["revoked"] == false;
    plan["stop"].is_string()
        || plan["compromise"].is_object()
        || plan["key_fault"].is_object()
        || list(&plan["retired"], "certificates").iter().any(unrevoked)
        || matches!(plan["standing"].as_str(), Some("overdue" | "missing" | "expired"))
}

/// A plan in lines.
fn lines(plan: &Value) -> Vec<String> {
    let state = match text(plan, "standing") {
        "missing" => "NO CERTIFICATE YET".to_owned(),
        "expired" => format!("EXPIRED on {}", minute(text(plan, "not_after"))),
        "overdue" => format!("RENEWAL OVERDUE, until {}", minute(text(plan, "not_after"))),
        standing => format!("{standing}, until {}", minute(text(plan, "not_after"))),
    };
    let from = plan["from"].as_str().map(|from| format!(", from {from}")).unwrap_or_default();
    let mut found = vec![format!("{} ({}): {state}{from}", text(plan, "site"), text(plan, "algorithm"))];
    let mut add = |name: &str, words: String| found.push(format!("  {name:11}  {words}"));
    if let Some(since) = plan["failing_since"].as_str() {
        add("failing", format!("since {}", minute(since)));
    }
    compromised(plan).into_iter().for_each(|(name, words)| add(name, words));
    let names: Vec<&str> = list(plan, "names").iter().filter_map(Value::as_str).collect();
    add("names", names.join(", "));
    let when = if plan["is_due"] == true { "now".to_owned() } else { minute(text(plan, "due")) };
    add("next order", format!("{when}, with the {} key ({})", text(plan, "key"), text(plan, "why")));
    if let Some(url) = plan["order"]["url"].as_str() {
        add("open order", format!("{url} at {}", text(&plan["order"], "authority")));
    }
    next_try(plan).into_iter().for_each(|words| add("next try", words));
    let window = &plan["window"];
    if window.is_object() {
        let why = window["explanation"].as_str().map(|page| format!(", see {page}")).unwrap_or_default();
        add("window", format!("{} to {}{why}", minute(text(window, "start")), minute(text(window, "end"))));
    }
    let changeover = &plan["changeover"];
    if changeover.is_object() {
        let waits = if changeover["waits"] == true { "waits until clients know the next key: " } else { "" };
        add("changeover", format!("{waits}{} ({})", minute(text(changeover, "from")), text(changeover, "why")));
    }
    add("live key", text(plan, "live").to_owned());
    add("next key", text(plan, "next").to_owned());
    key_fault(plan).into_iter().for_each(|(name, words)| add(name, words));
    tries(plan).into_iter().for_each(|(name, words)| add(name, words));
    found
}

/// The lines about the last attempt, the last preflight, and the operator's part.
fn tries(plan: &Value) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut add = |name, words| found.push((name, words));
    let last = &plan["last"];
    if last.is_object() {
        let outcome = if last["ok"] == true { "" } else { "FAILED: " };
        let words =
            format!("{}, {}: {outcome}{}", minute(text(last, "at")), text(last, "authority"), text(last, "text"));
        add("last result", words);
    }
    preflight(plan).into_iter().for_each(|words| add("preflight", words));
    if let Some(stop) = plan["stop"].as_str().filter(|_| !plan["key_fault"].is_object()) {
        let again = plan["next_try"].as_str().map(|at| format!("; pintle tries again {}", minute(at)));
        let (again, site) = (again.unwrap_or_default(), text(plan, "site"));
        let renew = pintle(format_args!("acme renew --site {site}"));
        add("STOPPED", format!("{stop}; then: {renew}{again}"));
    } else if let Some(hint) = plan["hint"].as_str().filter(|_| is_alarming(plan)) {
        add("hint", hint.to_owned());
    }
    found
}

/// The last check of the names, and the time of the next one.
fn preflight(plan: &Value) -> Option<String> {
    let preflight = &plan["preflight"];
    let (at, found) = (minute(text(preflight, "at")), text(preflight, "text"));
    if preflight["verdict"] == "broken" {
        let next = preflight["next"].as_str().map(|at| format!(", again {}", minute(at))).unwrap_or_default();
        return Some(format!("{at}, FAILED{next}: {found}"));
    }
    (preflight["verdict"] == "unknown" && !found.is_empty()).then(|| format!("{at}: {found}"))
}

/// The time of the next try, and why it is not now.
fn next_try(plan: &Value) -> Option<String> {
    if plan["is_due"] != true {
        return None;
    }
    if plan["busy"] == true {
        return Some("under way".to_owned());
    }
    let why = plan["waits"]["text"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
    plan["next_try"].as_str().map(|at| format!("{}{why}", minute(at)))
}

/// The lines about a key that cannot be used.
fn key_fault(plan: &Value) -> Vec<(&'static str, String)> {
    let fault = plan["key_fault"]["what"].as_str().map(|what| ("KEY", what.to_owned()));
    let hints = list(&plan["key_fault"], "hints").iter().filter_map(Value::as_str);
    fault.into_iter().chain(hints.map(|hint| ("hint", hint.to_owned()))).collect()
}

/// The lines about a compromised key, and about one that is burnt.
fn compromised(plan: &Value) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let compromise = &plan["compromise"];
    if compromise.is_object() {
        let step = match text(compromise, "step") {
            "ordering" => "a certificate for another key is ordered",
            "revoking" => "another key serves; its certificates are being revoked",
            _ => "another key serves; it is being recorded as burnt",
        };
        let failed = compromise["problem"].as_str().map(|problem| format!(", FAILED: {problem}")).unwrap_or_default();
        let retry = compromise["retry"].as_str().map(|at| format!(", next try {}", minute(at))).unwrap_or_default();
        found.push(("COMPROMISED", format!("{}: {step}{failed}{retry}", text(compromise, "pin"))));
    }
    let retired = &plan["retired"];
    if retired.is_object() {
        let open = list(retired, "certificates").iter().filter(|certificate| certificate["revoked"] == false);
        let open: Vec<&str> = open.map(|certificate| text(certificate, "serial")).collect();
        let words = format!("{}, since {}", text(retired, "pin"), minute(text(retired, "at")));
        found.push(match open.is_empty() {
            true => ("burnt key", words),
            false => ("burnt key", format!("{words}; NOT REVOKED: {}: {}", open.join(", "), text(retired, "problem"))),
        });
    }
    found
}

/// Asks for a certificate of a site now, and says when pintle orders it. `despite` orders it whatever the preflight says.
pub fn renew(path: &Path, host: &str, despite: bool, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let command = if despite { "&despite_preflight=true" } else { "" };
    let answer = ask(path, host, command, output, &mut results);
    if let Some(Renewing { certificates, .. }) = &answer {
        for certificate in certificates {
            results.say(renewal_words(host, certificate, despite));
        }
        results.set("certificates", json!(certificates));
    }
    results.end(answer.is_some())
}

fn renewal_words(host: &str, WantedRenewal { algorithm, from, why, hint }: &WantedRenewal, despite: bool) -> String {
    let front = format!("{host} ({algorithm})");
    let see = format!("see: {}", pintle(format_args!("acme plan --site {host}")));
    match from {
        Some(from) => {
            let reasons: Vec<&str> = [why, hint].into_iter().flatten().map(String::as_str).collect();
            let reasons = reasons.join("; ");
            format!("{front}: pintle has noted it, and orders on {}: {reasons}; {see}", minute(from))
        }
        None if despite => format!("{front}: pintle orders now, whatever its check of the names finds; {see}"),
        None => format!("{front}: pintle orders now, if the names pass its check; {see}"),
    }
}

/// Asks for the changeover to the next key of a site, and says from when it is possible.
pub fn rotate(path: &Path, host: &str, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let ok = ask(path, host, "&rotate=true", output, &mut results).is_some()
        && say_changeovers(path, host, output, &mut results);
    results.end(ok)
}

/// Asks the running process for a renewal or a changeover. Returns its answer; `None` if it refuses.
fn ask(path: &Path, host: &str, how: &str, output: &Output, results: &mut Results) -> Option<Renewing> {
    let command = format!("/acme/renew?host={}{how}", encoded(host));
    let answer = send(path, Method::POST, &command, PATIENCE, output, results)?;
    let answer: Renewing = results.understood(&answer)?;
    if answer.ok {
        results.set("algorithms", answer.algorithms.clone());
        return Some(answer);
    }
    results.refuse(&Reason::new(format!("{host}: {}", answer.error)).hints(answer.hints));
    None
}

/// Says when the key of each of a site's certificates changes over.
fn say_changeovers(path: &Path, host: &str, output: &Output, results: &mut Results) -> bool {
    let Some(answer) = send(path, Method::GET, "/acme", PATIENCE, output, results) else { return false };
    let Some(plans) = results.understood::<Vec<Value>>(&answer) else { return false };
    let mut changeovers = Vec::new();
    for plan in plans.iter().filter(|plan| is_of(plan, host)) {
        results.say(changeover_words(plan));
        changeovers.push(json!({ "algorithm": plan["algorithm"], "changeover": plan["changeover"] }));
    }
    results.set("changeovers", changeovers);
    true
}

fn changeover_words(plan: &Value) -> String {
    let (site, algorithm, changeover) = (text(plan, "site"), text(plan, "algorithm"), &plan["changeover"]);
    let next = text(plan, "next");
    if let Some(fault) = plan["key_fault"]["what"].as_str() {
        let see = pintle(format_args!("acme plan --site {site}"));
        return format!("{site} ({algorithm}): no changeover: {fault}; see: {see}");
    }
    match changeover["waits"].as_bool() {
        Some(true) => format!(
            "{site} ({algorithm}): clients have not known the next key {next} for long enough; pintle changes over on {}, and \
             renews on the live key until then",
            minute(text(changeover, "from"))
        ),
        Some(false) => {
            format!("{site} ({algorithm}): every client knows the next key {next}; pintle orders with it now")
        }
        None => format!("{site} ({algorithm}): pintle changes over to the next key as soon as clients know it"),
    }
}

/// Prints the accounts at the CAs.
pub fn account(path: &Path, as_json: bool) -> ExitCode {
    let draft = match read(path) {
        Ok(draft) => draft,
        Err(reason) => return refuse(&reason),
    };
    let Some(state) = draft.state() else {
        let reason = Reason::new(format!("{}: no state folder configured", path.display()));
        return refuse(&reason.hint("set state.directory: pintle keeps its accounts there"));
    };
    let accounts = match accounts(&state.join(FOLDER)) {
        Ok(accounts) => accounts,
        Err(error) => {
            let reason = Reason::new(format!("{}: {}", state.join(FOLDER).display(), words(&error)));
            return refuse(&reason.hint("ask as the user that runs pintle, or as root"));
        }
    };
    if as_json {
        println!("{:#}", Value::Array(accounts));
    } else if accounts.is_empty() && draft.managed().is_empty() {
        println!("no account: no site has acme = true in its [site.certificate]");
    } else if accounts.is_empty() {
        println!("no account yet: pintle registers one before its first order");
    } else {
        for account in &accounts {
            println!("{}", text(account, "directory"));
            println!("  account  {}", account["url"].as_str().unwrap_or("not registered yet"));
            println!("  email    {}", text(account, "email"));
        }
    }
    ExitCode::SUCCESS
}

/// Reads the accounts, without their keys, in the order of their directories.
fn accounts(folder: &Path) -> io::Result<Vec<Value>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_account = name.to_str().is_some_and(|name| name.starts_with("account-") && name.ends_with(".json"));
        if !is_account || entry.metadata()?.len() > ACCOUNT_MAX {
            continue;
        }
        let stored: Value = serde_json::from_slice(&fs::read(entry.path())?).unwrap_or_default();
        found.push(json!({
            "directory": stored["directory"], "url": stored["url"], "email": stored["email"], "eab": stored["eab"],
        }));
    }
    found.sort_by_key(|account| text(account, "directory").to_owned());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Value {
        json!({
            "site": "a.example", "algorithm": "ecdsa-p256", "names": ["a.example", "b.example"], "standing": "current",
            "action": "wait", "busy": false, "stop": null, "due": "2027-01-26T03:14:15Z", "is_due": false,
            "next_try": "2026-11-28T03:14:15Z", "why": "the CA's renewal window", "key": "live", "live": "L=", "next": "N=",
            "not_after": "2027-02-25T03:14:15Z", "from": "letsencrypt",
            "changeover": { "from": "2027-11-27T03:14:15Z", "why": "rotate_every", "waits": false },
            "window": { "start": "2027-01-25T12:00:00Z", "end": "2027-01-27T12:00:00Z", "explanation": null },
            "last": { "at": "2026-11-27T03:14:15Z", "authority": "letsencrypt", "ok": true, "text": "issued" },
            "preflight": { "at": "2026-11-27T03:14:15Z", "verdict": "fine", "text": "" }, "order": null,
        })
    }

    #[test]
    fn a_plan_in_lines() {
        let want = [
            "a.example (ecdsa-p256): current, until 2027-02-25 03:14 UTC, from letsencrypt",
            "  names        a.example, b.example",
            "  next order   2027-01-26 03:14 UTC, with the live key (the CA's renewal window)",
            "  window       2027-01-25 12:00 UTC to 2027-01-27 12:00 UTC",
            "  changeover   2027-11-27 03:14 UTC (rotate_every)",
            "  live key     L=",
            "  next key     N=",
            "  last result  2026-11-27 03:14 UTC, letsencrypt: issued",
        ];
        assert_eq!(lines(&plan()), want);
        assert!(!is_alarming(&plan()));
    }

    #[test]
    fn a_plan_that_needs_somebody() {
        let mut plan = plan();
        plan["standing"] = json!("overdue");
        plan["is_due"] = json!(true);
        plan["last"]["ok"] = json!(false);
        plan["last"]["text"] = json!("dns: no record");
        plan["window"]["explanation"] = json!("https://ca.example/why");
        plan["changeover"]["waits"] = json!(true);
        plan["preflight"] = json!({ "at": "2026-11-27T03:14:15Z", "verdict": "broken", "text": "a.example AAAA" });
        plan["stop"] = json!("userActionRequired");
        let found = lines(&plan).join("\n");
        for want in [
            "RENEWAL OVERDUE, until 2027-02-25 03:14 UTC",
            "next order   now, with the live key",
            "next try     2026-11-28 03:14 UTC",
            "see https://ca.example/why",
            "waits until clients know the next key: 2027-11-27 03:14 UTC",
            "FAILED: dns: no record",
            "preflight    2026-11-27 03:14 UTC, FAILED: a.example AAAA",
            "STOPPED      userActionRequired; then: pintle acme renew --site a.example",
        ] {
            assert!(found.contains(want), "{want} is not in\n{found}");
        }
        assert!(is_alarming(&plan));
        assert!(changeover_words(&plan).contains("changes over on 2027-11-27 03:14 UTC"));
        plan["compromise"] = json!({ "pin": "L=", "step": "revoking", "problem": "the CA is down", "retry": null });
        let certificate = json!({ "serial": "4c", "revoked": false });
        plan["retired"] = json!({ "pin": "O=", "at": "2026-11-27T03:14:15Z", "problem": "no account", "certificates": [certificate] });
        let found = lines(&plan).join("\n");
        for want in [
            "COMPROMISED  L=: another key serves; its certificates are being revoked, FAILED: the CA is down",
            "burnt key    O=, since 2026-11-27 03:14 UTC; NOT REVOKED: 4c: no account",
        ] {
            assert!(found.contains(want), "{want} is not in\n{found}");
        }
        // A newer or older process may leave members out.
        assert!(lines(&json!({}))[0].starts_with("- (-)"));
    }
}
