//! The conclusions for people. All texts of servers are plain ASCII already.

use std::fmt::Write as _;

use crate::init::choose::HostChoice;
use crate::init::conclude::{Conclusion, host_word, platform_name};

/// Renders the conclusions.
pub(super) fn render(conclusion: &Conclusion) -> String {
    let Conclusion { verdict, choice, names, .. } = conclusion;
    let mut out = format!("{}\n", conclusion.url);
    let signs: Vec<&str> = verdict.signs.iter().map(|sign| sign.words.as_str()).collect();
    let signs = if signs.is_empty() { String::new() } else { format!(" ({})", signs.join("; ")) };
    let open = |proven: bool| if proven { "" } else { "  (not proven)" };
    let _ = writeln!(out, "  platform     {}{signs}", platform_name(verdict));
    let _ = writeln!(out, "  upstream     {}{}", names.upstream, open(choice.scheme.proven));
    let _ = writeln!(out, "    connect    {}", names.connects_to);
    if let Some(name) = &names.tls_name {
        let _ = writeln!(out, "    SNI        {name}");
        let _ = writeln!(out, "    verify     {name}");
    }
    let host = match choice.host.value {
        HostChoice::Client => "as the client says",
        host @ HostChoice::Upstream => host_word(host),
    };
    let _ = writeln!(out, "    Host       {host}{}", open(choice.host.proven));
    let recognised = match conclusion.forwarded_proto {
        Some(true) => "recognised by the blog",
        Some(false) => "ignored by the blog",
        None => "unknown: the answers do not show it",
    };
    let _ = writeln!(out, "    X-Forwarded-Proto: https  {recognised}");
    let width = conclusion.answers.iter().map(|(asked, _)| asked.len()).max().unwrap_or_default();
    let _ = writeln!(out, "  answers");
    for (asked, answer) in &conclusion.answers {
        let _ = writeln!(out, "    {asked:width$}  {answer}");
    }
    out
}
