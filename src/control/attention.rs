//! Matters that need the operator's attention, for `pintle status`: present problems, each with a remedy if there is one.

use serde_json::{Value, json};

use super::Control;
use super::expiry::{ExpiryStage, left, remedy};
use super::status::{has_failed_in_a_row, is_out, todo};
use crate::acme::outlook::{Outlook, OutlookStep, of_site};
use crate::acme::step::CertificateStanding;
use crate::clock::uptime;
use crate::config::report::{CertificateLack, SiteReport};
use crate::events::HookLine;
use crate::policy::promise::Seconds;
use crate::reason::Reason;
use crate::reason::pasted::pintle;
use crate::telemetry::LogThread;
use crate::upstream::{Circuit, Upstream};

/// The remedy for an upstream that fails.
const MEND_UPSTREAM: &str = "start it, or correct upstream in the configuration; pintle tries again by itself";

/// A present problem.
struct Item {
    /// The site; `None` for the whole process.
    site: Option<String>,
    reason: Reason,
}

impl Control {
    /// All present problems: those of the process, then renewals that are overdue and compromised keys, then the others.
    pub(super) fn attention(&self) -> Vec<Value> {
        self.attention_of(|_| true)
    }

    /// The same, but of the sites at these places in the configuration only.
    pub(super) fn attention_of(&self, is_wanted: impl Fn(usize) -> bool) -> Vec<Value> {
        let (mut items, outlooks, now) = (self.of_process(), self.outlooks(), self.now());
        items.extend(outlooks.iter().flat_map(of_outlook));
        for (_, (site, upstream)) in self.sites().enumerate().filter(|(at, _)| is_wanted(*at)) {
            self.of_site(site, &outlooks, now, &mut items);
            items.extend(upstream.and_then(of_upstream).map(|reason| Item::of(site, reason)));
        }
        let shown = |item: Item| {
            let Item { site, reason } = item;
            json!({ "site": site, "what": reason.line(), "hints": reason.hints, "commands": reason.commands })
        };
        items.into_iter().map(shown).collect()
    }

    fn of_process(&self) -> Vec<Item> {
        let mut reasons = Vec::new();
        if let Some(trouble) = &self.promises.trouble {
            let what = trouble.what();
            reasons.push(Reason::new(format!("{what}, pins are withheld: {}", trouble.error)).hint(trouble.hint()));
        }
        if self.loads.is_refused {
            let why = self.reporter.refusal.first().map(|why| format!(": {why}")).unwrap_or_default();
            let what = format!("the last reload was refused, and the configuration before it is in use{why}");
            reasons.push(Reason::new(what).command(pintle("check")));
        }
        reasons.extend(self.operator.access_log.as_ref().and_then(LogThread::trouble));
        if self.upgrades.launcher.is_none() && !self.upgrades.is_demo && self.upgrades.tie.is_none() {
            reasons.push(Reason::new("the launcher has ended: no upgrade is possible").hint("restart pintle"));
        }
        reasons.extend(self.recorder.trouble().map(|fault| {
            let reason = Reason::new(format!("the history lacks a version of the configuration: {}", fault.line()));
            reason.remedies_of(fault)
        }));
        reasons.extend(self.faults_of_pages());
        reasons.extend(self.reporter.hooks.lines().iter().filter_map(|line| of_hook(line)));
        reasons.into_iter().map(|reason| Item { site: None, reason }).collect()
    }

    fn of_site(&self, site: &SiteReport, outlooks: &[Outlook], now: Seconds, items: &mut Vec<Item>) {
        let outlooks = of_site(outlooks, site.name());
        let waits = outlooks.iter().any(|o| o.standing == CertificateStanding::Missing && fails(o));
        let mut add = |reason: Reason| items.push(Item::of(site, reason));
        match site.lacks_certificate {
            // The outlook says more.
            Some(CertificateLack::NotYet) if waits => {}
            Some(CertificateLack::NotYet) => add(Reason::new("no certificate yet: pintle waits for the CA")),
            Some(CertificateLack::Broken) => add(Reason::new("no certificate: TLS is refused, plain HTTP gets 503")),
            None if !site.missing.is_empty() => {
                add(Reason::new("one of its certificates is missing; the others are served"));
            }
            None => {}
        }
        uncovered(site, !outlooks.is_empty()).into_iter().for_each(&mut add);
        for reason in self.files.refused.get(site.name()).into_iter().flat_map(|refused| &refused.reasons) {
            add(Reason {
                what: format!("certificate refused: {}", reason.line()),
                place: None,
                notes: Vec::new(),
                ..reason.clone()
            });
        }
        for certificate in &site.certificates {
            let hint = remedy(site.name(), certificate);
            match ExpiryStage::of(certificate, now) {
                ExpiryStage::ENDED => {
                    add(Reason::new(format!("the certificate {} has expired: clients refuse it", certificate.file()))
                        .hint(hint));
                }
                stage if stage > ExpiryStage::default() => {
                    let left = left(certificate, now);
                    add(Reason::new(format!("the certificate {} is about to expire: {left}", certificate.file()))
                        .hint(hint));
                }
                _ => {}
            }
        }
        if let Some(withheld) = site.withheld.filter(|_| site.missing.is_empty()) {
            add(Reason::new(format!("pins are withheld: {}", withheld.why())));
        }
        for task in todo(site) {
            add(Reason::new(task));
        }
    }

