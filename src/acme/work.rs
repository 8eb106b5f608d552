//! A certificate that is worked on, with everything that its order needs.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::client::AcmeClient;
use super::directory::Directory;
use super::dns::Presented;
use super::fault::StepFault;
use super::hook;
use super::step::KeyChoice;
use super::store::{self, CertificateRecord};
use crate::config::{Acme, Authority, Managed};
use crate::keys::pin::Pin;
use crate::server::Answers;
use crate::upstream::dns::NameServers;

/// A certificate, as the driver and its tasks share it.
pub(super) struct CertificateWork {
    pub(super) certificate: Managed,
    pub(super) record: Rc<RefCell<CertificateRecord>>,
    /// The DNS records of its open order.
    pub(super) presented: Rc<RefCell<Option<Presented>>>,
}

impl CertificateWork {
    pub(super) fn new(certificate: Managed, record: CertificateRecord) -> Self {
        Self { certificate, record: Rc::new(RefCell::new(record)), presented: Rc::default() }
    }

    /// Returns the same work for a certificate with other settings.
    pub(super) fn with(&self, certificate: Managed) -> Self {
        Self { certificate, record: self.record.clone(), presented: self.presented.clone() }
    }

    /// Removes the DNS records of its order, and those that an earlier process has left.
    pub(super) async fn clean(&self) {
        let presented = self.presented.borrow_mut().take();
        let known = self.record.borrow().dns_records.clone();
        match (presented, hook::running()) {
            (Some(presented), _) => presented.clean().await,
            (None, Some(hook)) if !known.is_empty() => Presented::of(hook, known).clean().await,
            (None, _) => return,
        }
        if let Err(fault) = self.forget_dns_records() {
            let (problem, hint) = (fault.reason.line(), fault.reason.hint_line());
            tracing::error!(problem, hint, "ACME: cannot record that DNS records are removed");
        }
    }

    /// Records that its DNS records are removed.
    pub(super) fn forget_dns_records(&self) -> Result<(), StepFault> {
        self.change(|record| record.dns_records.clear())
    }

    /// Returns `true` if an earlier process has left DNS records that can be removed.
    pub(super) fn has_leftovers(&self) -> bool {
        let is_left = self.presented.borrow().is_none() && !self.record.borrow().dns_records.is_empty();
        is_left && hook::running().is_some()
    }

    /// Changes the record, on disk first. Returns what the change returns.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut CertificateRecord) -> T) -> Result<T, StepFault> {
        let mut changed = self.record.borrow().clone();
        let result = change(&mut changed);
        store::save_record(&self.certificate, &changed)
            .map_err(|error| StepFault::here(store::words(&self.certificate.folder.join(store::RECORD), &error)))?;
        *self.record.borrow_mut() = changed;
        Ok(result)
    }

    /// Returns the name of its answers to challenges.
    pub(super) fn name(&self) -> String {
        self.certificate.folder.display().to_string()
    }
}

/// The settings and services that every order uses.
pub(super) struct Surroundings {
    pub(super) settings: Arc<Acme>,
    pub(super) name_servers: NameServers,
    pub(super) answers: Arc<Answers>,
}

impl Surroundings {
    /// Starts a client of an authority, and fetches its directory.
    pub(super) async fn reach(&self, authority: &Authority) -> Result<(AcmeClient, Directory), StepFault> {
        let client = AcmeClient::start(authority, &self.name_servers).map_err(StepFault::operator)?;
        let directory = Directory::fetch(&client, &authority.directory).await?;
        Ok((client, directory))
    }
}

/// The subject of an order.
pub(super) struct OrderSubject {
    pub(super) authority: Authority,
    pub(super) key: KeyChoice,
    pub(super) pin: Pin,
    pub(super) replaces: Option<String>,
    /// `Some` if it replaces a compromised key: the number of open orders of others for the same names.
    pub(super) emergency: Option<usize>,
    /// `true` for the second authority: pintle orders without the profile if that one does not offer it.
    pub(super) is_fallback: bool,
}
