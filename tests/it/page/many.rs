//! The pages of a process with ten thousand sites: by the page, searchable, and never longer than 60 KiB.

use std::fmt::Write as _;

use serde_json::Value;

use crate::admin::{Bed, get};
use crate::harness::{Pintle, policies};

/// The longest page, in bytes.
const PAGE_MAX: usize = 60 << 10;
const SITES: usize = 10_000;

/// Sites behind a proxy that ends TLS: certificates would be read ten thousand times.
fn config(bed: &Bed) -> String {
    let upstream = bed.origin.url();
    let mut config = format!("[state]\ndirectory = {:?}\n", bed.socket().parent().unwrap());
    for number in 0..SITES {
        let host = format!("site-with-a-name-{number}.many.example.com");
        let _ =
            write!(config, "[[site]]\nhosts = [{host:?}]\nupstream = {upstream:?}\n[site.hsts]\nmax_age = \"1y\"\n");
    }
    config
}

#[test]
fn pages_stay_short_with_ten_thousand_sites() {
    let bed = Bed::new();
    let listen = "[listen]\nhttps = []\nhttp = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"127.0.0.1\"]\nworkers = 1\n";
    let _pintle = Pintle::start_with(&bed.authority, listen, &config(&bed));
    let socket = bed.socket();
    let host = "site-with-a-name-7777.many.example.com";
    for path in [
        "/",
        "/?page=250",
        "/?q=7777",
        "/?state=fine",
        "/install",
        "/install?page=250",
        "/install?q=7777",
        "/keys",
        "/keys?page=800",
        "/keys?find=7777",
        "/config",
        "/config?find=7777",
        "/explain",
        "/doctor",
        "/logs",
        "/fingerprint",
    ] {
        let page = get(&socket, path);
        assert!(page.contains("<h1") && page.len() < PAGE_MAX, "{path}: {} bytes", page.len());
    }
    for path in ["/site/", "/keys/rotate?site="] {
        let page = get(&socket, &format!("{path}{host}"));
        assert!(page.contains(host) && page.len() < PAGE_MAX, "{path}: {} bytes", page.len());
    }
    for page in ["/?q=7777", "/keys?find=7777", "/install?q=7777"] {
        assert!(get(&socket, page).contains(host), "{page}");
    }
    assert!(get(&socket, "/install?page=250").contains("Page 250 of 250, 10,000 sites"));
    let json = |path: &str| serde_json::from_str::<Value>(&get(&socket, path)).unwrap();
    let last = json("/v1/keys?page=1250");
    let shown = last["sites"].as_array().unwrap();
    assert_eq!((shown.len(), last["pages"].as_u64(), last["found"].as_u64()), (8, Some(1250), Some(10_000)));
    assert_eq!(shown[7]["site"], "site-with-a-name-9999.many.example.com");
    let beyond = json("/v1/keys?page=1251&q=7777");
    assert_eq!((&beyond["page"], &beyond["found"], &beyond["all"]), (&1.into(), &1.into(), &10_000.into()));
}

/// The longest rows: three keys, and names as long as DNS allows.
#[test]
fn keys_with_long_names_fit_into_a_page() {
    let bed = Bed::new();
    let label = "longname".repeat(8);
    let domain = format!("{}.{}.example", &label[..63], &label[..63]);
    let leaf = bed.authority.leaf("many", &[&format!("*.{domain}")]);
    let mut config = format!("[state]\ndirectory = {:?}\n", bed.socket().parent().unwrap());
    let policies = policies(&bed.authority);
    for number in 0..20 {
        let _ = write!(
            config,
            "[[site]]\nhosts = [\"{}{number:02}.{domain}\"]\nupstream = {:?}\n[site.certificate]\nchain = {:?}\nkey = {:?}\n\
             {policies}",
            &label[..61],
            bed.origin.url(),
            leaf.chain,
            leaf.key
        );
    }
    let _pintle = Pintle::start(&bed.authority, &config);
    for path in ["/keys", "/keys?page=2", "/"] {
        let page = get(&bed.socket(), path);
        assert!(page.contains(&domain) && page.len() < PAGE_MAX, "{path}: {} bytes", page.len());
    }
}
