//! The form of a file: a fixed part, the head, the body. Checksums cover all of it but one byte, which is changed in place.
//!
//! Files are ours, but a crash or a disk may have changed any byte of them. Whatever cannot be read as a whole is no file.

use http::StatusCode;
use sha2::{Digest as _, Sha256};

use crate::cache::earlier::EarlierHead;
use crate::cache::freshness::{Lifetime, LifetimeBasis};
use crate::cache::page::StoredResponse;
use crate::cache::vary::Variant;
use crate::clock::boot::BootMoment;
use crate::message::Fields;

/// The first bytes: the form and its version. Another version has other ones.
const MAGIC: &[u8; 8] = b"pintleC1";
/// The bytes before the head: the magic, the state, the lengths, and the checksums of head and body.
pub(super) const FIXED: usize = 96;
/// The place of the state, and its value for a response that must be validated.
pub(super) const STATE_AT: u64 = 8;
pub(super) const INVALID: u8 = 1;
const LENGTHS: std::ops::Range<usize> = 16..32;
const HEAD_SUM: std::ops::Range<usize> = 32..64;
const BODY_SUM: std::ops::Range<usize> = 64..96;
/// The longest head, in bytes.
const HEAD_MAX: u64 = 1 << 20;
/// The most fields of a head.
const FIELDS_MAX: usize = 4096;

const BASES: [LifetimeBasis; 6] = [
    LifetimeBasis::SMaxage,
    LifetimeBasis::MaxAge,
    LifetimeBasis::Expires,
    LifetimeBasis::DefaultTtl,
    LifetimeBasis::Negative,
    LifetimeBasis::Heuristic,
];

/// The lengths of a file's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartLengths {
    pub(super) head: usize,
    pub(super) body: u64,
}

impl PartLengths {
    /// Reads the fixed part; `None` if it is none of this version.
    pub(super) fn of(fixed: &[u8; FIXED]) -> Option<Self> {
        let mut lengths = Unread(fixed.get(LENGTHS)?);
        let (head, body) = (lengths.u64()?, lengths.u64()?);
        let is_ours = fixed.starts_with(MAGIC) && head <= HEAD_MAX;
        is_ours.then_some(Self { head: usize::try_from(head).ok()?, body })
    }

    /// The length of the whole file.
    pub(super) fn whole(self) -> u64 {
        (FIXED as u64).saturating_add(self.head as u64).saturating_add(self.body)
    }
}

/// The head of a file.
#[derive(Debug)]
pub(super) struct SavedHead {
    pub(super) key: Vec<u8>,
    /// It must be validated before the next use.
    pub(super) is_invalid: bool,
    /// The number of soft purges of the site before it was written.
    pub(super) epoch: u64,
    pub(super) head: EarlierHead,
    boot: String,
    uptime: u64,
    wall: i64,
    body_sum: [u8; 32],
}

impl SavedHead {
    /// Reads the fixed part and the head; `None` if they are damaged.
    pub(super) fn read(fixed: &[u8; FIXED], head: &[u8]) -> Option<Self> {
        PartLengths::of(fixed).filter(|lengths| lengths.head == head.len())?;
        (fixed.get(HEAD_SUM)? == head_sum(fixed, head)).then_some(())?;
        let mut unread = Unread(head);
        let [status, basis] = [unread.u16()?, unread.u16()?];
        let [seconds, age] = [unread.u32()?, unread.u32()?];
        let [epoch, uptime, wall] = [unread.u64()?, unread.u64()?, unread.u64()?];
        let boot = String::from_utf8(unread.bytes()?.to_vec()).ok()?;
        let key = unread.bytes()?.to_vec();
        let mut nominated = Vec::new();
        for _ in 0..unread.count()? {
            let name = unread.bytes()?.into();
            let value = match unread.u16()? {
                0 => None,
                _ => Some(unread.bytes()?.into()),
            };
            nominated.push((name, value));
        }
        let mut fields = Fields::default();
        for _ in 0..unread.count()? {
            let (name, value) = (unread.bytes()?, unread.bytes()?);
            fields.push(name, value);
        }
        unread.0.is_empty().then_some(Self {
            key,
            is_invalid: fixed[8] != 0,
            epoch,
            head: EarlierHead {
                status: StatusCode::from_u16(status).ok()?,
                fields,
                variant: Variant::restored(nominated),
                lifetime: Lifetime { seconds, basis: *BASES.get(usize::from(basis))? },
                age,
            },
            boot,
            uptime,
            wall: wall.cast_signed(),
            body_sum: fixed.get(BODY_SUM)?.try_into().ok()?,
        })
    }

