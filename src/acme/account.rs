//! The account at an authority. Without an external account binding, its key is on disk before the authority knows it.

use std::cell::RefCell;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, Key, NewAccount};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Mutex;

use super::budget::OrderBudget;
use super::client::AcmeClient;
use super::directory::Directory;
use super::fault::{StepFault, signed};
use super::problem::AcmeRemedy;
use super::store;
use crate::config::Authority;
use crate::keys::key_file;
use crate::keys::pin::Pin;
use crate::ledger::time::wall;
use crate::os::words::words;
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_path};

/// One task at a time opens an account: the first orders of several sites share one, and an external account binding may
/// serve only once.
static OPENING: Mutex<()> = Mutex::const_new(());

/// The file of an account.
#[derive(Clone, Serialize, Deserialize)]
pub struct Stored {
    /// The directory of the authority.
    pub directory: String,
    /// The URL of the account; `None` until the authority has answered.
    pub url: Option<String>,
    /// The address that the authority knows.
    pub email: Option<String>,
    /// The key of the external account binding.
    pub eab: Option<String>,
    /// The names of the authority in DNS records (`meta.caaIdentities`).
    #[serde(default)]
    pub identities: Vec<String>,
    /// The key, in PKCS#8 and base64url.
    key: String,
}

impl Stored {
    /// Reads the account at an authority; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// If its file exists and cannot be read: its key must not be replaced. A damaged file is set aside, and counts
    /// as absent: pintle registers another account, so that renewals continue.
    pub fn read(folder: &Path, directory: &str) -> Result<Option<Self>, StepFault> {
        let path = store::file_of(folder, "account", directory);
        let stored: Option<Self> = store::load(&path).map_err(|error| {
            let old = path.with_extension("old");
            let (from, to) = (shell_path(&path), shell_path(&old));
            let what = format!("the account at the CA: {}: {}", path.display(), words(&error));
            let new_account = format!("for a new account: mv {from} {to}");
            StepFault::here(Reason::new(what).hint("let pintle read it").hint(new_account))
        })?;
        let Some(stored) = stored else { return Ok(None) };
        if stored.pin().is_some() {
            return Ok(Some(stored));
        }
        store::set_aside(&path, &"the key in it cannot be read");
        Ok(None)
    }

    fn write(&self, folder: &Path) -> Result<(), StepFault> {
        let path = store::file_of(folder, "account", &self.directory);
        store::save(&path, self).map_err(|error| StepFault::here(store::words(&path, &error)))
    }

    fn key(&self) -> Result<PrivatePkcs8KeyDer<'static>, StepFault> {
        let der = BASE64_URL_SAFE_NO_PAD.decode(&self.key);
        der.map(PrivatePkcs8KeyDer::from).map_err(|_| StepFault::here("the account's key is damaged"))
    }

    /// Returns the pin of the account's key.
    #[must_use]
    pub fn pin(&self) -> Option<Pin> {
        key_file::public_key(self.key().ok()?.secret_pkcs8_der()).ok().map(|key| key.pin)
    }
}

/// Forgets the URL of an account that the authority does not know. Its key stays.
///
/// # Errors
///
/// If the file cannot be written.
pub fn forget(folder: &Path, directory: &str) -> Result<(), StepFault> {
    match Stored::read(folder, directory)? {
        Some(stored) => Stored { url: None, email: None, ..stored }.write(folder),
        None => Ok(()),
    }
}

/// Notes the names of the authority in DNS records, if it has an account.
///
/// # Errors
///
/// If the file cannot be read or written.
pub fn note_identities(folder: &Path, directory: &str, identities: &[String]) -> Result<(), StepFault> {
    match Stored::read(folder, directory)? {
        Some(stored) if stored.identities != identities => {
            Stored { identities: identities.to_vec(), ..stored }.write(folder)
        }
        _ => Ok(()),
    }
}

/// Counts a new account, on disk before it is made.
fn count(folder: &Path, directory: &str, budget: &RefCell<OrderBudget>) -> Result<(), StepFault> {
    let now = wall();
    if let Some(from) = budget.borrow().account_from(now) {
        let text = "pintle has made several accounts there already, and waits before it makes another".to_owned();
        let retry_after = Some(from.saturating_sub(now));
        return Err(StepFault { remedy: AcmeRemedy::RateLimit, retry_after, ..StepFault::here(text) });
    }
    store::count(folder, directory, budget, |budget| budget.take_account(now))
}

