//! The sites from outside: the way that a CA takes to them, as the running pintle has last checked it.

use super::finding::{CheckResults, Finding};
use super::host::{Host, OutsideVerdict, OutsideView};
use crate::reason::pasted::pintle;

/// Checks that a CA reaches the sites whose certificates pintle obtains.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    for view in host.running.iter().flat_map(|running| &running.outside) {
        match view.verdict {
            OutsideVerdict::Fine => {}
            OutsideVerdict::Unknown => {
                let facts = view.facts.join("; ");
                results.needs(format!("a look at {} from outside: {facts}", view.site));
            }
            OutsideVerdict::Broken => results.push(broken(view)),
        }
    }
    // Two certificates of a site fail alike.
    results.findings.dedup();
    results.unknown.dedup();
    results
}

fn broken(view: &OutsideView) -> Finding {
    let what = format!("{}: a CA cannot validate its names, so no certificate is renewed", view.site);
    let finding = Finding::fault("outside.challenge", &view.site, what)
        .evidences(view.facts.iter().cloned())
        .evidence(format!("pintle checked the way at {}", view.at));
    let finding = view.hints.iter().fold(finding, |finding, hint| finding.advice(hint));
    finding.remedy("then see when pintle checks again", [pintle("acme plan")])
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::super::host::RunningProcess;
    use super::*;

    #[test]
    fn views() {
        let view = |verdict| OutsideView {
            site: "a.example".into(),
            at: "2026-11-28T12:00:00Z".into(),
            verdict,
            facts: vec!["a.example: A 192.0.2.1: timeout".into()],
            hints: vec!["open port 80".into()],
        };
        for (verdict, findings, unknown) in
            [(OutsideVerdict::Fine, 0, 0), (OutsideVerdict::Unknown, 0, 1), (OutsideVerdict::Broken, 1, 0)]
        {
            // An RSA and an ECDSA certificate of one site.
            let running = RunningProcess { outside: vec![view(verdict), view(verdict)], ..RunningProcess::default() };
            let results = check(&Host { running: Some(running), ..Host::of_files(tree(&[]).1) });
            assert_eq!((results.findings.len(), results.unknown.len()), (findings, unknown), "{verdict:?}");
            for finding in results.findings {
                assert_eq!((finding.id, finding.subject.as_str()), ("outside.challenge", "a.example"));
                assert_eq!(finding.remedies[0].text, "open port 80");
            }
        }
        assert_eq!(check(&Host::of_files(tree(&[]).1)), CheckResults::default());
    }
}
