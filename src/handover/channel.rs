//! A channel between two processes: a line of JSON per message, with open files beside it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::os::words::words;

/// Files per byte sent; the kernel takes at most 253.
const FILES_AT_ONCE: usize = 128;
/// Received files that no message has claimed.
const FILES_MAX: usize = 64 * 1024;
/// The longest message, in bytes: the chains of very many sites.
const MESSAGE_MAX: usize = 256 << 20;
/// The interval at which a wait checks whether it was called off.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const READ_SIZE: usize = 64 * 1024;

/// The reason why no message was received or sent.
#[derive(Debug)]
pub enum ChannelError {
    /// The other side has closed the channel.
    Ended,
    /// Nothing arrived in time.
    Silent(Duration),
    /// The wait was called off.
    CalledOff,
    /// The message is unknown.
    Unknown(String),
    /// The operating system failed.
    Io(io::Error),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the other process has ended"),
            Self::Silent(limit) => write!(f, "the other process was silent for {limit:?}"),
            Self::CalledOff => f.write_str("called off"),
            Self::Unknown(why) => write!(f, "the other process sent an unknown message: {why}"),
            Self::Io(error) => f.write_str(&words(error)),
        }
    }
}

impl std::error::Error for ChannelError {}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

/// One end of a channel. All methods block, so threads that serve must not call them.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    received: Zeroizing<Vec<u8>>,
    files: VecDeque<OwnedFd>,
}

