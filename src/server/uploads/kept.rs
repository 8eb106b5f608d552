//! The kept part of one body: memory, and a file for the rest.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::message::Fields;
use crate::server::admission::ClientNetwork;
use crate::server::asked::Turn;
use crate::server::upload_budget::{FILES_MAX, MEMORY_EACH, OverBudget, UploadBudget, UploadPlace};
use crate::wire::body::{Body, Frame, RequestBody, RequestBodyError};

/// Bytes that are read from a file at once.
const PIECE: u64 = 64 * 1024;
/// Bytes by which the memory of a body grows.
const MEMORY_STEP: usize = 4 * 1024;

/// The beginning of a body, in the order of its bytes: a file, then memory.
#[derive(Debug)]
pub(super) struct Kept {
    place: Arc<UploadPlace>,
    folder: Option<PathBuf>,
    memory_most: u64,
    files_most: u64,
    /// The bytes of memory that are taken for this body.
    room: usize,
    memory: BytesMut,
    file: Option<Spool>,
}

/// A file without a name.
#[derive(Debug)]
struct Spool {
    file: Arc<File>,
    length: u64,
    charge: FileCharge,
}

/// The room in files that a body has taken. It is given back however the body ends, also while the disk is waited for.
#[derive(Debug)]
struct FileCharge {
    place: Arc<UploadPlace>,
    bytes: u64,
    files: u64,
}

impl FileCharge {
    fn take(place: &Arc<UploadPlace>, bytes: u64, most: u64, files: u64) -> Result<Self, OverBudget> {
        place.take(UploadBudget::Files, files, FILES_MAX)?;
        let mut charge = Self { place: place.clone(), bytes: 0, files };
        place.take(UploadBudget::Filed, bytes, most)?;
        charge.bytes = bytes;
        Ok(charge)
    }

    /// Takes over the room of another one.
    fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.files += std::mem::take(&mut other.files);
    }
}

impl Drop for FileCharge {
    fn drop(&mut self) {
        self.place.give_back(UploadBudget::Filed, self.bytes);
        self.place.give_back(UploadBudget::Files, self.files);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.place.give_back(UploadBudget::Memory, self.room as u64);
    }
}

impl Kept {
    /// Begins a body. Room is taken as it comes: a client that sends nothing takes none. Returns `None` if there is no
    /// memory at all.
    pub(super) fn new(turn: &Turn<'_>) -> Option<Self> {
        let shared = &turn.asked.view.shared;
        let network = ClientNetwork::of(turn.asked.origin.client);
        let (memory_most, files_most) = (shared.limits.buffer_memory, shared.limits.buffer_files);
        (memory_most > 0).then(|| {
            let place = turn.context.worker.uploads.enter(network);
            Self::within(place, shared.state.clone(), memory_most, files_most)
        })
    }

    fn within(place: UploadPlace, folder: Option<PathBuf>, memory_most: u64, files_most: u64) -> Self {
        let place = Arc::new(place);
        Self { place, folder, memory_most, files_most, room: 0, memory: BytesMut::new(), file: None }
    }

    /// Keeps a piece, whole or not at all.
    pub(super) async fn take(&mut self, data: &Bytes) -> Result<(), OverBudget> {
        if !self.grow(data.len())? {
            if !self.memory.is_empty() {
                let memory = self.memory.split().freeze();
                if let Err(error) = self.write(memory.clone()).await {
                    self.memory.extend_from_slice(&memory);
                    return Err(error);
                }
            }
            if data.len() > self.room {
                return self.write(data.clone()).await;
            }
        }
        self.memory.extend_from_slice(data);
        Ok(())
    }

