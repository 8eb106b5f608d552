//! The conclusions as JSON: of `pintle init --json`, and of the API.

use std::path::Path;

use serde_json::{Value, json};

use super::conclude::{Conclusion, host_word};
use super::platform::Platform;

/// Returns all conclusions, and the text of the file.
#[must_use]
pub fn report(conclusion: &Conclusion, written: Option<&Path>, text: &str) -> Value {
    let Conclusion { verdict, choice, names, .. } = conclusion;
    let host = choice.host.value;
    json!({
        "url": conclusion.url.to_string(),
        "platform": verdict.platform.map_or("unknown", Platform::id),
        "signs": verdict.signs.iter().map(|sign| &sign.words).collect::<Vec<_>>(),
        "hosts": conclusion.hosts,
        "upstream": names.upstream,
        "upstream_proven": choice.scheme.proven,
        "connect": names.connects_to,
        "server_name": names.tls_name,
        "verify_name": names.tls_name,
        "host_header": host_word(host),
        "host_header_proven": choice.host.proven,
        "forwarded_proto": conclusion.forwarded_proto,
        "hsts": conclusion.hsts.map(|hsts| json!({
            "max_age": hsts.max_age, "include_subdomains": hsts.include_subdomains,
        })),
        "cookies": conclusion.cookies.iter().map(|cookie| json!({
            "name": cookie.name, "domain": cookie.domain, "rewritten": cookie.is_rewritten,
        })).collect::<Vec<_>>(),
        "links_to_upstream": conclusion.own_links,
        "mixed_content": conclusion.page.as_ref().map(|page| json!({
            "count": page.count, "upgraded": page.upgraded,
        })),
        "answers": conclusion.answers.iter().map(|(asked, answer)| json!({
            "asked": asked, "answer": answer,
        })).collect::<Vec<_>>(),
        "requests": conclusion.requests,
        "notes": conclusion.notes.iter().map(|note| json!({
            "warning": note.is_warning, "text": note.text, "code": note.code,
        })).collect::<Vec<_>>(),
        "file": written.map(|path| path.display().to_string()),
        "config": text,
    })
}
