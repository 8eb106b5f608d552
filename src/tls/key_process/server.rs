//! The key process' side: loads keys and signs.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustls::SignatureScheme;
use rustls::sign::SigningKey;

use super::protocol::{self, KeyRequest, LoadedKey};
use crate::keys::key_file::{FILE_MAX, KeyFileError, Want, private_key, signer};
use crate::keys::pin::Pin;
use crate::os::plain_file;
use crate::reason::Reason;

/// The most channels: one for each worker, and for each thread that loads keys.
const CHANNELS_MAX: usize = 2048;
/// The most keys, including replaced ones.
const KEYS_MAX: usize = 65_536;

/// The order of preference of a key that supports several; for RSA, the same as rustls.
const SCHEMES: [SignatureScheme; 10] = [
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
];

struct KeyStore {
    /// The folders from which keys may be read: those of the start, without symbolic links.
    folders: Vec<PathBuf>,
    by_pin: RwLock<HashMap<[u8; 32], Arc<dyn SigningKey>>>,
    channels: AtomicUsize,
}

/// Reads the plan of the process, which [`super::KeyProcess::start`] has just written.
///
/// # Errors
///
/// If there is nothing to read.
pub fn plan(mut control_socket: &UnixStream) -> io::Result<Vec<u8>> {
    control_socket.set_read_timeout(Some(protocol::TIMEOUT))?;
    let plan = protocol::read_plan(&mut control_socket)?;
    control_socket.set_read_timeout(None)?;
    plan.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Takes channels from the control socket until it is closed, and answers their requests. Reads
/// keys only in these folders and below, even without a sandbox.
///
/// # Errors
///
/// If the control socket cannot be read.
pub fn serve(control_socket: &UnixStream, folders: &BTreeSet<PathBuf>) -> io::Result<()> {
    let folders = folders.iter().filter_map(|folder| fs::canonicalize(folder).ok()).collect();
    let keys = Arc::new(KeyStore { folders, by_pin: RwLock::default(), channels: AtomicUsize::new(0) });
    while let Some(channel) = take(control_socket)? {
        if keys.channels.fetch_add(1, Ordering::Relaxed) >= CHANNELS_MAX {
            keys.channels.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let own = keys.clone();
        let answering = std::thread::Builder::new().name("keys".into()).spawn(move || {
            // A malformed request ends its channel.
            let _ = own.answer_all(channel);
            own.channels.fetch_sub(1, Ordering::Relaxed);
        });
        if answering.is_err() {
            keys.channels.fetch_sub(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Takes the next channel; `None` if the control socket is closed.
fn take(control_socket: &UnixStream) -> io::Result<Option<UnixStream>> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let message =
            recvmsg(control_socket, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC);
        match message {
            Ok(message) if message.bytes == 0 => return Ok(None),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let rights = control.drain().filter_map(|m| match m {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let mut fds: Vec<OwnedFd> = rights.flatten().collect();
        if let Some(fd) = fds.pop() {
            return Ok(Some(UnixStream::from(fd)));
        }
    }
}

impl KeyStore {
    fn answer_all(&self, channel: UnixStream) -> io::Result<()> {
        while let Some(frame) = protocol::read_in_time(&channel)? {
            let request = KeyRequest::decode(&frame).ok_or(io::ErrorKind::InvalidData)?;
            let outcome = match request {
                KeyRequest::Load(path) => {
                    self.load(&PathBuf::from(OsString::from_vec(path))).map(|loaded| loaded.encode())
                }
                KeyRequest::Sign { pin, scheme, message } => self.sign(pin, scheme, &message),
            };
            protocol::write_in_time(&channel, &protocol::answer(outcome))?;
        }
        Ok(())
    }

    /// Resolves a path, if it leads into one of the folders. The asking process may be compromised:
    /// for other places it learns nothing, not even if they exist.
    fn find(&self, path: &Path) -> io::Result<PathBuf> {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let is_inside = |path: &Path| self.folders.iter().any(|folder| path.starts_with(folder));
        match fs::canonicalize(path) {
            Ok(real) if is_inside(&real) => Ok(real),
            Ok(_) => Err(denied()),
            Err(error) => {
                let folder = path.parent().and_then(|folder| fs::canonicalize(folder).ok());
                Err(if folder.is_some_and(|folder| is_inside(&folder)) { error } else { denied() })
            }
        }
    }

    fn load(&self, path: &Path) -> Result<LoadedKey, Reason> {
        let unread = |error: io::Error| format!("the key process cannot read it: {error}");
        let contents = self.find(path).and_then(|path| plain_file::read(&path, FILE_MAX)).map_err(unread)?;
        let unusable = |error: KeyFileError| {
            Reason::new(format!("no usable private key: {error}")).hints(error.hint(path, Want::Key))
        };
        let key = private_key(&contents).and_then(|der| signer(&der)).map_err(unusable)?;
        let public =
            key.public_key().map(|spki| spki.to_vec()).ok_or("no usable private key: it has no public part")?;
        let schemes = SCHEMES.into_iter().filter(|scheme| key.choose_scheme(&[*scheme]).is_some()).collect();
        let mut keys = self.by_pin.write().unwrap_or_else(PoisonError::into_inner);
        let pin = *Pin::of_spki(&public).as_bytes();
        if keys.len() >= KEYS_MAX && !keys.contains_key(&pin) {
            return Err(format!("the key process has its maximum of {KEYS_MAX} keys").into());
        }
        keys.insert(pin, key);
        Ok(LoadedKey { public, schemes })
    }

    fn sign(&self, pin: [u8; 32], scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Reason> {
        let key = self.by_pin.read().unwrap_or_else(PoisonError::into_inner).get(&pin).cloned();
        let key = key.ok_or("the key process has not loaded this key")?;
        let signer = key.choose_scheme(&[scheme]).ok_or("the key does not support this signature scheme")?;
        signer.sign(message).map_err(|error| error.to_string().into())
    }
}