    /// Takes memory for another piece. Returns `false` if it has to be in a file: the body is too large, or the network's
    /// part is taken.
    fn grow(&mut self, more: usize) -> Result<bool, OverBudget> {
        let length = self.memory.len() + more;
        if length <= self.room {
            return Ok(true);
        }
        if length > MEMORY_EACH {
            return Ok(false);
        }
        let room = length.next_multiple_of(MEMORY_STEP).min(MEMORY_EACH);
        match self.place.take(UploadBudget::Memory, (room - self.room) as u64, self.memory_most) {
            Ok(()) => self.room = room,
            Err(OverBudget::Network) => return Ok(false),
            Err(OverBudget::All) => return Err(OverBudget::All),
        }
        Ok(true)
    }

    /// Writes a piece at the end of the file, on a thread that may wait for the disk.
    async fn write(&mut self, piece: Bytes) -> Result<(), OverBudget> {
        let length = piece.len() as u64;
        let files = u64::from(self.file.is_none());
        let charge = FileCharge::take(&self.place, length, self.files_most, files)?;
        let (file, at) = match &self.file {
            Some(spool) => (spool.file.clone(), spool.length),
            None => (Arc::new(self.open().await?), 0),
        };
        let written = file.clone();
        let done = spawn_blocking(move || written.write_all_at(&piece, at)).await;
        done.map_err(io::Error::from).flatten()?;
        match &mut self.file {
            Some(spool) => {
                spool.length += length;
                spool.charge.join(charge);
            }
            None => self.file = Some(Spool { file, length, charge }),
        }
        Ok(())
    }

    async fn open(&self) -> io::Result<File> {
        let folder = self.folder.clone().ok_or(io::ErrorKind::NotFound)?;
        spawn_blocking(move || open_unnamed(&folder)).await?
    }
}

/// Opens a file that nobody else can open, and that is gone with its last descriptor, however the process ends. On a file
/// system without such files, a process that is killed in this function leaves an empty one.
fn open_unnamed(folder: &Path) -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);

    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    match openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => return Ok(file.into()),
        // A file system that has no such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::ACCESS | Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = folder.join(format!(".upload-{}-{number}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&name)?;
    std::fs::remove_file(&name)?;
    Ok(file)
}

/// A body whose beginning, or all of it, was kept.
pub(super) struct KeptBody {
    kept: Kept,
    /// The bytes of the file that were read.
    read: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// The piece after those that are kept, which had no room.
    next: Option<Bytes>,
    /// The body after it.
    rest: Option<RequestBody>,
    trailers: Option<Fields>,
    /// The size of the next piece.
    most: u64,
    /// The bytes that a reader keeps.
    kept_by_others: usize,
}

impl KeptBody {
    /// A body that has come to its end.
    pub(super) fn ended(kept: Kept, trailers: Option<Fields>) -> Self {
        Self { kept, read: 0, reading: None, next: None, rest: None, trailers, most: PIECE, kept_by_others: 0 }
    }

    /// A body that continues with `next` and then `rest`.
    pub(super) fn begun(kept: Kept, next: Bytes, rest: RequestBody) -> Self {
        let mut body = Self::ended(kept, None);
        (body.next, body.rest) = (Some(next), Some(rest));
        body
    }

    /// Returns the length of a body that is here to its end, without trailers.
    pub(super) fn whole(&self) -> Option<u64> {
        let is_whole = self.next.is_none() && self.rest.is_none() && self.trailers.is_none();
        is_whole.then(|| self.filed() + self.kept.memory.len() as u64)
    }

    fn filed(&self) -> u64 {
        self.kept.file.as_ref().map_or(0, |spool| spool.length)
    }

    /// Reads the next piece of the file, on a thread that may wait for the disk. `None` at its end.
    fn poll_file(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(spool) = &self.kept.file else { return Poll::Ready(None) };
        let (at, left) = (self.read, spool.length - self.read);
        if left == 0 {
            self.kept.file = None;
            self.read = 0;
            return Poll::Ready(None);
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (file, length) = (spool.file.clone(), left.min(self.most));
            spawn_blocking(move || {
                let mut piece = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
                file.read_exact_at(&mut piece, at)?;
                Ok(Bytes::from(piece))
            })
        });
        let piece = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let piece = piece.map_err(io::Error::from).flatten();
        self.read += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(Some(piece))
    }
}