    /// Checks that each name has its certificate, that no renewal is overdue, and that pintle's own keys are readable.
    pub(super) fn strictly_ready(&self) -> Result<(), String> {
        let without: Vec<&str> = self.config.without_certificate().map(|(site, _)| site.name()).collect();
        let outlooks = self.outlooks();
        let of = |is_so: &dyn Fn(&Outlook) -> bool| {
            let mut sites: Vec<&str> = outlooks.iter().filter(|o| is_so(o)).map(|o| o.site.as_str()).collect();
            sites.dedup();
            sites
        };
        let overdue = of(&Outlook::is_overdue);
        let unusable = of(&|outlook| outlook.key_fault.is_some());
        let refused: Vec<&str> = self.config.sites().flat_map(|site| &site.refused_names).map(String::as_str).collect();
        let mut reasons = Vec::new();
        if self.config.sites().len() == 0 {
            reasons.push("no site is configured".to_owned());
        }
        let all = [
            ("without a certificate", without),
            ("not covered by the certificate", refused),
            ("renewal overdue", overdue),
            ("unusable key file", unusable),
        ];
        for (what, sites) in all {
            if !sites.is_empty() {
                reasons.push(format!("{what}: {}", sites.join(", ")));
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }
}

/// `true` if a certificate has a problem that is not solved.
fn fails(outlook: &Outlook) -> bool {
    outlook.failing_since.is_some() || outlook.problem.is_some()
}

/// The problems of a certificate that pintle obtains.
fn of_outlook(outlook: &Outlook) -> Vec<Item> {
    let mut reasons = Vec::new();
    let of = |words: String| format!("{}: {words}", outlook.algorithm);
    if outlook.is_overdue() || (outlook.standing == CertificateStanding::Missing && fails(outlook)) {
        reasons.push(Reason::new(of(outlook.words())).hints(outlook.hint.clone()));
    }
    if let Some(fault) = &outlook.key_fault {
        reasons.push(Reason::new(of(fault.line())).remedies_of(fault));
    }
    if let Some((pin, step)) = outlook.compromised {
        let doing = match step {
            OutlookStep::Ordering => "pintle orders a certificate for another key",
            OutlookStep::Revoking => "another key serves, and its certificates are not revoked yet",
            OutlookStep::Burning => "another key serves, and it is not recorded as burnt yet",
        };
        let plan = pintle(format_args!("acme plan --site {}", outlook.site));
        reasons.push(Reason::new(of(format!("the key {pin} is compromised: {doing}"))).command(plan));
    }
    if let Some(unrevoked) = &outlook.unrevoked {
        let why = unrevoked.problem.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let what = format!(
            "the CA has not revoked the certificates {} of the compromised key {}{why}",
            unrevoked.serials.join(", "),
            unrevoked.pin
        );
        let [key, chain] = unrevoked.files.each_ref().map(|file| file.display());
        let hint = format!("revoke them by hand at {}, with {key} and {chain}", unrevoked.from);
        reasons.push(Reason::new(of(what)).hint(hint));
    }
    reasons.into_iter().map(|reason| Item { site: Some(outlook.site.clone()), reason }).collect()
}

impl Item {
    fn of(site: &SiteReport, reason: Reason) -> Self {
        Self { site: Some(site.name().to_owned()), reason }
    }
}

/// The last failure of a hook.
fn of_hook(line: &HookLine) -> Option<Reason> {
    let (name, problem) = (&line.hook.name, line.problem()?);
    let waiting = crate::reason::counted(line.numbers().waiting, "event");
    Some(match line.is_disabled() {
        true => Reason::new(format!("the hook {name} is disabled: {problem}"))
            .hint(format!("remove the hook, or `{}` to try it again", pintle("reload"))),
        false => Reason::new(format!("the hook {name} fails, and {waiting} wait: {problem}"))
            .command(pintle(format_args!("hook test {name}"))),
    })
}

fn of_upstream(upstream: &Upstream) -> Option<Reason> {
    let now = uptime();
    if upstream.health.circuit(now) != Circuit::Closed {
        return Some(Reason::new("its upstream fails: requests get 503").hint(MEND_UPSTREAM));
    }
    if has_failed_in_a_row(upstream) {
        let requests = crate::reason::counted(upstream.health.failures(), "request");
        return Some(Reason::new(format!("its upstream has failed {requests} in a row")).hint(MEND_UPSTREAM));
    }
    let known = upstream.addresses.known();
    let out = known.iter().filter(|address| is_out(upstream, **address, now)).count();
    (out > 0).then(|| Reason::new(format!("{out} of {} upstream addresses are left out, as they fail", known.len())))
}

/// The names that no certificate of the site covers.
fn uncovered(site: &SiteReport, is_managed: bool) -> Option<Reason> {
    // The refusal of its pair tells why other names are refused.
    let uncovered = site.refused_names.iter().filter(|name| !site.names_apart.contains(name));
    let uncovered: Vec<&str> = uncovered.map(String::as_str).collect();
    if uncovered.is_empty() {
        return None;
    }
    let names = uncovered.join(", ");
    let reason =
        Reason::new(format!("the certificate does not cover {names} yet: TLS is refused, plain HTTP gets 503"));
    Some(match is_managed {
        true => reason.command(pintle(format_args!("acme plan --site {}", site.name()))),
        false => {
            let install = pintle(format_args!("install --site {}", site.name()));
            reason.hint(format!("get one for all hosts, then `{install}`"))
        }
    })
}
