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

/// The responses to purge.
pub struct PurgeOptions {
    /// One URL.
    pub url: Option<String>,
    /// A URL, and all below it.
    pub prefix: Option<String>,
    /// A tag.
    pub tag: Option<String>,
    /// A host of the site.
    pub site: Option<String>,
    /// The responses stay for the time that the upstream fails.
    pub is_soft: bool,
}

/// Purges. Exit code 0 also if nothing was stored.
pub fn purge(path: &Path, purge: &PurgeOptions, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let named = [("url", &purge.url), ("prefix", &purge.prefix), ("tag", &purge.tag), ("site", &purge.site)];
    let mut query: Vec<String> = Vec::new();
    for (name, value) in named {
        query.extend(value.as_deref().map(|value| format!("{name}={}", encoded(value))));
    }
    if purge.is_soft {
        query.push("soft=true".to_owned());
    }
    let command = format!("/purge?{}", query.join("&"));
    let Some(answer) = asked(path, (Method::POST, &command), output, &mut results) else { return results.end(false) };
    let purged = answer["purged"].as_u64().unwrap_or_default();
    let what = if purge.is_soft { "will be validated before the next use" } else { "purged" };
    results.say(format!("{} {what}", responses(purged)));
    set(&mut results, answer);
    results.end(true)
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
        let on_disk = |name: &str| cache["disk"][name].as_u64();
        if let (Some(files), Some(bytes), Some(limit)) = (on_disk("files"), on_disk("bytes"), on_disk("limit")) {
            let (bytes, limit) = (show_size(bytes), show_size(limit));
            results.say(format!("  on disk: {}, {bytes} of {limit}", responses(files)));
        }
    }
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
            None => "not stored: nobody has asked for it lately, or it was evicted".to_owned(),
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
