//! Renewals that the operator asks for.

use std::rc::Rc;

use super::DriverThread;
use crate::acme::plan;
use crate::acme::request::{Renew, Renewing, WantedRenewal};
use crate::acme::step::NextStep;
use crate::acme::words::{OTHER_LIMITS, stop_text, time};
use crate::acme::work::CertificateWork;
use crate::ledger::time::wall;
use crate::reason::Reason;

impl DriverThread {
    /// Has the certificates of a site renewed, or their keys changed over. Says when pintle orders.
    pub(super) fn renew(&mut self, asked: &Renew) -> Renewing {
        let of_site = self.certificates.values().filter(|work| work.certificate.site == asked.site);
        let works: Vec<Rc<CertificateWork>> = of_site.cloned().collect();
        if works.is_empty() {
            return Renewing::refused(
                Reason::new("pintle cannot read the record of the certificate").hint("the log names the file"),
            );
        }
        let mut renewing = Renewing { ok: true, ..Renewing::default() };
        for work in works {
            let changed = work.change(|record| {
                record.asked.renew |= !asked.rotate;
                record.asked.rotate |= asked.rotate;
                record.asked.despite_preflight |= asked.despite_preflight;
                record.release();
            });
            if let Err(fault) = changed {
                let (problem, hint) = (fault.reason.line(), fault.reason.hint_line());
                tracing::error!(problem, hint, "ACME: cannot record the request for a renewal");
                return Renewing::refused(fault.reason.hint("then ask again"));
            }
            let algorithm = work.certificate.algorithm.to_string();
            renewing.algorithms.push(algorithm.clone());
            renewing.certificates.push(self.renewal(&work, algorithm));
        }
        renewing
    }

    /// The time of the next order, and why it is not now.
    fn renewal(&mut self, work: &CertificateWork, algorithm: String) -> WantedRenewal {
        let mut renewal = WantedRenewal { algorithm, ..WantedRenewal::default() };
        let Some(settings) = self.settings.clone() else { return renewal };
        let now = wall();
        let plan = plan::next(&self.facts(work, &settings, now), now);
        if let NextStep::OperatorsTurn { stop, until } = &plan.next {
            (renewal.from, renewal.why) = (Some(time(*until)), Some(stop_text(stop)));
        } else if let Some(hold) = &plan.hold {
            (renewal.from, renewal.why) = (Some(time(hold.until)), Some(hold.cause.to_string()));
            renewal.hint = hold.cause.is_limit().then(|| OTHER_LIMITS.to_owned());
        }
        renewal
    }
}
