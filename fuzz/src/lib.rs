//! The fuzz targets: one function per parser of bytes that others send. `fuzz_targets/` gives each to libFuzzer, and
//! `tests/it/fuzz.rs` runs each over its seeds and their mutations.

mod cache;
mod certificate;
mod compression;
pub mod http2;
mod ledger;
pub mod messages;
mod mixed;
mod tls;
mod verify;

use std::path::Path;

pub use cache::{cache, cache_file};
pub use certificate::certificate;
pub use compression::compression;
pub use http2::http2_request;
pub use ledger::ledger;
pub use messages::{chunked_body, forwarded, request_head, response_head, rewrite};
pub use mixed::{mixed_content, mixed_report};
pub use tls::{tls_from_client, tls_from_upstream};
pub use verify::{page, policy_field, server_hello};

/// Anything, as long as it does not panic.
pub type Target = fn(&[u8]);

/// Every target, by the name of its file and of its folder of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("request_head", request_head),
    ("http2_request", http2_request),
    ("response_head", response_head),
    ("rewrite", rewrite),
    ("chunked_body", chunked_body),
    ("forwarded", forwarded),
    ("proxy_header", proxy_header),
    ("host", host),
    ("config", config),
    ("key_file", key_file),
    ("certificate", certificate),
    ("ledger", ledger),
    ("tls_from_client", tls_from_client),
    ("tls_from_upstream", tls_from_upstream),
    ("policy_field", policy_field),
    ("server_hello", server_hello),
    ("page", page),
    ("cache", cache),
    ("cache_file", cache_file),
    ("compression", compression),
    ("mixed_content", mixed_content),
    ("mixed_report", mixed_report),
];

/// A PROXY header: what is accepted is accepted at the same length whatever follows, and never before it is whole.
pub fn proxy_header(data: &[u8]) {
    use pintle::server::fuzzing::parse_proxy_header;
    let Ok(Some((len, header))) = parse_proxy_header(data) else { return };
    assert!(len <= data.len());
    assert_eq!(parse_proxy_header(&data[..len]), Ok(Some((len, header))));
    assert_eq!(parse_proxy_header(&data[..len - 1]), Ok(None));
}

/// An authority: what is accepted has one form, and looks up without further ado.
pub fn host(data: &[u8]) {
    let mut raw = data.to_vec();
    let Ok(authority) = pintle::host::split_authority(&mut raw) else { return };
    let host = std::str::from_utf8(&raw[..authority.host_len]).expect("an accepted host is ASCII");
    assert!(
        host.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase() && !b"/@?#\\%".contains(&b)),
        "{host}"
    );
}

/// A configuration: every problem has a place in the text, and can be shown.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Files that a mutated text names are not to be read, nor waited for.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    let folder = Path::new("/nonexistent");
    let draft = pintle::config::Draft::new(Path::new("pintle.toml"), folder, text.to_owned());
    let book = pintle::ledger::Book::default();
    let (config, problems) = draft.build(&pintle::config::CheckContext::new(&book, 1_790_000_000));
    assert_eq!(config.is_none(), problems.has_errors());
    let _ = problems.to_string();
}

/// A key, certificate or CSR, and the same as a chain.
pub fn key_file(data: &[u8]) {
    let _ = pintle::keys::key_file::public_key(data);
    if let Ok(chain) = pintle::tls::certificate::Chain::from_pem(data) {
        let _ = chain.leaf.names();
        let _ = chain.leaf.covers("blog.example.com");
        let _ = pintle::tls::Certificate::new(chain, data);
    }
}
