//! The files of ACME in the folder of the state: keys, chains, and the record of each certificate. Every change is whole on
//! disk before anything depends on it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{KeyPair, RsaKeySize};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::backoff::Attempts;
use super::budget::OrderBudget;
use super::facts::{Checked, Compromise, OpenOrder, OperatorRequests, Way};
use super::fault::StepFault;
use super::hook;
use super::issued::{self, Issued, RetiredKey};
use super::lost::{self, LostKey};
use super::renewal_info::RenewalInfo;
use super::step::KeyChoice;
use crate::config::Managed;
use crate::config::own_key::{self, UnusableKeyFile};
use crate::keys::key_file::{self, KeyAlgorithm, KeyFileError, Want};
use crate::keys::pin::Pin;
use crate::os::plain_file;
use crate::policy::promise::Seconds;
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_path};
use crate::server::ChallengeAnswer;
use crate::tls::certificate::Chain;

/// The longest file, in bytes.
const FILE_MAX: u64 = 4 << 20;
/// The record of a certificate, in its folder.
pub(super) const RECORD: &str = "order.json";
/// A chain that is complete, and takes the place of the chain in use.
const ARRIVED: &str = "chain.new.pem";

/// Everything that is known about a certificate, besides its key and chain.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateRecord {
    /// The time at which the live key came into use.
    pub live_since: Seconds,
    /// The directory of the authority that issued the chain in use.
    pub from: Option<String>,
    /// A random number from 0 to 1, drawn with that chain.
    pub spread: f64,
    /// Its renewal information.
    pub info: RenewalInfo,
    /// An order that was begun.
    pub order: Option<OpenOrder>,
    /// The answers to its challenges.
    pub answers: Vec<ChallengeAnswer>,
    /// DNS records that the hook may have set, until they are removed.
    pub dns_records: Vec<hook::TxtRecord>,
    /// The last preflight.
    pub checked: Option<Checked>,
    /// Challenges that have failed at an authority: others come first.
    pub failed_ways: Vec<Way>,
    /// The operator's requests.
    pub asked: OperatorRequests,
    /// A key that the operator declared compromised.
    pub compromise: Option<Compromise>,
    /// The last key that was compromised, after its end.
    pub retired: Option<RetiredKey>,
    /// The issued certificates that have not expired.
    pub issued: Vec<Issued>,
    /// Identifies the settings of the last attempts: others may succeed.
    pub settings: String,
    /// The authorities, by their directories.
    pub authorities: BTreeMap<String, AuthorityRecord>,
}

impl CertificateRecord {
    /// Permits attempts now, after another preflight. Waits that an authority asked for remain.
    pub fn release(&mut self) {
        self.checked.iter_mut().for_each(Checked::expire);
        self.authorities.values_mut().for_each(|known| known.attempts.release());
    }
}

/// The facts about an authority.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorityRecord {
    /// `true` if it offers renewal information.
    pub has_renewal_info: bool,
    /// The attempts for this certificate.
    pub attempts: Attempts,
}

/// Makes the missing folders and keys, and completes a change that was interrupted. Returns the keys that were lost.
///
/// # Errors
///
/// The file that cannot be read or written, and why.
pub fn prepare(certificates: &[Managed]) -> Result<Vec<LostKey>, Reason> {
    let mut lost = Vec::new();
    for certificate in certificates {
        let placed = |error: io::Error| words(&certificate.folder, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&certificate.folder).map_err(placed)?;
        let _lock = lock(certificate).map_err(placed)?;
        complete(certificate).map_err(placed)?;
        for choice in [KeyChoice::Live, KeyChoice::Next] {
            make_missing(certificate, choice, &mut lost)?;
        }
    }
    Ok(lost)
}

/// Keeps other threads and processes from the files of a certificate: the driver, a reload, and an upgrade's new process.
fn lock(certificate: &Managed) -> io::Result<File> {
    let folder = File::open(&certificate.folder)?;
    folder.lock()?;
    Ok(folder)
}

