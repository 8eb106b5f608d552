//! Installed pairs, previous pairs and verdicts, as the API shows them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::asking::{Commands, beside, facts, judged, no_site};
use super::request::no_keys;
use crate::admin::api::Answer;
use crate::config::{Outline, SiteOutline};
use crate::control::admin::{InstallFacts, JudgedInstall};
use crate::control::views::chain;
use crate::install::plan::{InstallPlan, chain_of, command, managed, may_write, plan, tag_of};
use crate::install::previous::{PreviousPair, previous_pairs};
use crate::keys::key_file::FILE_MAX;
use crate::os::plain_file;
use crate::os::words::words;
use crate::reason::{Reason, texts};
use crate::tls::certificate::Chain;

/// A previous pair, and the plan to bring it back.
struct WayBack {
    place: PathBuf,
    until: Option<Timestamp>,
    certificates: Value,
    plan: Result<Arc<InstallPlan>, Reason>,
}

/// The answer about a site: its pairs, the way back, and whether this process may install.
pub(super) async fn shown(host: &str, commands: &Commands) -> Result<Answer, Answer> {
    let facts = facts(host, commands).await?;
    let host = host.to_owned();
    let (mut body, tag, ways) = beside(move || of_site(&host, &facts)).await??;
    for way in ways {
        let previous = previous_json(&way, commands).await?;
        let place = way.place.display().to_string();
        let pairs = body["pairs"].as_array_mut().into_iter().flatten();
        pairs.filter(|pair| pair["chain"] == place.as_str()).for_each(|pair| pair["previous"] = previous.clone());
    }
    Ok(Answer { etag: Some(tag), ..Answer::json(StatusCode::OK, body) })
}

fn of_site(host: &str, facts: &InstallFacts) -> Result<(Value, String, Vec<WayBack>), Answer> {
    let outline = facts.outline.as_ref().ok_or_else(|| Answer::bad("the configuration cannot be read"))?;
    let site = outline.site(host).ok_or_else(|| no_site(host))?;
    let (label, tag) = (site.label(), tag_of(outline, site));
    let pairs: Vec<Value> = site.certificates.iter().map(|pair| pair_json(outline, site, pair)).collect();
    let places = site.certificates.iter().filter(|(chain, _)| site.given_chains.contains(chain));
    let places = places.flat_map(|(chain, key)| [Some(chain), key.as_ref()]).flatten().map(|path| outline.path(path));
    let places: Vec<PathBuf> = places.collect();
    let keys = no_keys(&label, facts.allow_keys, true);
    let mut body = json!({
        "site": label, "hosts": site.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), "tag": tag,
        "pairs": pairs, "managed": site.is_managed(), "allow_keys": keys.is_none(), "sites": outline.sites.len(),
        "command": command(&label, "CHAIN KEY"), "previous_command": command(&label, "--previous"),
    });
    if site.is_managed() {
        let reason = managed(site);
        body["managed_reason"] = json!({ "error": reason.line(), "hints": reason.hints, "commands": reason.commands });
    }
    set_writable(&mut body, &may_write(&label, places.iter().map(PathBuf::as_path)));
    let ways =
        previous_pairs(outline, site).into_iter().map(|(place, pair)| way_back(outline, site, facts, place, pair));
    let ways = ways.collect();
    Ok((body, tag, ways))
}

fn way_back(
    outline: &Outline,
    site: &SiteOutline,
    facts: &InstallFacts,
    place: PathBuf,
    pair: Result<PreviousPair, Reason>,
) -> WayBack {
    match pair {
        Ok(PreviousPair { chain, until, pair }) => {
            let in_use = |path: &std::path::Path| facts.pins.get(path).copied();
            let plan = plan(outline, site, pair, &in_use).map(Arc::new);
            WayBack { place, until, certificates: certificates(&chain), plan }
        }
        Err(reason) => WayBack { place, until: None, certificates: json!([]), plan: Err(reason) },
    }
}

fn certificates(chain: &Chain) -> Value {
    json!(chain::certificates(chain.der().iter().map(|der| der.as_ref())))
}

/// A pair as it is on disk.
fn pair_json(outline: &Outline, site: &SiteOutline, (chain, key): &(String, Option<String>)) -> Value {
    let path = outline.path(chain);
    let contents = plain_file::follow_own_links(&path).and_then(|path| plain_file::read(&path, FILE_MAX));
    let read = contents.map_err(|error| Reason::new(format!("{}: {}", path.display(), words(&error))));
    let read = read.and_then(|contents| chain_of(&path, &contents));
    let since = fs::metadata(&path).and_then(|file| file.modified()).ok();
    let since = since.and_then(|time| Timestamp::try_from(time).ok());
    json!({
        "chain": path.display().to_string(),
        "key": key.as_ref().map(|key| outline.path(key).display().to_string()),
        "managed": !site.given_chains.contains(chain),
        "certificates": read.as_ref().map_or_else(|_| json!([]), certificates),
        "error": read.err().map(|reason| reason.line()),
        "installed": since.map(|time| time.to_string()),
        "previous": null,
    })
}

async fn previous_json(way: &WayBack, commands: &Commands) -> Result<Value, Answer> {
    let mut shown = json!({
        "certificates": way.certificates, "until": way.until.map(|time| time.to_string()), "ok": false,
    });
    match &way.plan {
        Err(reason) => {
            shown["error"] = reason.line().into();
            shown["hints"] = json!(reason.hints);
            shown["commands"] = json!(reason.commands);
        }
        Ok(plan) => {
            let JudgedInstall { verdict, lockout } = judged(plan, None, commands).await?;
            shown["ok"] = verdict.ok.into();
            shown["reasons"] = json!(verdict.problems);
            shown["lockout"] = lockout;
            if let Some(problem) = verdict.problems.iter().find(|problem| problem.is_error()) {
                shown["error"] = problem.reason.line().into();
                shown["hints"] = json!(problem.reason.hints);
                shown["commands"] = json!(problem.reason.commands);
            }
        }
    }
    Ok(shown)
}

/// The answer about a pair that is not installed yet.
pub(super) fn verdict(plan: &InstallPlan, judged: JudgedInstall, dry_run: bool) -> Value {
    let JudgedInstall { verdict, lockout } = judged;
    let key = match (&plan.found_key, plan.files.len(), plan.is_served()) {
        (_, _, false) => "none",
        (Some(_), ..) => "found",
        (None, 1, _) if plan.places.first() != plan.places.last() => "in-use",
        _ => "given",
    };
    json!({
        "ok": verdict.ok, "verdict": if verdict.ok { "fit" } else { "refused" }, "dry_run": dry_run,
        "site": plan.site, "pin": plan.chain.pin().to_string(), "certificates": certificates(&plan.chain),
        "names": plan.chain.leaf.all_names().collect::<Vec<_>>(),
        // Certificates are public: a form sends them again.
        "chain_pem": plan.chain.pem(),
        "key": key, "key_file": plan.found_key.as_ref().map(|file| file.display().to_string()),
        "problems": texts(&verdict.problems), "reasons": verdict.problems, "other_errors": verdict.has_other_errors,
        "lockout": lockout, "notes": [], "written": [], "verified": false, "verification": null, "rolled_back": false,
    })
}

/// Says whether this process may write the files.
pub(super) fn set_writable(body: &mut Value, writable: &Result<(), Reason>) {
    body["writable"] = writable.is_ok().into();
    body["not_writable"] = match writable {
        Ok(()) => Value::Null,
        Err(reason) => json!({ "error": reason.line(), "hints": reason.hints, "commands": reason.commands }),
    };
}
