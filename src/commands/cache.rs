//! `pintle purge` and `pintle cache`: the caches of the running process.

use std::path::Path;
use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use super::Output;
use super::remote::send;
use super::results::Results;
use crate::admin::asked::encoded;
use crate::config::value::{show_number, show_size};
use crate::control::client::PATIENCE;
use crate::reason::counted;

/// Shown for a page that is not stored, if no reason is known.
const UNKNOWN_WHY: &str = "not stored, and no reason is known: nobody has asked for it lately, its last answer was for one \
                           request alone (a cookie, Authorization, no-store) or was not complete, or it was evicted";

/// The responses to purge.
pub struct PurgeOptions {
    /// URLs.
    pub urls: Vec<String>,
    /// A URL, and all below it.
    pub prefix: Option<String>,
    /// A tag.
    pub tag: Option<String>,
    /// A host of the site.
    pub site: Option<String>,
    /// The responses stay for the time that the upstream fails.
    pub is_soft: bool,
}

impl PurgeOptions {
    /// One command for each URL, or one for the other options together.
    fn commands(&self) -> Vec<String> {
        let part = |name: &str, value: &str| format!("{name}={}", encoded(value));
        let others = [("prefix", &self.prefix), ("tag", &self.tag), ("site", &self.site)];
        let others: Vec<String> =
            others.into_iter().filter_map(|(name, value)| Some(part(name, value.as_deref()?))).collect();
        let mut queries: Vec<String> = self.urls.iter().map(|url| part("url", url)).collect();
        if !others.is_empty() {
            queries.push(others.join("&"));
        }
        let soft = if self.is_soft { "&soft=true" } else { "" };
        queries.into_iter().map(|query| format!("/purge?{query}{soft}")).collect()
    }
}

/// Purges. Exit code 0 also if nothing was stored. The first URL that is refused is the last one.
pub fn purge(path: &Path, purge: &PurgeOptions, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let commands = purge.commands();
    let (mut answers, mut purged, mut millis) = (Vec::new(), 0, 0.0);
    for command in &commands {
        let Some(answer) = asked(path, (Method::POST, command), output, &mut results) else { break };
        purged += answer["purged"].as_u64().unwrap_or_default();
        millis += answer["duration_ms"].as_f64().unwrap_or_default();
        answers.push(answer);
    }
    let is_done = answers.len() == commands.len();
    let Some(answer) = answers.pop() else { return results.end(false) };
    let what = if purge.is_soft { "will be validated before the next use" } else { "purged" };
    let before = if is_done { "" } else { " before this error" };
    results.say(format!("{} {what}{before}", responses(purged)));
    set(&mut results, answer);
    results.set("purged", purged);
    results.set("duration_ms", millis);
    results.end(is_done)
}

/// Shows the caches, or what is stored of a URL. Exit code 0 also if nothing is.
pub fn cache(path: &Path, url: Option<&str>, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let command = url.map_or_else(|| "/cache".to_owned(), |url| format!("/cache?url={}", encoded(url)));
    let Some(answer) = asked(path, (Method::GET, &command), output, &mut results) else { return results.end(false) };
    match url {
        Some(_) => say_url(&answer, &mut results),
        None => say_caches(&answer, &mut results),
    }
    set(&mut results, answer);
    results.end(true)
}

fn asked(path: &Path, (method, command): (Method, &str), output: &Output, results: &mut Results) -> Option<Value> {
    let answer = send(path, method, command, PATIENCE, output, results)?;
    results.understood(&answer)
}

fn set(results: &mut Results, answer: Value) {
    if let Value::Object(members) = answer {
        members.into_iter().filter(|(name, _)| name != "ok").for_each(|(name, value)| results.set(&name, value));
    }
}

fn responses(count: u64) -> String {
    counted(show_number(count), "response")
}

fn say_caches(answer: &Value, results: &mut Results) {
    let caches = answer["caches"].as_array().map(Vec::as_slice).unwrap_or_default();
    if caches.is_empty() {
        results.say("no site has a cache: [site.cache] gives it one");
    }
    for cache in caches {
        let number = |name: &str| cache[name].as_u64().unwrap_or_default();
        let rate = cache["hit_rate"].as_f64().map_or_else(
            || "no requests yet".to_owned(),
            |rate| format!("{:.1} % without the upstream's body", rate * 100.0),
        );
        results.say(format!(
            "{}: {}, {} of {}, {rate}",
            cache["site"].as_str().unwrap_or_default(),
            counted(show_number(number("urls")), "URL"),
            show_size(number("bytes")),
            show_size(number("memory")),
        ));
        if let Some(reasons) = reasons(&cache["from_upstream"]) {
            results.say(format!("  from the upstream: {reasons}"));
        }
        let on_disk = |name: &str| cache["disk"][name].as_u64();
        if let (Some(files), Some(bytes), Some(limit)) = (on_disk("files"), on_disk("bytes"), on_disk("limit")) {
            let (bytes, limit) = (show_size(bytes), show_size(limit));
            results.say(format!("  on disk: {}, {bytes} of {limit}", responses(files)));
        }
    }
}

/// The reasons for answers that were not from the store, the most frequent first.
fn reasons(counts: &Value) -> Option<String> {
    let counts = counts.as_object()?.iter().filter_map(|(reason, count)| Some((count.as_u64()?, reason)));
    let mut counts: Vec<(u64, &String)> = counts.collect();
    counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let shown: Vec<String> = counts.iter().map(|(count, reason)| format!("{} {reason}", show_number(*count))).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

fn say_url(answer: &Value, results: &mut Results) {
    let variants = answer["variants"].as_array().map(Vec::as_slice).unwrap_or_default();
    results.say(format!("key: {}", answer["key"].as_str().unwrap_or_default()));
    let on_disk = answer["on_disk"].as_u64().unwrap_or_default();
    if on_disk > 0 {
        results.say(format!("on disk: {}", responses(on_disk)));
    }
    if variants.is_empty() && on_disk == 0 {
        let why = match answer["why_not"].as_str() {
            Some(why) => format!("not stored: {why}"),
            None => UNKNOWN_WHY.to_owned(),
        };
        results.say(why);
    }
    for variant in variants {
        let number = |name: &str| variant[name].as_i64().unwrap_or_default();
        let state = match (variant["invalid"].as_bool(), number("ttl")) {
            (Some(true), _) => "to be validated".to_owned(),
            (_, ttl) if ttl > 0 => format!("fresh for {ttl}s"),
            (_, ttl) => format!("stale for {}s", -ttl),
        };
        let vary = variant["vary"].as_object().filter(|vary| !vary.is_empty());
        let vary = vary.map(|vary| format!(", for {}", Value::Object(vary.clone()))).unwrap_or_default();
        let from = variant["lifetime_from"].as_str().unwrap_or_default();
        results.say(format!("{} {} bytes, {state} ({from}){vary}", number("status"), number("bytes")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_a_purge() {
        let none = || PurgeOptions { urls: Vec::new(), prefix: None, tag: None, site: None, is_soft: false };
        let urls = vec!["https://a.example/x?y".to_owned(), "https://a.example/z".to_owned()];
        let two = PurgeOptions { urls, ..none() };
        assert_eq!(
            two.commands(),
            ["/purge?url=https%3A%2F%2Fa.example%2Fx%3Fy", "/purge?url=https%3A%2F%2Fa.example%2Fz"]
        );
        let both =
            PurgeOptions { tag: Some("t".to_owned()), site: Some("a.example".to_owned()), is_soft: true, ..none() };
        assert_eq!(both.commands(), ["/purge?tag=t&site=a.example&soft=true"]);
    }
}