/// Makes a key unless it exists, or adopts the operator's as the first live one.
///
/// # Errors
///
/// The file, and why.
pub fn make_key(certificate: &Managed, choice: KeyChoice) -> Result<(), Reason> {
    let _lock = lock(certificate).map_err(|error| words(&certificate.folder, &error))?;
    let mut lost = Vec::new();
    let made = make_missing(certificate, choice, &mut lost);
    lost.iter().for_each(LostKey::log);
    made
}

/// The same, under the lock.
fn make_missing(certificate: &Managed, choice: KeyChoice, lost: &mut Vec<LostKey>) -> Result<(), Reason> {
    let path = key_path(certificate, choice);
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let (served, loss) = lost::served_key(certificate, choice);
    // The operator's key is the first live one. A key that was served comes before it.
    let adopted = match certificate.adopt.as_ref().filter(|_| choice == KeyChoice::Live && served.is_none()) {
        Some(file) => adopt(file, certificate)?,
        None => None,
    };
    lost.extend(loss.filter(|_| adopted.is_none()));
    let pem = match served.or(adopted) {
        Some(pem) => pem,
        None => generate(certificate.algorithm).map_err(|error| format!("no key could be made: {error}"))?,
    };
    write(&path, pem.as_bytes()).map_err(|error| words(&path, &error))
}

/// Reads a key that is to be adopted; `None` if it has another algorithm, as one of several keys.
fn adopt(file: &Path, certificate: &Managed) -> Result<Option<String>, Reason> {
    const KEY: &str = "site.certificate.key";
    let unfit = |error: KeyFileError| {
        Reason::new(format!("{KEY}: {}: {error}", file.display())).hints(error.hint(file, Want::Key))
    };
    let contents = fs::read(file).map_err(|error| words(file, &error).within(&KEY))?;
    let key = key_file::public_key(&contents).map_err(unfit)?;
    if key.algorithm != certificate.algorithm {
        return Ok(None);
    }
    key_file::private_key(&contents).map_err(unfit)?;
    String::from_utf8(contents).map(Some).map_err(|error| Reason::new(format!("{KEY}: {}: {error}", file.display())))
}

fn generate(algorithm: KeyAlgorithm) -> Result<String, rcgen::Error> {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
    let key = match algorithm {
        KeyAlgorithm::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
        KeyAlgorithm::Rsa(4096) => rsa(RsaKeySize::_4096)?,
        KeyAlgorithm::Rsa(3072) => rsa(RsaKeySize::_3072)?,
        KeyAlgorithm::Rsa(_) => rsa(RsaKeySize::_2048)?,
        _ => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
    };
    Ok(key.serialize_pem())
}

/// Returns the file of a key.
#[must_use]
pub fn key_path(certificate: &Managed, choice: KeyChoice) -> PathBuf {
    match choice {
        KeyChoice::Live => certificate.key(),
        KeyChoice::Next => certificate.next(),
    }
}

/// Reads the pin of a key; `None` if there is no such file.
///
/// # Errors
///
/// If there is one, and it holds no usable key.
pub fn usable_pin(certificate: &Managed, choice: KeyChoice) -> Result<Option<Pin>, UnusableKeyFile> {
    own_key::read(&key_path(certificate, choice))
}

/// Returns the pin of a key; `None` if there is no such file, or if it cannot be read.
#[must_use]
pub fn pin_of(certificate: &Managed, choice: KeyChoice) -> Option<Pin> {
    usable_pin(certificate, choice).ok().flatten()
}