    /// `true` if this is the body.
    pub(super) fn is_body(&self, body: &[u8]) -> bool {
        self.body_sum == <[u8; 32]>::from(Sha256::digest(body))
    }

    /// Returns the age at a moment, in seconds. If the clock was set back meanwhile, nobody knows it: the response is stale.
    pub(super) fn age(&self, now: &BootMoment<'_>) -> u32 {
        let boot = Some(&*self.boot).filter(|boot| !boot.is_empty());
        let saved = BootMoment { boot, uptime: self.uptime, wall: self.wall };
        match now.since(&saved) {
            Some(millis) => self.head.age.saturating_add(u32::try_from(millis / 1000).unwrap_or(u32::MAX)),
            None => self.head.age.max(self.head.lifetime.seconds),
        }
    }
}

/// Writes the fixed part and the head of a file. Its body follows. `uptime` is now.
pub(super) fn write(
    key: &[u8],
    stored: &StoredResponse,
    (is_invalid, epoch): (bool, u64),
    (now, uptime): (&BootMoment<'_>, u64),
) -> Option<Vec<u8>> {
    let (head, age) = (&stored.head, stored.head.clock(uptime).age);
    let mut out = vec![0; FIXED];
    let lifetime = head.lifetime();
    let basis = BASES.iter().position(|basis| *basis == lifetime.basis)?;
    for number in [head.status.as_u16(), u16::try_from(basis).ok()?] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [lifetime.seconds, age] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [epoch, now.uptime, now.wall.cast_unsigned()] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    put(&mut out, now.boot.unwrap_or_default().as_bytes())?;
    put(&mut out, key)?;
    put_count(&mut out, head.variant().fields().count())?;
    for (name, value) in head.variant().fields() {
        put(&mut out, name)?;
        out.extend_from_slice(&u16::from(value.is_some()).to_le_bytes());
        if let Some(value) = value {
            put(&mut out, value)?;
        }
    }
    put_count(&mut out, head.fields.len())?;
    for (name, value) in head.fields.iter() {
        put(&mut out, name)?;
        put(&mut out, value)?;
    }
    seal(&mut out, &stored.body, is_invalid)?;
    Some(out)
}

/// Writes the fixed part, before a head: lengths and checksums.
pub(super) fn seal(out: &mut [u8], body: &[u8], is_invalid: bool) -> Option<()> {
    let length = out.len().checked_sub(FIXED)? as u64;
    let (fixed, head) = out.split_first_chunk_mut::<FIXED>().filter(|_| length <= HEAD_MAX)?;
    fixed[..8].copy_from_slice(MAGIC);
    fixed[8] = if is_invalid { INVALID } else { 0 };
    fixed[LENGTHS][..8].copy_from_slice(&length.to_le_bytes());
    fixed[LENGTHS][8..].copy_from_slice(&(body.len() as u64).to_le_bytes());
    fixed[BODY_SUM].copy_from_slice(&<[u8; 32]>::from(Sha256::digest(body)));
    let sum = head_sum(fixed, head);
    fixed[HEAD_SUM].copy_from_slice(&sum);
    Some(())
}

/// Reads a whole file, as it is on disk.
pub(super) fn read_whole(file: &[u8]) -> Option<(SavedHead, Vec<u8>)> {
    let (fixed, rest) = file.split_first_chunk::<FIXED>()?;
    let lengths = PartLengths::of(fixed).filter(|lengths| lengths.whole() == file.len() as u64)?;
    let (head, body) = rest.split_at_checked(lengths.head)?;
    let saved = SavedHead::read(fixed, head)?;
    saved.is_body(body).then(|| (saved, body.to_vec()))
}

/// The checksum of the head, the lengths and the body's checksum.
fn head_sum(fixed: &[u8; FIXED], head: &[u8]) -> [u8; 32] {
    let mut sum = Sha256::new();
    sum.update(MAGIC);
    sum.update(&fixed[9..LENGTHS.end]);
    sum.update(&fixed[BODY_SUM]);
    sum.update(head);
    sum.finalize().into()
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
    out.extend_from_slice(bytes);
    Some(())
}

fn put_count(out: &mut Vec<u8>, count: usize) -> Option<()> {
    let count = u16::try_from(count).ok().filter(|count| usize::from(*count) <= FIELDS_MAX)?;
    out.extend_from_slice(&count.to_le_bytes());
    Some(())
}

/// Bytes that were not read yet.
struct Unread<'a>(&'a [u8]);

