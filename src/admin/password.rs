//! The thread that checks passwords: one at a time, since each takes memory and time.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::config::admin::{AdminAccess, StoredPassword};

/// Passwords that wait for their check.
const WAITING: usize = 8;

struct PasswordCheck {
    password: Zeroizing<String>,
    hash: StoredPassword,
    reply: oneshot::Sender<bool>,
}

/// The thread that checks passwords. It ends when this is dropped.
pub struct PasswordThread(SyncSender<PasswordCheck>);

impl PasswordThread {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn start() -> io::Result<Self> {
        let (sender, checks) = sync_channel::<PasswordCheck>(WAITING);
        std::thread::Builder::new().name("pintle-password".into()).spawn(move || {
            for PasswordCheck { password, hash, reply } in checks {
                let _ = reply.send(hash.fits(password.as_bytes()));
            }
        })?;
        Ok(Self(sender))
    }

    /// Returns `true` if a name and a password belong together; `None` if too many others wait. An unknown name takes as long
    /// as a known one.
    pub async fn fits(&self, access: &AdminAccess, name: &str, password: Zeroizing<String>) -> Option<bool> {
        let known = access.users.iter().find(|user| user.name == name);
        let hash = known.or_else(|| access.users.first())?.password.clone();
        let (reply, fits) = oneshot::channel();
        self.0.try_send(PasswordCheck { password, hash, reply }).ok()?;
        let fits = fits.await.ok()?;
        Some(fits && known.is_some())
    }
}
