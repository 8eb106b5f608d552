//! The end of a compromised key that serves no more: pintle records it as burnt, and its CA revokes its certificates.

use instant_acme::{RevocationReason, RevocationRequest};
use rustls::pki_types::CertificateDer;

use super::fault::{StepFault, signed};
use super::issued::{self, Issued, RetiredKey};
use super::problem::{ALREADY_REVOKED, AcmeRemedy};
use super::request::DriverRequest;
use super::task::{Task, random};
use super::words::time;
use super::{account, store};
use crate::keys::pin::Pin;
use crate::ledger::time::wall;
use crate::reason::Reason;

impl Task {
    /// Revokes the certificates of the compromised key, one after the other. A failure is tried again later, and keeps no
    /// other CA from its part.
    pub(super) async fn revoke(&self) -> Result<(), StepFault> {
        let Some(compromise) = &self.facts.compromise else { return Ok(()) };
        match self.revoke_all(compromise.pin).await {
            Ok(()) => self.work.change(|record| {
                if let Some(compromise) = &mut record.compromise {
                    compromise.is_revoked = true;
                }
            }),
            Err(fault) => self.not_revoked(&fault),
        }
    }

    async fn revoke_all(&self, pin: Pin) -> Result<(), StepFault> {
        self.leave(pin).await?;
        // From here on, nobody may serve or promise the key, however long the CA takes.
        self.record_as_burnt(pin).await?;
        let open = issued::open(&self.work.record.borrow().issued, pin, wall());
        let mut failed: Vec<(String, StepFault)> = Vec::new();
        for issued in open {
            if failed.iter().any(|(from, _)| *from == issued.from) {
                continue;
            }
            if let Err(fault) = self.revoke_one(&issued).await {
                failed.push((issued.from, fault));
                continue;
            }
            self.work.change(|record| {
                let is_it = |known: &&mut Issued| known.serial == issued.serial && known.from == issued.from;
                record.issued.iter_mut().filter(is_it).for_each(|known| known.is_revoked = true);
            })?;
            tracing::info!(
                site = self.facts.site,
                algorithm = self.facts.algorithm,
                serial = issued.serial,
                pin = %issued.pin,
                authority = issued.from,
                "certificate revoked"
            );
            let (site, algorithm) = (self.facts.site.clone(), self.facts.algorithm.clone());
            self.ask(|reply| DriverRequest::Revoked { site, algorithm, issued: Box::new(issued), reply }).await?;
        }
        // One that another try may cure comes first: pintle tries again.
        let is_final = |fault: &StepFault| fault.remedy == AcmeRemedy::Operator;
        match failed.into_iter().map(|(_, fault)| fault).min_by_key(is_final) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// Makes sure that the running process does not serve the key any more.
    async fn leave(&self, pin: Pin) -> Result<(), StepFault> {
        if !self.serves(pin).await? {
            return Ok(());
        }
        // A start may have kept the old pair.
        if let Some(chain) = store::chain(&self.work.certificate) {
            let problems = self.take_files(&chain).await?;
            if !problems.is_empty() {
                return Err(StepFault::here(Reason::of_all(&problems).within(&"the compromised key still serves")));
            }
        }
        match self.serves(pin).await? {
            true => Err(StepFault::here("the compromised key still serves")),
            false => Ok(()),
        }
    }

    async fn serves(&self, pin: Pin) -> Result<bool, StepFault> {
        self.ask(|reply| DriverRequest::Serves { site: self.facts.site.clone(), pin, reply }).await
    }

    /// Revokes one certificate. A certificate that is revoked already counts as revoked.
    async fn revoke_one(&self, issued: &Issued) -> Result<(), StepFault> {
        let settings = &self.around.settings;
        let known = settings.authorities.iter().zip(&self.budgets);
        let mut known = known.filter(|(authority, _)| authority.directory == issued.from);
        let Some((authority, budget)) = known.next() else {
            let text = format!("{}: this CA is no longer in [acme], so pintle has no account there", issued.from);
            return Err(StepFault::operator(text));
        };
        let der = issued.der().ok_or_else(|| StepFault::operator("the record of the certificate is damaged"))?;
        let (client, directory) = self.around.reach(authority).await?;
        let email = settings.email.as_deref();
        let account = account::open(&settings.folder, authority, email, &client, budget, &directory).await?;
        let certificate = CertificateDer::from(der);
        let request = RevocationRequest { certificate: &certificate, reason: Some(RevocationReason::KeyCompromise) };
        match signed!(account.revoke(&request), &client) {
            Err(fault) if fault.kind != ALREADY_REVOKED => {
                if fault.remedy == AcmeRemedy::Register {
                    account::forget(&settings.folder, &authority.directory)?;
                }
                Err(fault)
            }
            _ => Ok(()),
        }
    }

    fn not_revoked(&self, fault: &StepFault) -> Result<(), StepFault> {
        let (now, random) = (wall(), random());
        let retry = self.work.change(|record| match &mut record.compromise {
            Some(compromise) => {
                compromise.attempts.failed(fault.failure(None), now, None, random);
                Some(compromise.attempts.retry()).filter(|_| !compromise.attempts.stopped)
            }
            None => None,
        })?;
        let again = retry.map_or_else(|| "not by pintle".to_owned(), |at| time(at.max(now)));
        tracing::error!(
            site = self.facts.site,
            algorithm = self.facts.algorithm,
            problem = fault.reason.line(),
            hint = fault.reason.hint_line(),
            again,
            "the certificates of the compromised key are not revoked"
        );
        Ok(())
    }

    async fn record_as_burnt(&self, pin: Pin) -> Result<(), StepFault> {
        let written = self.ask(|reply| DriverRequest::Burn { site: self.facts.site.clone(), pin, reply }).await?;
        written.map_err(|error| StepFault::here(error.within(&"the ledger cannot be written")))
    }

    /// Records the key as burnt, and forgets the compromise. Key and chain stay on disk if a certificate is not revoked:
    /// the operator needs them.
    pub(super) async fn burn(&self) -> Result<(), StepFault> {
        let Some(compromise) = self.facts.compromise.clone() else { return Ok(()) };
        let pin = compromise.pin;
        self.record_as_burnt(pin).await?;
        let now = wall();
        let open = issued::open(&self.work.record.borrow().issued, pin, now);
        if !open.is_empty() {
            let certificate = &self.work.certificate;
            let kept = store::keep_unrevoked(certificate, &open);
            kept.map_err(|error| StepFault::here(store::words(&certificate.folder, &error)))?;
        }
        let is_done = self.work.change(|record| {
            let certificates: Vec<Issued> = record.issued.iter().filter(|issued| issued.pin == pin).cloned().collect();
            record.issued.retain(|issued| issued.pin != pin);
            let is_done = !certificates.iter().any(|issued| issued.is_open(now));
            let last = compromise.attempts.last.map(|last| last.reason().full_line()).filter(|_| !is_done);
            record.retired = Some(RetiredKey { pin, at: now, certificates, problem: last });
            record.compromise = None;
            is_done
        })?;
        if is_done {
            store::forget_compromised(&self.work.certificate);
        }
        tracing::info!(site = self.facts.site, algorithm = self.facts.algorithm, %pin, "key burnt: it never serves again");
        Ok(())
    }
}
