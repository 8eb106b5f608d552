//! Fields of responses with references: Link, X-Pingback, Access-Control-Allow-Origin and others. In them, the
//! upstream's name becomes the site's by https, too, as it does in Location.

use super::attribute::{refresh, rewrite_url};
use super::names::OwnNames;
use super::probe::UrlUse;
use crate::message::Fields;

/// Fields whose value is one URL. Of Location, Content-Location and Refresh, only listed hosts are left here.
const URLS: [&[u8]; 5] = [b"x-pingback", b"sourcemap", b"x-sourcemap", b"location", b"content-location"];

/// Rewrites the fields of a response. `origin` is the Origin field of the request: an answer that names it stays.
pub fn rewrite(fields: &mut Fields, origin: Option<&[u8]>, names: &OwnNames) {
    for at in 0..fields.len() {
        let field = fields.list()[at];
        let (name, value) = (fields.name(&field).to_ascii_lowercase(), fields.value(&field));
        let new = match &*name {
            b"link" => link(value, names),
            b"refresh" => refresh(value).and_then(|url| {
                let new = rewrite_url(&value[url.clone()], names, UrlUse::Canonical)?;
                Some([&value[..url.start], &new, &value[url.end..]].concat())
            }),
            b"access-control-allow-origin" if origin != Some(value) => rewrite_url(value, names, UrlUse::Canonical),
            name if URLS.contains(&name) => rewrite_url(value, names, UrlUse::Canonical),
            _ => None,
        };
        if let Some(new) = new {
            fields.replace(at, &new);
        }
    }
}

/// Rewrites the targets of a Link field (RFC 8288 section 3); `None` if it stays. Quoted parameters may contain angle
/// brackets.
#[must_use]
pub fn link(value: &[u8], names: &OwnNames) -> Option<Vec<u8>> {
    let (mut new, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(byte) = value.get(at) {
        let end = |mark: u8| value[at + 1..].iter().position(|b| *b == mark).map(|n| at + 1 + n);
        match byte {
            b'<' => {
                let end = end(b'>')?;
                if let Some(target) = rewrite_url(&value[at + 1..end], names, UrlUse::Canonical) {
                    new.extend_from_slice(&value[copied..=at]);
                    new.extend_from_slice(&target);
                    copied = end;
                }
                at = end;
            }
            b'"' => at = end(b'"').unwrap_or(value.len()),
            _ => {}
        }
        at += 1;
    }
    (copied > 0).then(|| [&new, &value[copied..]].concat())
}

#[cfg(test)]
mod tests {
    use super::super::names::tests::blog;
    use super::*;

    #[test]
    fn table() {
        let check = |name: &str, value: &str, want: &str| {
            let mut fields = Fields::default();
            fields.push(name.as_bytes(), value.as_bytes());
            rewrite(&mut fields, Some(b"http://blog.wordpress.example"), &blog());
            let found = String::from_utf8(fields.value(&fields.list()[0]).to_vec()).unwrap();
            assert_eq!(found, want, "{name}: {value}");
        };
        check(
            "Link",
            "<http://blog.example/wp-json/>; rel=\"https://api.w.org/\", <https://blog.wordpress.example/?p=7>; rel=shortlink, <http://evil.example/>",
            "<https://blog.example/wp-json/>; rel=\"https://api.w.org/\", <https://blog.example/?p=7>; rel=shortlink, <http://evil.example/>",
        );
        check("Link", "</a>; title=\"<http://blog.example/>\"", "</a>; title=\"<http://blog.example/>\"");
        check("Link", "<http://blog.example/", "<http://blog.example/");
        check("X-Pingback", "http://blog.example/xmlrpc.php", "https://blog.example/xmlrpc.php");
        check("X-Pingback", "https://blog.wordpress.example/xmlrpc.php", "https://blog.example/xmlrpc.php");
        check("Access-Control-Allow-Origin", "http://blog.example", "https://blog.example");
        check("Access-Control-Allow-Origin", "*", "*");
        check("Access-Control-Allow-Origin", "http://blog.wordpress.example", "http://blog.wordpress.example");
        check("SourceMap", "http://blog.example/a.map", "https://blog.example/a.map");
        check("Location", "http://cdn.example/a", "https://cdn.example/a");
        check("Refresh", "5; url=\"http://cdn.example/a\"", "5; url=\"https://cdn.example/a\"");
        check("X-Other", "http://blog.example/", "http://blog.example/");
    }
}