/// Opens the account, and registers it if it is new.
///
/// # Errors
///
/// The reason why there is none.
pub async fn open(
    folder: &Path,
    authority: &Authority,
    email: Option<&str>,
    client: &AcmeClient,
    budget: &RefCell<OrderBudget>,
    known: &Directory,
) -> Result<Account, StepFault> {
    let http = || Box::new(client.clone());
    let directory = authority.directory.clone();
    let _alone = OPENING.lock().await;
    let stored = Stored::read(folder, &directory)?;
    if let Some((stored, url)) = stored.as_ref().and_then(|stored| Some((stored, stored.url.clone()?))) {
        let credentials = json!({"id": url, "key_pkcs8": stored.key, "urls": known.document()});
        let credentials: AccountCredentials =
            serde_json::from_value(credentials).map_err(|error| StepFault::here(error.to_string()))?;
        let opened = Account::builder_with_http(http()).from_credentials(credentials).await;
        let account = opened.map_err(|error| StepFault::of(error, client))?;
        return contact(account, stored.clone(), folder, email, client).await;
    }
    count(folder, &directory, budget)?;
    tracing::info!(authority = authority.name, "registering an account");
    let (account, stored) = match &authority.eab {
        None => by_key(folder, stored, &directory, client).await?,
        Some(eab) => {
            let (contacts, key) = (contacts(email), ExternalAccountKey::new(eab.key_id.clone(), &eab.hmac_key));
            let contacts: Vec<&str> = contacts.iter().map(String::as_str).collect();
            let new = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
            let created =
                signed!(Account::builder_with_http(http()).create(&new, directory.clone(), Some(&key)), client);
            let (account, credentials) = created.map_err(|fault| refused(fault, &eab.key_id))?;
            let key = BASE64_URL_SAFE_NO_PAD.encode(credentials.private_key().secret_pkcs8_der());
            let (url, email) = (Some(account.id().to_owned()), email.map(str::to_owned));
            let stored = Stored { directory, url, email, eab: Some(eab.key_id.clone()), identities: Vec::new(), key };
            stored.write(folder)?;
            (account, stored)
        }
    };
    tracing::info!(authority = authority.name, account = account.id(), "account registered");
    contact(account, stored, folder, email, client).await
}

/// A refused binding is a matter for the operator.
fn refused(fault: StepFault, key_id: &str) -> StepFault {
    match fault.remedy {
        AcmeRemedy::Temporary | AcmeRemedy::RateLimit => fault,
        _ => {
            let front = format!("the external account binding with key_id {key_id:?} is refused");
            let reload = pintle("reload");
            let hint = format!("compare key_id and hmac_key_file in [acme] with the authority's, then `{reload}`");
            let reason = Box::new(fault.reason.within(&front).hint(hint));
            StepFault { remedy: AcmeRemedy::Operator, reason, ..fault }
        }
    }
}

/// Registers a key that is on disk, as often as needed: the authority returns the same account.
async fn by_key(
    folder: &Path,
    stored: Option<Stored>,
    directory: &str,
    client: &AcmeClient,
) -> Result<(Account, Stored), StepFault> {
    let stored = match stored {
        Some(stored) => stored,
        None => {
            let (_, key) = Key::generate_pkcs8().map_err(|error| StepFault::here(error.to_string()))?;
            let key = BASE64_URL_SAFE_NO_PAD.encode(key.secret_pkcs8_der());
            Stored { directory: directory.to_owned(), url: None, email: None, eab: None, identities: Vec::new(), key }
        }
    };
    stored.write(folder)?;
    let register = async || {
        let der = stored.key().map_err(|_| instant_acme::Error::KeyRejected)?;
        let key = Key::from_pkcs8_der(der.clone_key())?;
        Account::builder_with_http(Box::new(client.clone()))
            .create_from_key((key, PrivateKeyDer::Pkcs8(der)), directory.to_owned())
            .await
    };
    let (account, _) = signed!(register(), client)?;
    let stored = Stored { url: Some(account.id().to_owned()), ..stored };
    stored.write(folder)?;
    Ok((account, stored))
}

fn contacts(email: Option<&str>) -> Vec<String> {
    email.map(|email| format!("mailto:{email}")).into_iter().collect()
}

/// Tells the authority the operator's address, if it knows another. An authority that takes none gets none.
async fn contact(
    account: Account,
    stored: Stored,
    folder: &Path,
    email: Option<&str>,
    client: &AcmeClient,
) -> Result<Account, StepFault> {
    if stored.email.as_deref() == email {
        return Ok(account);
    }
    let contacts = contacts(email);
    let contacts: Vec<&str> = contacts.iter().map(String::as_str).collect();
    match signed!(account.update_contacts(&contacts), client) {
        Ok(()) => {}
        Err(fault) if fault.remedy == AcmeRemedy::Register => return Err(fault),
        Err(fault) => {
            tracing::warn!(problem = fault.reason.line(), "the authority does not accept the address in acme.email");
        }
    }
    Stored { email: email.map(str::to_owned), ..stored }.write(folder)?;
    Ok(account)
}
