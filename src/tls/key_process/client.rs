//! The serving process' side: signs with keys in the key process.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

use super::protocol::{self, KeyRequest, LoadedKey, TIMEOUT};
use crate::keys::key_file::{PublicKey, public_key};
use crate::keys::pin::Pin;
use crate::reason::Reason;

/// The process that holds the private keys.
pub struct KeyProcess {
    /// Passes channels to the process, which ends when this socket is closed.
    control_socket: Mutex<UnixStream>,
    child: Mutex<Child>,
    is_gone: AtomicBool,
}

/// The answer does not follow the protocol.
const INVALID_ANSWER: &str = "the key process sends an invalid answer";

/// The one key process of this process.
static RUNNING: OnceLock<KeyProcess> = OnceLock::new();

thread_local! {
    /// This thread's own channel to it.
    static CHANNEL: RefCell<Option<UnixStream>> = const { RefCell::new(None) };
}

/// Returns the key process, if there is one.
#[must_use]
pub fn running() -> Option<&'static KeyProcess> {
    RUNNING.get()
}

impl KeyProcess {
    /// Starts the process with a command. Its standard input is the control socket, and the plan
    /// comes through that.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(mut command: Command, plan: &[u8]) -> io::Result<&'static Self> {
        let (mut control_socket, theirs) = UnixStream::pair()?;
        // A hanging process blocks nobody, neither at the plan nor at a channel.
        control_socket.set_write_timeout(Some(TIMEOUT))?;
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).spawn()?;
        protocol::write_plan(&mut control_socket, plan)?;
        let key_process = Self {
            control_socket: Mutex::new(control_socket),
            child: Mutex::new(child),
            is_gone: AtomicBool::new(false),
        };
        Ok(RUNNING.get_or_init(|| key_process))
    }

    /// Returns its process id.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Returns `true` if it has ended: then no handshake can be signed any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let ended = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
        if !matches!(ended, Ok(None)) {
            self.is_gone.store(true, Ordering::Relaxed);
        }
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Makes it read a key.
    ///
    /// # Errors
    ///
    /// If the key cannot be read or used.
    pub fn load(&'static self, path: &Path) -> Result<RemoteKey, Reason> {
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        let answer = self.ask(&KeyRequest::load(&path))?;
        let LoadedKey { public, schemes } = LoadedKey::decode(&answer).ok_or(INVALID_ANSWER)?;
        let algorithm = schemes.first().and_then(|scheme| algorithm_of(*scheme)).ok_or("the key cannot sign")?;
        let pin = Pin::of_spki(&public);
        Ok(RemoteKey { key_process: self, pin, public, schemes, algorithm })
    }

    fn ask(&self, request: &KeyRequest) -> Result<Vec<u8>, Reason> {
        CHANNEL.with_borrow_mut(|channel| {
            let answered = self.ask_by(channel, request);
            let failed = |error: io::Error| format!("the key process does not answer: {error}");
            if answered.is_err() {
                // Half a frame may be in transit: the next request uses a new channel.
                *channel = None;
            }
            protocol::outcome(&answered.map_err(failed)?).ok_or(INVALID_ANSWER)?
        })
    }

    fn ask_by(&self, channel: &mut Option<UnixStream>, request: &KeyRequest) -> io::Result<Vec<u8>> {
        let channel = match channel {
            Some(channel) => channel,
            none => none.insert(self.open()?),
        };
        protocol::write(channel, &request.encode())?;
        protocol::read(channel)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Opens a channel for this thread.
    fn open(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        for timeout in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            timeout(&ours, Some(TIMEOUT))?;
        }
        let fds = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let control_socket = self.control_socket.lock().unwrap_or_else(PoisonError::into_inner);
        sendmsg(&*control_socket, &[io::IoSlice::new(&[1])], &mut control, SendFlags::NOSIGNAL)?;
        Ok(ours)
    }
}

fn algorithm_of(scheme: SignatureScheme) -> Option<SignatureAlgorithm> {
    use SignatureScheme as S;
    Some(match scheme {
        S::RSA_PSS_SHA512 | S::RSA_PSS_SHA384 | S::RSA_PSS_SHA256 => SignatureAlgorithm::RSA,
        S::RSA_PKCS1_SHA512 | S::RSA_PKCS1_SHA384 | S::RSA_PKCS1_SHA256 => SignatureAlgorithm::RSA,
        S::ECDSA_NISTP256_SHA256 | S::ECDSA_NISTP384_SHA384 | S::ECDSA_NISTP521_SHA512 => SignatureAlgorithm::ECDSA,
        S::ED25519 => SignatureAlgorithm::ED25519,
        _ => return None,
    })
}

/// A private key in the key process.
pub struct RemoteKey {
    key_process: &'static KeyProcess,
    pin: Pin,
    public: Vec<u8>,
    schemes: Vec<SignatureScheme>,
    algorithm: SignatureAlgorithm,
}

impl RemoteKey {
    /// Returns its pin.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// Returns its public half.
    #[must_use]
    pub fn public_half(&self) -> Option<PublicKey> {
        public_key(&self.public).ok()
    }
}

impl fmt::Debug for RemoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKey").field("pin", &self.pin).field("schemes", &self.schemes).finish_non_exhaustive()
    }
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = *self.schemes.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(RemoteSigner { key_process: self.key_process, pin: self.pin, scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.public.as_slice()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

#[derive(Debug)]
struct RemoteSigner {
    key_process: &'static KeyProcess,
    pin: Pin,
    scheme: SignatureScheme,
}

impl Signer for RemoteSigner {
    /// Waits for the answer, as rustls has no asynchronous way to sign. The thread's other
    /// connections wait, too.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signed = self.key_process.ask(&KeyRequest::sign(&self.pin, self.scheme, message));
        signed.map_err(|why| {
            let why = why.line();
            tracing::debug!(why, "handshake not signed");
            Error::General(why)
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl fmt::Debug for KeyProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyProcess").finish_non_exhaustive()
    }
}