impl Channel {
    /// Creates a channel. Returns both ends.
    ///
    /// # Errors
    ///
    /// If no more files can be opened.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self::on(ours), theirs.into()))
    }

    /// Wraps a socket.
    #[must_use]
    pub fn on(socket: UnixStream) -> Self {
        Self { socket, received: Zeroizing::default(), files: VecDeque::new() }
    }

    /// Takes standard input, which an upgrade makes the channel, and replaces it with an empty
    /// file.
    ///
    /// # Errors
    ///
    /// If standard input is not a Unix socket.
    pub fn of_stdin() -> io::Result<Self> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Fails for files and for other kinds of sockets.
        socket.peer_addr()?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(Self::on(socket))
    }

    /// Sends a message and files within `limit`.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if the other side did not take all of it.
    pub fn send(
        &mut self,
        message: &impl Serialize,
        files: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<(), ChannelError> {
        self.socket.set_write_timeout(Some(limit.max(LOOK_EVERY)))?;
        for files in files.chunks(FILES_AT_ONCE) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(files)) {
                return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
            }
            // An empty line that carries the files.
            sendmsg(&self.socket, &[IoSlice::new(b"\n")], &mut control, SendFlags::NOSIGNAL)
                .map_err(io::Error::from)?;
        }
        let mut line = Zeroizing::new(serde_json::to_vec(message).map_err(io::Error::other)?);
        line.push(b'\n');
        self.socket.write_all(&line).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ChannelError::Silent(limit),
            _ => error.into(),
        })
    }

    /// Waits for a message: at most `limit`, or until `called_off` is set. `None` waits without
    /// end.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if no message arrived.
    pub fn receive<T: DeserializeOwned>(
        &mut self,
        limit: Option<Duration>,
        called_off: Option<&AtomicBool>,
    ) -> Result<T, ChannelError> {
        let end = limit.map(|limit| Instant::now() + limit);
        let mut looked = 0;
        loop {
            // Empty lines carry files.
            while self.received.first() == Some(&b'\n') {
                self.received.remove(0);
            }
            if let Some(at) = self.received.iter().skip(looked).position(|b| *b == b'\n').map(|at| at + looked) {
                let line: Zeroizing<Vec<u8>> = Zeroizing::new(self.received.drain(..=at).collect());
                // Its own text may quote the message, which may have a key.
                let place =
                    |error: serde_json::Error| format!("{:?} error at byte {}", error.classify(), error.column());
                return serde_json::from_slice(&line).map_err(|error| ChannelError::Unknown(place(error)));
            }
            looked = self.received.len();
            if called_off.is_some_and(|off| off.load(Ordering::Relaxed)) {
                return Err(ChannelError::CalledOff);
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if let (Some(Duration::ZERO), Some(limit)) = (left, limit) {
                return Err(ChannelError::Silent(limit));
            }
            let look = called_off.map(|_| LOOK_EVERY);
            self.fill(left.into_iter().chain(look).min())?;
        }
    }

    /// Returns the next file that came with a message.
    pub fn take_file(&mut self) -> Option<OwnedFd> {
        self.files.pop_front()
    }

    /// Reads available bytes, or waits for them within `limit`.
    fn fill(&mut self, limit: Option<Duration>) -> Result<(), ChannelError> {
        self.socket.set_read_timeout(limit)?;
        let mut buffer = Zeroizing::new([0; READ_SIZE]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer[..])], &mut control, RecvFlags::CMSG_CLOEXEC);
        let received = match received.map_err(io::Error::from) {
            Ok(received) => received,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(()),
                    _ => Err(error.into()),
                };
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || self.files.len() > FILES_MAX {
            return Err(ChannelError::Unknown("more files than this process may open".into()));
        }
        if received.bytes == 0 {
            return Err(ChannelError::Ended);
        }
        if self.received.len() + received.bytes > MESSAGE_MAX {
            return Err(ChannelError::Unknown("a message without an end".into()));
        }
        self.received.extend_from_slice(&buffer[..received.bytes]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    const LIMIT: Duration = Duration::from_secs(10);

    fn pair() -> (Channel, Channel) {
        let (one, other) = Channel::pair().unwrap();
        (one, Channel::on(other.into()))
    }

    /// More files than fit into one send, and a message longer than any buffer, both in order.
    #[test]
    fn messages_and_files_arrive_in_order() {
        let (mut one, mut other) = pair();
        let listeners: Vec<TcpListener> =
            (0..FILES_AT_ONCE + 3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let long = "x".repeat(1 << 20);
        let (sent, text) = (listeners.iter().map(|l| l.local_addr().unwrap()).collect::<Vec<_>>(), long.clone());
        std::thread::spawn(move || {
            let files: Vec<BorrowedFd<'_>> = listeners.iter().map(|l| l.as_fd()).collect();
            one.send(&text, &files, LIMIT).unwrap();
            one.send(&1, &[], LIMIT).unwrap();
            drop(listeners);
        });
        assert_eq!(other.receive::<String>(Some(LIMIT), None).unwrap(), long);
        assert_eq!(other.receive::<u32>(Some(LIMIT), None).unwrap(), 1);
        let files: Vec<OwnedFd> = std::iter::from_fn(|| other.take_file()).collect();
        let arrived: Vec<_> = files.into_iter().map(TcpListener::from).collect();
        assert_eq!(arrived.iter().map(|l| l.local_addr().unwrap()).collect::<Vec<_>>(), sent);
        // The socket is the same one: it still listens.
        let mut client = TcpStream::connect(sent[0]).unwrap();
        arrived[0].accept().unwrap().0.write_all(b"hello").unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(matches!(other.receive::<u32>(Some(LIMIT), None), Err(ChannelError::Ended)));
    }

    #[test]
    fn waits_have_an_end() {
        let (one, mut other) = pair();
        let silent = other.receive::<u32>(Some(Duration::from_millis(150)), None);
        assert!(matches!(silent, Err(ChannelError::Silent(_))), "{silent:?}");
        let called_off = other.receive::<u32>(None, Some(&AtomicBool::new(true)));
        assert!(matches!(called_off, Err(ChannelError::CalledOff)), "{called_off:?}");
        drop(one);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (mut one, mut other) = pair();
        one.socket.write_all(b"GET / HTTP/1.1\n").unwrap();
        assert!(matches!(other.receive::<u32>(Some(LIMIT), None), Err(ChannelError::Unknown(_))));
    }
}