impl Body for KeptBody {
    type Error = RequestBodyError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, RequestBodyError>>> {
        match ready!(self.poll_file(cx)) {
            Some(Ok(piece)) => return Poll::Ready(Some(Ok(Frame::Data(piece)))),
            Some(Err(error)) => {
                tracing::error!(error = %error, "a buffered request body cannot be read back");
                return Poll::Ready(Some(Err(RequestBodyError::Lost)));
            }
            None => {}
        }
        if !self.kept.memory.is_empty() {
            return Poll::Ready(Some(Ok(Frame::Data(self.kept.memory.split().freeze()))));
        }
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(Ok(Frame::Data(next))));
        }
        if let Some(rest) = &mut self.rest {
            return rest.poll_frame(cx);
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::Trailers(trailers))))
    }

    fn is_end(&self) -> bool {
        let is_read = self.filed() == self.read && self.kept.memory.is_empty();
        is_read && self.next.is_none() && self.trailers.is_none() && self.rest.as_ref().is_none_or(|rest| rest.is_end())
    }

    fn read_at_most(&mut self, bytes: usize) {
        self.most = (bytes as u64).clamp(1, PIECE);
        if let Some(rest) = &mut self.rest {
            rest.read_at_most(bytes);
        }
    }

    fn keep(&mut self, bytes: usize) -> bool {
        if let Some(rest) = &mut self.rest {
            return rest.keep(bytes);
        }
        // Its connection holds nothing of it any more.
        let (place, before) = (&self.kept.place, self.kept_by_others);
        let may = match bytes.checked_sub(before) {
            Some(more) => place.take(UploadBudget::Memory, more as u64, self.kept.memory_most).is_ok(),
            None => {
                place.give_back(UploadBudget::Memory, (before - bytes) as u64);
                true
            }
        };
        if may {
            self.kept_by_others = bytes;
        }
        may
    }
}

impl Drop for KeptBody {
    fn drop(&mut self) {
        if self.rest.is_none() {
            self.kept.place.give_back(UploadBudget::Memory, self.kept_by_others as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::upload_budget::Uploads;

    const MOST: u64 = 1 << 20;

    fn kept(uploads: &Arc<Uploads>, files_most: u64) -> Kept {
        let place = uploads.enter(ClientNetwork::of([192, 0, 2, 1].into()));
        Kept::within(place, Some(std::env::temp_dir()), MOST, files_most)
    }

    #[tokio::test]
    async fn whoever_sends_little_takes_little() {
        let uploads = Arc::new(Uploads::default());
        let mut bodies: Vec<_> = (0..30).map(|_| kept(&uploads, 0)).collect();
        for body in &mut bodies {
            assert_eq!(body.take(&Bytes::from_static(b"x")).await, Ok(()));
            assert_eq!(body.room, MEMORY_STEP);
        }
    }

    #[tokio::test]
    async fn beyond_its_part_of_both_rooms_a_network_is_refused() {
        let uploads = Arc::new(Uploads::default());
        let piece = Bytes::from(vec![b'a'; MEMORY_EACH]);
        let mut bodies: Vec<_> = (0..6).map(|_| kept(&uploads, MOST)).collect();
        let mut outcomes = Vec::new();
        for body in &mut bodies {
            outcomes.push((body.take(&piece).await, body.file.is_some()));
        }
        // Two in memory, one beyond that as the large one, two in files.
        let (memory, file) = ((Ok(()), false), (Ok(()), true));
        assert_eq!(outcomes, [memory, memory, memory, file, file, (Err(OverBudget::Network), false)]);
        drop(bodies);
        let mut again = kept(&uploads, MOST);
        assert_eq!((again.take(&piece).await, again.file.is_some()), memory);
    }
}