/// Reads the pin of a key; `None` if there is no such file.
fn read_pin(certificate: &Managed, choice: KeyChoice) -> io::Result<Option<Pin>> {
    match plain_file::read(&key_path(certificate, choice), FILE_MAX) {
        Ok(contents) => Ok(key_file::public_key(&contents).ok().map(|key| key.pin)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a key.
///
/// # Errors
///
/// The file, and why.
pub fn key(certificate: &Managed, choice: KeyChoice) -> Result<String, Reason> {
    let path = key_path(certificate, choice);
    fs::read_to_string(&path).map_err(|error| words(&path, &error))
}

/// Reads the chain in use.
#[must_use]
pub fn chain(certificate: &Managed) -> Option<Chain> {
    Chain::from_pem(&plain_file::read(&certificate.chain(), FILE_MAX).ok()?).ok()
}

/// Puts a chain in place, with the key that it belongs to. If the process ends in between, the next start completes it.
///
/// # Errors
///
/// If a file cannot be written.
pub fn install(certificate: &Managed, chain: &str) -> io::Result<()> {
    let _lock = lock(certificate)?;
    write(&certificate.folder.join(ARRIVED), chain.as_bytes())?;
    complete(certificate)
}

/// Copies a compromised key and its chain, before another one takes their place.
///
/// # Errors
///
/// If a file cannot be read or written.
pub fn keep_compromised(certificate: &Managed, pin: Pin) -> io::Result<()> {
    let _lock = lock(certificate)?;
    if read_pin(certificate, KeyChoice::Live)? != Some(pin) {
        return Ok(());
    }
    for (from, to) in [certificate.key(), certificate.chain()].iter().zip(certificate.compromised()) {
        match plain_file::read(from, FILE_MAX) {
            Ok(contents) => write(&to, &contents)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts the certificates that no CA has revoked beside the copy of their key, if there is one: the operator needs them.
pub(super) fn keep_unrevoked(certificate: &Managed, unrevoked: &[Issued]) -> io::Result<()> {
    let [key, chain] = certificate.compromised();
    if key.exists() { write(&chain, issued::in_pem(unrevoked).as_bytes()) } else { Ok(()) }
}

/// Removes the copies of a compromised key and of its chain.
pub fn forget_compromised(certificate: &Managed) {
    for path in certificate.compromised() {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            let error = crate::os::words::words(&error);
            tracing::warn!(file = %path.display(), error, "cannot remove the copy of a compromised key");
        }
    }
}

/// Completes the change to an arrived chain. Its presence says that it is whole.
fn complete(certificate: &Managed) -> io::Result<()> {
    let arrived = certificate.folder.join(ARRIVED);
    let contents = match plain_file::read(&arrived, FILE_MAX) {
        Ok(contents) => contents,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let pin = Chain::from_pem(&contents).ok().map(|chain| chain.pin());
    // A renewal on the live key does not need the next key.
    let next = read_pin(certificate, KeyChoice::Next);
    if pin.is_some() && next.as_ref().is_ok_and(|next| *next == pin) {
        fs::rename(certificate.next(), certificate.key())?;
    }
    match pin.is_some() && pin == read_pin(certificate, KeyChoice::Live)? {
        true => fs::rename(&arrived, certificate.chain())?,
        // Its key is gone: pintle cannot serve it.
        false => {
            next?;
            fs::remove_file(&arrived)?;
        }
    }
    sync(&certificate.folder)
}

/// Reads the record of a certificate. A damaged one counts as absent: it costs an order, not a certificate.
///
/// # Errors
///
/// If it exists and cannot be read: it may name an open order.
pub fn record(certificate: &Managed) -> io::Result<CertificateRecord> {
    load(&certificate.folder.join(RECORD)).map(Option::unwrap_or_default)
}

/// Reads the record of a certificate, as far as this user can. Changes nothing.
#[must_use]
pub fn look(certificate: &Managed) -> Option<CertificateRecord> {
    serde_json::from_slice(&plain_file::read(&certificate.folder.join(RECORD), FILE_MAX).ok()?).ok()
}

/// Writes the record of a certificate.
///
/// # Errors
///
/// If it cannot be written.
pub fn save_record(certificate: &Managed, record: &CertificateRecord) -> io::Result<()> {
    save(&certificate.folder.join(RECORD), record)
}

/// Returns a short hash.
#[must_use]
pub fn fingerprint(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the file of something that belongs to an authority.
#[must_use]
pub fn file_of(folder: &Path, what: &str, directory: &str) -> PathBuf {
    folder.join(format!("{what}-{}.json", fingerprint(directory)))
}

/// Reads a file of JSON; `None` if it does not exist, or is damaged.
///
/// # Errors
///
/// If it exists and cannot be read.
pub fn load<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let contents = match plain_file::read(path, FILE_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    Ok(match serde_json::from_slice(&contents) {
        Ok(value) => Some(value),
        Err(error) => {
            set_aside(path, &error);
            None
        }
    })
}

/// Moves a damaged file away, and says so.
pub(super) fn set_aside(path: &Path, why: &dyn std::fmt::Display) {
    let damaged = path.with_extension("damaged");
    let is_account = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("account-"));
    let hint = is_account.then(|| {
        let (from, to) = (shell_path(path), shell_path(&damaged));
        format!(
            "pintle registers another account, whose URL `{}` shows for CAA records with accounturi; to keep the old one, \
             restore {from} from a backup, then `{}`; pintle keeps the damaged file as {to}",
            pintle("acme account"),
            pintle("reload")
        )
    });
    tracing::error!(file = %path.display(), error = %why, hint, "damaged file; pintle begins it again");
    let _ = fs::rename(path, damaged);
}

/// Writes a file of JSON that its owner alone can read.
///
/// # Errors
///
/// If it cannot be written.
pub fn save<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write(path, &serde_json::to_vec_pretty(value)?)
}

/// Returns why a file cannot be read or written. If its disk is full, names the disk.
#[must_use]
pub fn words(path: &Path, error: &io::Error) -> Reason {
    let folder = shell_path(plain_file::folder_of(path));
    let reason = Reason::new(format!("{}: {}", path.display(), crate::os::words::words(error)));
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            reason.hint(format!("free space on its disk; df -h {folder}"))
        }
        io::ErrorKind::PermissionDenied => reason.command(format!("ls -l {folder}")),
        _ => reason,
    }
}

/// Counts something in the budget at an authority, on disk before it is made.
///
/// # Errors
///
/// The file, and why it cannot be written.
pub(super) fn count(
    folder: &Path,
    directory: &str,
    budget: &RefCell<OrderBudget>,
    take: impl FnOnce(&mut OrderBudget),
) -> Result<(), StepFault> {
    let mut taken = budget.borrow().clone();
    take(&mut taken);
    let path = file_of(folder, "budget", directory);
    save(&path, &taken).map_err(|error| StepFault::here(words(&path, &error)))?;
    *budget.borrow_mut() = taken;
    Ok(())
}

/// Replaces a file that its owner alone can read, whole or not at all.
fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = beside(path);
    let _ = fs::remove_file(&new);
    let written = write_new(&new, contents).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written?;
    sync(plain_file::folder_of(path))
}

/// Returns a name beside a file that no other process uses.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostPattern;
    use rcgen::CertificateParams;
    use std::os::unix::fs::PermissionsExt as _;

    fn certificate(folder: &Path) -> Managed {
        Managed {
            site: "a.example".to_owned(),
            hosts: vec![HostPattern::parse("a.example").unwrap()],
            algorithm: KeyAlgorithm::EcdsaP256,
            folder: folder.join("a.example/ecdsa-p256"),
            adopt: None,
        }
    }

    fn chain_for(key: &str) -> String {
        let key = KeyPair::from_pem(key).unwrap();
        CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
    }

    #[test]
    fn keys_are_made_once() {
        let folder = tempfile::TempDir::new().unwrap();
        let one = certificate(folder.path());
        prepare(std::slice::from_ref(&one)).unwrap();
        let pins = [KeyChoice::Live, KeyChoice::Next].map(|choice| pin_of(&one, choice).unwrap());
        assert_ne!(pins[0], pins[1]);
        prepare(std::slice::from_ref(&one)).unwrap();
        assert_eq!([KeyChoice::Live, KeyChoice::Next].map(|choice| pin_of(&one, choice).unwrap()), pins);
        assert_eq!(fs::metadata(one.key()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&one.folder).unwrap().count(), 2);
    }

    #[test]
    fn the_operators_key_is_adopted_and_not_touched() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("own.key");
        fs::write(&file, generate(KeyAlgorithm::EcdsaP256).unwrap()).unwrap();
        let one = Managed { adopt: Some(file.clone()), ..certificate(folder.path()) };
        let two = Managed { algorithm: KeyAlgorithm::EcdsaP384, folder: folder.path().join("b"), ..one.clone() };
        prepare(&[one.clone(), two.clone()]).unwrap();
        let own = key_file::public_key(&fs::read(&file).unwrap()).unwrap().pin;
        assert_eq!(pin_of(&one, KeyChoice::Live), Some(own));
        assert_ne!(pin_of(&two, KeyChoice::Live), Some(own));
        fs::remove_file(&file).unwrap();
        prepare(&[one]).unwrap();
    }

    #[test]
    fn a_change_of_key_and_chain_that_was_interrupted_is_completed() {
        let folder = tempfile::TempDir::new().unwrap();
        let one = certificate(folder.path());
        prepare(std::slice::from_ref(&one)).unwrap();
        install(&one, &chain_for(&key(&one, KeyChoice::Live).unwrap())).unwrap();
        let next = pin_of(&one, KeyChoice::Next).unwrap();
        let arrived = one.folder.join(ARRIVED);
        // Killed after the chain was written.
        fs::write(&arrived, chain_for(&key(&one, KeyChoice::Next).unwrap())).unwrap();
        prepare(std::slice::from_ref(&one)).unwrap();
        assert_eq!((pin_of(&one, KeyChoice::Live), chain(&one).unwrap().pin()), (Some(next), next));
        assert!(!arrived.exists() && pin_of(&one, KeyChoice::Next).is_some_and(|fresh| fresh != next));
        // Killed after the key was renamed.
        let next = pin_of(&one, KeyChoice::Next).unwrap();
        fs::write(&arrived, chain_for(&key(&one, KeyChoice::Next).unwrap())).unwrap();
        fs::rename(one.next(), one.key()).unwrap();
        prepare(std::slice::from_ref(&one)).unwrap();
        assert_eq!((pin_of(&one, KeyChoice::Live), chain(&one).unwrap().pin()), (Some(next), next));
        // A chain for neither key.
        fs::write(&arrived, chain_for(&generate(KeyAlgorithm::EcdsaP256).unwrap())).unwrap();
        prepare(std::slice::from_ref(&one)).unwrap();
        assert_eq!(
            (pin_of(&one, KeyChoice::Live), chain(&one).unwrap().pin(), arrived.exists()),
            (Some(next), next, false)
        );
    }

    #[test]
    fn records() {
        let folder = tempfile::TempDir::new().unwrap();
        let one = certificate(folder.path());
        prepare(std::slice::from_ref(&one)).unwrap();
        assert_eq!(record(&one).unwrap(), CertificateRecord::default());
        let kept = CertificateRecord {
            live_since: 5,
            spread: 0.25,
            from: Some("https://ca.example/d".into()),
            ..CertificateRecord::default()
        };
        save_record(&one, &kept).unwrap();
        assert_eq!(record(&one).unwrap(), kept);
        fs::write(one.folder.join(RECORD), "{").unwrap();
        assert_eq!(record(&one).unwrap(), CertificateRecord::default());
        assert!(one.folder.join("order.damaged").exists());
    }
}
