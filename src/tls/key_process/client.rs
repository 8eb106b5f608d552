//! The serving process' side: a key that is somewhere else.

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

use super::protocol::{self, Loaded, PATIENCE, Request};
use crate::keys::pin::Pin;

/// The process that has the keys.
pub struct KeyProcess {
    /// Channels are handed in here; it ends when this is closed.
    door: Mutex<UnixStream>,
    child: Mutex<Child>,
    is_gone: AtomicBool,
}

/// There is one for the process.
static HELD: OnceLock<KeyProcess> = OnceLock::new();

thread_local! {
    /// This thread's own way to it.
    static CHANNEL: RefCell<Option<UnixStream>> = const { RefCell::new(None) };
}

/// The process that has the keys, if they are in one.
#[must_use]
pub fn held() -> Option<&'static KeyProcess> {
    HELD.get()
}

impl KeyProcess {
    /// Starts it by a command, which finds the door as its standard input, and the plan in it.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(mut command: Command, plan: &[u8]) -> io::Result<&'static Self> {
        let (mut door, theirs) = UnixStream::pair()?;
        // Nobody waits for a process that stands still, neither with the plan nor with a channel.
        door.set_write_timeout(Some(PATIENCE))?;
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).spawn()?;
        protocol::write_plan(&mut door, plan)?;
        let key_process = Self { door: Mutex::new(door), child: Mutex::new(child), is_gone: AtomicBool::new(false) };
        Ok(HELD.get_or_init(|| key_process))
    }

    /// Its number.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Whether it has ended: then no handshake can be signed any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let ended = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
        if !matches!(ended, Ok(None)) {
            self.is_gone.store(true, Ordering::Relaxed);
        }
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Has it read a key.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn load(&'static self, path: &Path) -> Result<RemoteKey, String> {
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        let answer = self.ask(&Request::load(&path))?;
        let Loaded { public, schemes } = Loaded::decode(&answer).ok_or("the key process answers nonsense")?;
        let algorithm = schemes.first().and_then(|scheme| algorithm_of(*scheme)).ok_or("the key cannot sign")?;
        let pin = Pin::of_spki(&public);
        Ok(RemoteKey { key_process: self, pin, public, schemes, algorithm })
    }

    fn ask(&self, request: &Request) -> Result<Vec<u8>, String> {
        CHANNEL.with_borrow_mut(|channel| {
            let answered = self.ask_by(channel, request);
            let tell = |error: io::Error| format!("the key process does not answer: {error}");
            if answered.is_err() {
                // Half a frame may be on its way: a new channel knows nothing of it.
                *channel = None;
            }
            protocol::outcome(&answered.map_err(tell)?).ok_or("the key process answers nonsense")?
        })
    }

    fn ask_by(&self, channel: &mut Option<UnixStream>, request: &Request) -> io::Result<Vec<u8>> {
        let channel = match channel {
            Some(channel) => channel,
            none => none.insert(self.open()?),
        };
        protocol::write(channel, &request.encode())?;
        protocol::read(channel)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// A channel of this thread's own.
    fn open(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        for timeout in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            timeout(&ours, Some(PATIENCE))?;
        }
        let fds = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        sendmsg(&*door, &[io::IoSlice::new(&[1])], &mut control, SendFlags::NOSIGNAL)?;
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

/// A key that this process does not have.
pub struct RemoteKey {
    key_process: &'static KeyProcess,
    pin: Pin,
    public: Vec<u8>,
    schemes: Vec<SignatureScheme>,
    algorithm: SignatureAlgorithm,
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
    /// Waits for the answer; rustls has no other way to sign. The thread's other connections wait with it.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signed = self.key_process.ask(&Request::sign(&self.pin, self.scheme, message));
        signed.map_err(|why| {
            tracing::debug!(why, "a handshake was not signed");
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
