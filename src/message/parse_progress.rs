//! Decides when to parse a head again that comes in pieces.

use memchr::memchr_iter;

use super::http1::LEADING_EMPTY_MAX;

/// The bytes of an incomplete head at its last parse. A head is parsed from its beginning each
/// time: one that comes byte by byte would cost its size squared.
#[derive(Debug, Default)]
pub struct ParseProgress(usize);

impl ParseProgress {
    /// The size up to which a head is parsed whenever bytes come.
    const SMALL: usize = 4096;

    /// Returns `true` if the received bytes should be parsed: they are few, have grown by an eighth
    /// or beyond one of the limits, or contain the end of the head.
    pub fn is_worth_it(&mut self, received: &[u8], limits: &[usize]) -> bool {
        let (len, looked) = (received.len(), self.0.min(received.len()));
        let ends =
            |new: &[u8]| memchr_iter(b'\n', new).any(|at| matches!(new[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]));
        // Empty lines before the head do not count.
        let passes = |limit: &usize| len > *limit && looked <= *limit + LEADING_EMPTY_MAX;
        let worth = len <= Self::SMALL
            || len - looked >= looked / 8
            || limits.iter().any(passes)
            || ends(&received[looked.saturating_sub(2)..]);
        if worth {
            self.0 = len;
        }
        worth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_trickles_is_read_a_few_times_over() {
        let head = [&b"GET / HTTP/1.1\r\n"[..], &b"X: y\r\n".repeat(10_000), b"\r\n"].concat();
        let (mut progress, mut read, mut last) = (ParseProgress::default(), 0, 0);
        for len in 1..=head.len() {
            if progress.is_worth_it(&head[..len], &[8192, 1 << 20]) {
                (read, last) = (read + len, len);
            }
        }
        assert_eq!(last, head.len(), "the end is seen at once");
        let small = ParseProgress::SMALL * ParseProgress::SMALL / 2;
        assert!(read < small + 12 * head.len(), "{read} bytes for {}", head.len());
    }

    #[test]
    fn a_head_beyond_a_limit_is_refused_at_once() {
        let limits = [10_000, 20_000];
        for limit in limits {
            let mut progress = ParseProgress(limit);
            assert!(progress.is_worth_it(&vec![b'x'; limit + 1], &limits));
            assert!(progress.is_worth_it(&vec![b'x'; limit + LEADING_EMPTY_MAX + 1], &limits));
            assert!(!progress.is_worth_it(&vec![b'x'; limit + LEADING_EMPTY_MAX + 2], &limits));
        }
    }
}