impl<'a> Unread<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    fn count(&mut self) -> Option<usize> {
        Some(usize::from(self.u16()?)).filter(|count| *count <= FIELDS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{sample, sample_with};
    use super::*;
    use crate::cache::stored_fields::StoredFields;

    const KEY: &[u8] = b"a.example\n\n/x?y";

    fn at(boot: Option<&str>, uptime: u64, wall: i64) -> BootMoment<'_> {
        BootMoment { boot, uptime, wall }
    }

    fn file(body: &[u8]) -> Vec<u8> {
        let mut file = write(KEY, &sample(body), (false, 7), (&at(Some("b"), 5000, 9000), 3000)).unwrap();
        file.extend_from_slice(body);
        file
    }

    #[test]
    fn what_is_written_is_read_back() {
        for body in [&b""[..], b"x", &[7; 100_000]] {
            let stored = sample_with("Vary: Accept-Language, X-Gone\r\nETag: \"a\"\r\nCache-Tag: x, y\r\n", body);
            let mut file = write(KEY, &stored, (true, 7), (&at(None, 5000, -9000), 3000)).unwrap();
            file.extend_from_slice(body);
            let (saved, read) = read_whole(&file).unwrap();
            assert_eq!((&*saved.key, saved.is_invalid, saved.epoch, &*read), (KEY, true, 7, body));
            let head = &stored.head;
            assert_eq!((saved.head.status, saved.head.lifetime), (head.status, head.lifetime()));
            assert_eq!(&saved.head.variant, head.variant());
            assert_eq!(saved.head.variant.fields().count(), 2);
            assert_eq!(StoredFields::of(&saved.head.fields), head.fields);
            assert_eq!(saved.head.age, head.clock(3000).age);
            let damaged: Vec<u8> = file.iter().copied().chain([0]).collect();
            assert!(read_whole(&damaged).is_none(), "too long");
        }
    }

    #[test]
    fn any_damaged_byte_is_noticed() {
        let whole = file(b"the body");
        for at in (0..whole.len()).filter(|at| *at as u64 != STATE_AT) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x20;
            assert!(read_whole(&damaged).is_none(), "byte {at}");
        }
        for length in 0..whole.len() {
            assert!(read_whole(&whole[..length]).is_none(), "cut at {length}");
        }
        // The state is read for itself: any change of it asks for validation.
        let mut marked = whole.clone();
        marked[usize::try_from(STATE_AT).unwrap()] = 0xff;
        assert!(read_whole(&marked).unwrap().0.is_invalid);
        // The head of one file and the body of another.
        let other = file(b"THE BODY");
        let mixed = [&whole[..whole.len() - 8], &other[other.len() - 8..]].concat();
        assert!(read_whole(&mixed).is_none());
    }

    #[test]
    fn ages_over_a_restart() {
        let (saved, _) = read_whole(&file(b"x")).unwrap();
        // It was three seconds old, and is fresh for a minute.
        for (now, want) in [
            (at(Some("b"), 6999, 0), 4),
            (at(Some("b"), 65_000, i64::MAX), 63),
            (at(Some("c"), 1, 19_000), 13),
            (at(None, 1, 19_000), 13),
            (at(Some("c"), 1, i64::MAX), u32::MAX),
            // Set back, or a clock that counts from another start: stale, and no older than that.
            (at(Some("c"), 1, 8000), 60),
            (at(Some("b"), 4000, 10_000), 60),
        ] {
            assert_eq!(saved.age(&now), want, "{now:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = read_whole(&bytes);
            let mut ours = file(b"x");
            let at = bytes.len() % ours.len();
            ours.splice(at.., bytes);
            let _ = read_whole(&ours);
        }
    }
}
