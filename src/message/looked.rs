//! When to read a head again that comes in pieces.

use memchr::memchr_iter;

use super::http1::LEADING_EMPTY_MAX;

/// How much of a head was there when it was read last, in vain. A head is read from its beginning each time: one that
/// comes byte by byte would cost its size squared.
#[derive(Debug, Default)]
pub struct Looked(usize);

impl Looked {
    /// Heads up to this size are read at whatever comes.
    const SMALL: usize = 4096;

    /// Whether to read what is there: it is little, or has grown by an eighth, or beyond one of the limits, or its end has
    /// come.
    pub fn is_worth_it(&mut self, received: &[u8], limits: &[usize]) -> bool {
        let (len, looked) = (received.len(), self.0.min(received.len()));
        let ends =
            |new: &[u8]| memchr_iter(b'\n', new).any(|at| matches!(new[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]));
        // Empty lines before the head do not count for it.
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
        let (mut looked, mut read, mut last) = (Looked::default(), 0, 0);
        for len in 1..=head.len() {
            if looked.is_worth_it(&head[..len], &[8192, 1 << 20]) {
                (read, last) = (read + len, len);
            }
        }
        assert_eq!(last, head.len(), "the end is seen at once");
        let small = Looked::SMALL * Looked::SMALL / 2;
        assert!(read < small + 12 * head.len(), "{read} bytes for {}", head.len());
    }

    #[test]
    fn a_head_beyond_a_limit_is_refused_at_once() {
        let limits = [10_000, 20_000];
        for limit in limits {
            let mut looked = Looked(limit);
            assert!(looked.is_worth_it(&vec![b'x'; limit + 1], &limits));
            assert!(looked.is_worth_it(&vec![b'x'; limit + LEADING_EMPTY_MAX + 1], &limits));
            assert!(!looked.is_worth_it(&vec![b'x'; limit + LEADING_EMPTY_MAX + 2], &limits));
        }
    }
}
