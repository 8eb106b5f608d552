//! Watches the frames of a connection for incomplete heads: HEADERS whose payload is still to come, or without END_HEADERS
//! until a CONTINUATION has it. h2 does not report that it holds one.

/// The length of a frame header (RFC 9113 section 4.1), and of the client's preface (section 3.4).
const FRAME_HEAD: usize = 9;
const PREFACE: usize = 24;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the frames that a client sends.
#[derive(Debug)]
pub(super) struct HeadWatch {
    /// Bytes of the preface, or of a frame's payload, that are still to come.
    rest: usize,
    /// The frame header that is coming, and how many bytes of it are there.
    frame: [u8; FRAME_HEAD],
    filled: usize,
    /// A head has begun.
    open: bool,
    /// The head ends with the frame whose payload is coming.
    ends: bool,
    begun: u64,
}

impl Default for HeadWatch {
    fn default() -> Self {
        Self { rest: PREFACE, frame: [0; FRAME_HEAD], filled: 0, open: false, ends: false, begun: 0 }
    }
}

impl HeadWatch {
    /// Takes in received bytes.
    pub(super) fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() || (self.rest == 0 && self.ends) {
            if self.rest > 0 {
                let part = self.rest.min(bytes.len());
                self.rest -= part;
                bytes = &bytes[part..];
                continue;
            }
            if std::mem::take(&mut self.ends) {
                self.open = false;
                continue;
            }
            // Nearly always, it is complete.
            if let (0, Some((frame, rest))) = (self.filled, bytes.split_first_chunk()) {
                self.frame = *frame;
                bytes = rest;
                self.begin();
                continue;
            }
            let part = bytes.len().min(FRAME_HEAD - self.filled);
            self.frame[self.filled..self.filled + part].copy_from_slice(&bytes[..part]);
            self.filled += part;
            bytes = &bytes[part..];
            if self.filled == FRAME_HEAD {
                self.filled = 0;
                self.begin();
            }
        }
    }

    /// Reads a complete frame header.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.frame;
        self.rest = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if kind == HEADERS {
            self.open = true;
            self.begun += 1;
        }
        self.ends = self.open && matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
    }

    /// Returns the number of the incomplete head, if there is one.
    pub(super) fn unfinished(&self) -> Option<u64> {
        self.open.then_some(self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [.., high, low] = payload.to_be_bytes();
        let mut bytes = vec![0, high, low, kind, flags, 0, 0, 0, 1];
        bytes.resize(FRAME_HEAD + payload, 4);
        bytes
    }

    #[test]
    fn heads_that_are_not_finished() {
        let whole = [
            vec![b'x'; PREFACE],
            frame(4, 0, 30),
            frame(HEADERS, END_HEADERS, 300),
            frame(DATA, 4, 10),
            frame(HEADERS, END_HEADERS, 0),
            frame(HEADERS, 0, 5),
            frame(CONTINUATION, 0, 0),
            frame(CONTINUATION, 0, 7),
            frame(CONTINUATION, END_HEADERS, 3),
            frame(6, 0, 8),
        ];
        for step in [1, 2, 5, 9, 10, 1000] {
            let mut watch = HeadWatch::default();
            let mut states = Vec::new();
            for piece in whole.concat().chunks(step) {
                watch.receive(piece);
                states.push(watch.unfinished());
            }
            states.dedup();
            assert_eq!(watch.unfinished(), None, "{step}");
            match step {
                // The second head is all there with its last byte.
                1 => assert_eq!(states, [None, Some(1), None, Some(3), None]),
                1000 => assert_eq!(states, [None]),
                _ => {}
            }
        }
        let mut watch = HeadWatch::default();
        watch.receive(&whole[..6].concat());
        assert_eq!(watch.unfinished(), Some(3));
        watch.receive(&whole[6..8].concat());
        assert_eq!(watch.unfinished(), Some(3));
        watch.receive(&whole[8]);
        assert_eq!(watch.unfinished(), None);
    }
}
