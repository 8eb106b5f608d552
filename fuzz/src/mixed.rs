//! Bodies that are rewritten, and reports about them.

use std::sync::Arc;

use pintle::host::HostPattern;
use pintle::mixed::media::RewriteKind;
use pintle::mixed::{HttpsNames, OwnNames, Rewriter, report};

const KINDS: [RewriteKind; 5] =
    [RewriteKind::Html, RewriteKind::Xhtml, RewriteKind::Css, RewriteKind::Feed, RewriteKind::Json];

fn rewritten<'p>(kind: RewriteKind, pieces: impl Iterator<Item = &'p [u8]>) -> (Vec<u8>, u64) {
    let host = |name: &str| HostPattern::parse(name).expect("a valid name");
    let names = HttpsNames {
        site: vec![host("a.example")],
        listed: vec![host("*.b.example")],
        upstream: vec![("c.example".into(), 8080)],
    };
    let names = OwnNames::new(Arc::new(names), "a.example", None);
    let (mut rewriter, mut out) = (Rewriter::new(kind, names, false), Vec::new());
    pieces.for_each(|piece| rewriter.push(piece, &mut out));
    rewriter.finish(&mut out);
    (out, rewriter.references())
}

/// A body: its pieces make no difference, a second pass changes nothing, and nothing changes without a reference. The
/// first bytes choose the kind and the size of the pieces.
pub fn mixed_content(data: &[u8]) {
    let [kind, size, body @ ..] = data else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let (whole, references) = rewritten(kind, std::iter::once(body));
    let (in_pieces, _) = rewritten(kind, body.chunks(usize::from(*size).max(1)));
    assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&in_pieces));
    if references == 0 {
        assert_eq!(whole, body);
    }
    let (again, _) = rewritten(kind, std::iter::once(&*whole));
    assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&whole));
}

/// A report: what is kept of it is short, printable, and has no query.
pub fn mixed_report(data: &[u8]) {
    for violation in report::read(data).into_iter().flatten() {
        for url in [&violation.page, &violation.blocked] {
            assert!(url.len() <= 512 && url.bytes().all(|b| b.is_ascii_graphic() && b != b'?'), "{url}");
            let _ = report::host_of(url);
        }
        assert!(violation.page[..8].eq_ignore_ascii_case("https://"), "{}", violation.page);
    }
}
