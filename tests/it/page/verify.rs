//! The button that verifies: a process connects to itself, and finds what the command finds.

use std::process::Command;

use serde_json::Value;

use super::config::send;
use crate::admin::Bed;
use crate::harness::{BLOG, Pintle, outcome, output, policies};

/// The answer to a verification, and its status.
fn verify(bed: &Bed, host: &str, roots: Option<&std::path::Path>) -> (String, Value) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-X", "POST", "-w", "\n%{http_code}", "--unix-socket"]).arg(bed.socket());
    if let Some(roots) = roots {
        curl.arg("--data-binary").arg(format!("@{}", roots.display()));
    }
    let out = output(curl.arg(format!("http://localhost/v1/verify?host={host}")));
    let (body, status) = out.rsplit_once('\n').unwrap();
    (status.to_owned(), serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// Checks and levels.
fn findings(report: &Value) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    report["findings"].as_array().unwrap().iter().map(|f| (word(&f["check"]), word(&f["level"]))).collect()
}

#[test]
fn a_process_verifies_its_own_site() {
    let bed = Bed::new();
    // A sandbox that lists its ports: those of this process are among them.
    let sandbox = format!("[sandbox]\nwrite = [{:?}]\n", std::env::temp_dir());
    let pintle = Pintle::start(&bed.authority, &(bed.config(&sandbox) + &policies(&bed.authority)));
    let roots = bed.authority.ca_path();
    let (status, seen) = verify(&bed, BLOG, Some(&roots));
    assert_eq!((status.as_str(), seen["site"].as_str()), ("200", Some(BLOG)), "{seen}");
    let mut command = crate::harness::pintle();
    command.args(["verify", "--json", "--ca"]).arg(&roots).args(["--connect", &pintle.https().to_string()]);
    command.args(["--connect-http", &pintle.http().to_string()]);
    let (_, out, _) = outcome(command.arg(seen["url"].as_str().unwrap()));
    let printed: Value = serde_json::from_str(&out).unwrap();
    assert!(findings(&seen).len() > 8, "{seen}");
    assert_eq!(findings(&seen), findings(&printed));
    assert_eq!(seen["noted"], printed["noted"], "the same policies");
    // Browsers do not know the authority of the test.
    let (_, strange) = verify(&bed, BLOG, None);
    assert!(strange["ok"] == false && strange["chain_trusted"] == false, "{strange}");
    for (host, roots, status) in
        [("nobody.example", None, "404"), (BLOG, Some(bed.authority.write("no.pem", "x")), "400")]
    {
        let (got, refused) = verify(&bed, host, roots.as_deref());
        assert!(got == status && refused["error"].is_string(), "{host}: {got} {refused}");
    }

    let (head, page) = send(&bed, &format!("/site/{BLOG}/verify"), &[("host", BLOG)]);
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for part in ["role=\"status\"", "<caption><b>TLS</b></caption>", "<code>tls-1.3</code>", "fault"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let (_, page) = send(&bed, &format!("/site/{BLOG}/verify"), &[("host", "nobody.example")]);
    assert!(
        page.contains("Nothing was verified") && page.contains(&format!("<h1 class=\"name\">{BLOG}</h1>")),
        "{page}"
    );
}
