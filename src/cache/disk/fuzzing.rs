//! Files for the fuzz target `cache_file`: any bytes, and any head with checksums that fit.

use super::file::{self, FIXED, read_whole, seal};
use super::name::{PageFileName, marks};
use crate::cache::freshness::ReceivedAt;
use crate::cache::page::StoredResponse;
use crate::cache::stored_head::{HeadArrival, StoredHead};
use crate::clock::boot::BootMoment;

const UPTIME: u64 = 5000;
const NOW: BootMoment<'_> = BootMoment { boot: Some("b"), uptime: UPTIME, wall: 9000 };

/// Reads a file, and returns it as its response would be written now; `None` if none would be stored of it.
#[must_use]
pub fn written_anew(file: &[u8]) -> Option<Vec<u8>> {
    let (saved, body) = read_whole(file)?;
    let (age, state) = (saved.age(&NOW), (saved.is_invalid, saved.epoch));
    let arrival = HeadArrival { received: ReceivedAt { at: 9, delay: 0 }, uptime: UPTIME, epoch: saved.epoch };
    let head = StoredHead::restored(saved.head, age, arrival).ok()?;
    let stored = StoredResponse::new(head, body.into());
    let _ = (PageFileName::of(&saved.key, stored.head.variant()), marks(&saved.key, stored.head.tags()));
    let mut anew = file::write(&saved.key, &stored, state, (&NOW, UPTIME))?;
    anew.extend_from_slice(&stored.body);
    Some(anew)
}

/// Returns a file with this head and body; empty if the head is too long.
#[must_use]
pub fn sealed(head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut file = [&[0; FIXED][..], head].concat();
    if seal(&mut file, body, false).is_none() {
        return Vec::new();
    }
    file.extend_from_slice(body);
    file
}

#[cfg(test)]
mod tests {
    use super::super::samples::sample_with;
    use super::*;
    use std::fs;
    use std::path::Path;

    /// The head of a page.
    fn head() -> Vec<u8> {
        let stored = sample_with("ETag: \"a\"\r\nVary: Accept-Language, X-Gone\r\nCache-Tag: x, y\r\n", b"");
        let file = file::write(b"a.example\nb.example\n/x?y", &stored, (false, 7), (&NOW, UPTIME)).unwrap();
        file[FIXED..].to_vec()
    }

    /// Any byte of a head changed or missing, with checksums that fit: whatever is read is read back.
    #[test]
    fn any_change_of_a_head_is_read_or_refused() {
        let whole = head();
        let read = |head: &[u8]| match written_anew(&sealed(head, b"body")) {
            Some(anew) => assert_eq!(written_anew(&anew), Some(anew), "{}", head.escape_ascii()),
            None => assert_ne!(head, whole),
        };
        read(&whole);
        for at in 0..whole.len() {
            read(&whole[..at]);
            for change in [1, 0x20, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= change;
                read(&changed);
            }
        }
        assert!(written_anew(&sealed(&vec![0; 2 << 20], b"")).is_none());
    }

    /// If the form changes, so do the seeds: `head` makes them.
    #[test]
    fn seeds_have_this_form() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/cache_file");
        let mut count = 0;
        for seed in fs::read_dir(&folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()) {
            let is_read = [seed.clone(), sealed(&seed, b"")].iter().any(|file| written_anew(file).is_some());
            assert!(is_read, "{}: {}", folder.display(), seed.escape_ascii());
            count += 1;
        }
        assert!(count > 2);
    }
}
