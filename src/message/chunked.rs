//! Decodes the bodies of HTTP/1.1 by their framing: length, chunks, or the end of the connection.

use bytes::{Buf, Bytes, BytesMut};

use super::field::Fields;
use super::head::Framing;
use super::trailer::is_forbidden_trailer;

/// The longest chunk-size line, with its extensions; bytes.
const SIZE_LINE_MAX: usize = 256;
/// The largest trailer section, in bytes, and the most fields in it.
const TRAILERS_MAX: usize = 16 * 1024;
const TRAILER_FIELDS_MAX: usize = 32;

/// Extracts a body from the bytes of a connection.
#[derive(Debug)]
pub struct BodyDecoder {
    state: ChunkState,
    /// Requests must follow the syntax exactly. In responses, white space may follow a chunk size.
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    End,
}

/// The result of [`BodyDecoder::decode`].
#[derive(Debug)]
pub enum Decoded {
    /// A piece of the body.
    Data(Bytes),
    /// The trailer section, if it has permitted fields. The body has ended.
    Trailers(Fields),
    /// The buffer holds no complete piece.
    More,
    /// The body has ended.
    End,
}

/// A body that does not follow its framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// A chunk size that is invalid, or does not fit into 64 bits.
    ChunkSize,
    /// An extension that has control characters or is too long.
    ChunkExtension,
    /// No CRLF after a chunk's data.
    ChunkEnd,
    /// A trailer section that is invalid or too large.
    Trailers,
    /// The connection ended before the body did.
    Truncated,
}

impl std::fmt::Display for BodyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ChunkSize => "invalid chunk size",
            Self::ChunkExtension => "invalid chunk extension",
            Self::ChunkEnd => "no CRLF after a chunk",
            Self::Trailers => "invalid trailer section",
            Self::Truncated => "body cut short",
        })
    }
}

impl std::error::Error for BodyFault {}

impl BodyDecoder {
    /// Makes a decoder for the body of a request. It is strict.
    #[must_use]
    pub fn request(framing: Framing) -> Self {
        Self::new(framing, true)
    }

    /// Makes a decoder for the body of a response.
    #[must_use]
    pub fn response(framing: Framing) -> Self {
        Self::new(framing, false)
    }

    fn new(framing: Framing, strict: bool) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => ChunkState::End,
            Framing::Length(n) => ChunkState::Length(n),
            Framing::Chunked => ChunkState::ChunkSize,
            Framing::UntilClose => ChunkState::UntilClose,
        };
        Self { state, strict }
    }

    /// Returns `true` if the whole body was decoded.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.state == ChunkState::End
    }

    /// Returns the number of bytes still to come, if the framing states it.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            ChunkState::Length(n) => Some(n),
            ChunkState::End => Some(0),
            _ => None,
        }
    }

    /// Takes the next piece from the front of `buf`.
    ///
    /// # Errors
    ///
    /// Returns a [`BodyFault`]. The connection cannot be used further.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, BodyFault> {
        loop {
            match self.state {
                ChunkState::End => return Ok(Decoded::End),
                ChunkState::Length(n) | ChunkState::ChunkData(n) => {
                    if buf.is_empty() {
                        return Ok(Decoded::More);
                    }
                    let take = usize::try_from(n).unwrap_or(usize::MAX).min(buf.len());
                    let left = n - take as u64;
                    self.state = match (self.state, left) {
                        (ChunkState::Length(_), 0) => ChunkState::End,
                        (ChunkState::Length(_), _) => ChunkState::Length(left),
                        (_, 0) => ChunkState::ChunkEnd,
                        _ => ChunkState::ChunkData(left),
                    };
                    return Ok(Decoded::Data(buf.split_to(take).freeze()));
                }
                ChunkState::UntilClose => {
                    if buf.is_empty() {
                        return Ok(Decoded::More);
                    }
                    return Ok(Decoded::Data(buf.split().freeze()));
                }
                ChunkState::ChunkSize => match size_line(buf, self.strict)? {
                    None => return Ok(Decoded::More),
                    Some((len, size)) => {
                        buf.advance(len);
                        self.state = if size == 0 { ChunkState::Trailers } else { ChunkState::ChunkData(size) };
                    }
                },
                ChunkState::ChunkEnd => {
                    if buf.len() < 2 {
                        return if buf.first().is_some_and(|b| *b != b'\r') {
                            Err(BodyFault::ChunkEnd)
                        } else {
                            Ok(Decoded::More)
                        };
                    }
                    if &buf[..2] != b"\r\n" {
                        return Err(BodyFault::ChunkEnd);
                    }
                    buf.advance(2);
                    self.state = ChunkState::ChunkSize;
                }
                ChunkState::Trailers => {
                    let Some((len, fields)) = trailers(buf, self.strict)? else { return Ok(Decoded::More) };
                    buf.advance(len);
                    self.state = ChunkState::End;
                    if !fields.is_empty() {
                        return Ok(Decoded::Trailers(fields));
                    }
                }
            }
        }
    }

    /// Ends the body at the end of the connection.
    ///
    /// # Errors
    ///
    /// Returns [`BodyFault::Truncated`], unless the body ends there.
    pub fn finish(&mut self) -> Result<(), BodyFault> {
        match self.state {
            ChunkState::End | ChunkState::UntilClose => {
                self.state = ChunkState::End;
                Ok(())
            }
            _ => Err(BodyFault::Truncated),
        }
    }
}

/// Parses `chunk-size [ chunk-ext ] CRLF` (RFC 9112 section 7.1). Returns the line's length, and
/// the size.
fn size_line(buf: &[u8], strict: bool) -> Result<Option<(usize, u64)>, BodyFault> {
    let digits = buf.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(buf.len());
    if digits > 16 || (digits == 0 && !buf.is_empty()) {
        return Err(BodyFault::ChunkSize);
    }
    // Extensions must not contain what another parser could read as the end of a line (RFC 9112
    // section 7.1.1).
    let line = &buf[..buf.len().min(SIZE_LINE_MAX)];
    let control = line[digits.min(line.len())..].iter().position(|b| b.is_ascii_control() && *b != b'\t');
    let Some(end) = control.map(|at| digits + at) else {
        return if buf.len() >= SIZE_LINE_MAX { Err(BodyFault::ChunkExtension) } else { Ok(None) };
    };
    let extension = line[digits..end].trim_ascii_start();
    let blank = extension.is_empty() && end > digits;
    if (blank && strict) || (!extension.is_empty() && extension[0] != b';') {
        return Err(BodyFault::ChunkSize);
    }
    match &buf[end..] {
        [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => {
            let text = std::str::from_utf8(&buf[..digits]).map_err(|_| BodyFault::ChunkSize)?;
            let size = u64::from_str_radix(text, 16).map_err(|_| BodyFault::ChunkSize)?;
            Ok(Some((end + 2, size)))
        }
        _ => Err(BodyFault::ChunkExtension),
    }
}

/// Parses `trailer-section CRLF`. Returns its length, and the permitted fields (RFC 9110 section
/// 6.5).
fn trailers(buf: &[u8], strict: bool) -> Result<Option<(usize, Fields)>, BodyFault> {
    let mut slots = [httparse::EMPTY_HEADER; TRAILER_FIELDS_MAX];
    match httparse::parse_headers(buf, &mut slots).map_err(|_| BodyFault::Trailers)? {
        httparse::Status::Partial if buf.len() > TRAILERS_MAX => Err(BodyFault::Trailers),
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete((len, found)) => {
            let lone_lf = |w: &[u8]| w[1] == b'\n' && w[0] != b'\r';
            if len > TRAILERS_MAX || (strict && (buf[0] == b'\n' || buf[..len].windows(2).any(lone_lf))) {
                return Err(BodyFault::Trailers);
            }
            let mut fields = Fields::default();
            for h in found.iter().filter(|h| !is_forbidden_trailer(h.name.as_bytes())) {
                fields.push(h.name.as_bytes(), h.value);
            }
            Ok(Some((len, fields)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the bytes in pieces of `step`; gives the body, the trailers, and what is left behind
    /// it.
    fn run(input: &[u8], framing: Framing, step: usize, strict: bool) -> Result<(Vec<u8>, usize, Vec<u8>), BodyFault> {
        let mut decoder = BodyDecoder::new(framing, strict);
        let (mut buf, mut body, mut trailer_count) = (BytesMut::new(), Vec::new(), 0);
        for piece in input.chunks(step.max(1)) {
            buf.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut buf)? {
                    Decoded::Data(data) => body.extend_from_slice(&data),
                    Decoded::Trailers(fields) => trailer_count = fields.len(),
                    Decoded::More | Decoded::End => break,
                }
            }
        }
        decoder.finish()?;
        Ok((body, trailer_count, buf.to_vec()))
    }

    fn chunked(input: &str, want: Result<(&str, usize, &str), BodyFault>) {
        for step in [1, 2, 3, input.len()] {
            let got = run(input.as_bytes(), Framing::Chunked, step, true);
            let got = got.map(|(b, t, r)| (String::from_utf8(b).unwrap(), t, String::from_utf8(r).unwrap()));
            let got = got.as_ref().map(|(b, t, r)| (&b[..], *t, &r[..])).map_err(|e| *e);
            assert_eq!(got, want, "{input:?} in steps of {step}");
        }
    }

    #[test]
    fn chunks() {
        chunked("0\r\n\r\n", Ok(("", 0, "")));
        chunked("5\r\nhello\r\n0\r\n\r\nGET", Ok(("hello", 0, "GET")));
        chunked("3\r\nabc\r\nA\r\n0123456789\r\n000\r\n\r\n", Ok(("abc0123456789", 0, "")));
        chunked("1;name=value\r\nx\r\n0; a=\"b;c\"\r\n\r\n", Ok(("x", 0, "")));
        chunked("1\r\nx\r\n0\r\nX-Sum: 7\r\nHost: evil\r\nx_forwarded_for: 1\r\n\r\n", Ok(("x", 1, "")));
        chunked("", Err(BodyFault::Truncated));
        chunked("5\r\nhell", Err(BodyFault::Truncated));
        chunked("5\r\nhello\r\n", Err(BodyFault::Truncated));
        chunked("5\r\nhello\r\n0\r\n", Err(BodyFault::Truncated));
    }

    #[test]
    fn chunks_that_parsers_disagree_about() {
        for (bad, fault) in [
            ("g\r\n", BodyFault::ChunkSize),
            ("\r\n", BodyFault::ChunkSize),
            ("-1\r\n", BodyFault::ChunkSize),
            ("+1\r\nx\r\n", BodyFault::ChunkSize),
            ("0x1\r\nx", BodyFault::ChunkSize),
            (" 1\r\nx", BodyFault::ChunkSize),
            ("1 \r\nx\r\n0\r\n\r\n", BodyFault::ChunkSize),
            ("11111111111111111\r\n", BodyFault::ChunkSize),
            ("1 x\r\n", BodyFault::ChunkSize),
            ("1\nx\r\n", BodyFault::ChunkExtension),
            ("1;a\nx\r\n", BodyFault::ChunkExtension),
            ("1;a\rx\r\n", BodyFault::ChunkExtension),
            ("1\r\nxy\r\n", BodyFault::ChunkEnd),
            ("1\r\nx\n0\r\n\r\n", BodyFault::ChunkEnd),
            ("1\r\nx0\r\n\r\n", BodyFault::ChunkEnd),
            ("0\r\nA: b\n\r\n", BodyFault::Trailers),
            ("0\r\n\n", BodyFault::Trailers),
            ("0\r\nA : b\r\n\r\n", BodyFault::Trailers),
        ] {
            chunked(bad, Err(fault));
        }
        let long = format!("1;{}\r\n", "x".repeat(SIZE_LINE_MAX));
        chunked(&long, Err(BodyFault::ChunkExtension));
        assert!(run(b"1 \r\nx\r\n0\r\n\r\n", Framing::Chunked, 100, false).is_ok());
    }

    #[test]
    fn other_framings() {
        assert_eq!(run(b"hello!", Framing::Length(5), 2, true), Ok((b"hello".to_vec(), 0, b"!".to_vec())));
        assert_eq!(run(b"hell", Framing::Length(5), 2, true), Err(BodyFault::Truncated));
        assert_eq!(run(b"hello", Framing::UntilClose, 2, true), Ok((b"hello".to_vec(), 0, vec![])));
        assert_eq!(run(b"x", Framing::None, 1, true), Ok((vec![], 0, b"x".to_vec())));
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(input in prop::collection::vec(prop::sample::select(&b"01aA\r\n;: x"[..]), 0..40), step in 1usize..7) {
            let whole = run(&input, Framing::Chunked, input.len(), true);
            let split = run(&input, Framing::Chunked, step, true);
            prop_assert_eq!(whole.is_ok(), split.is_ok());
            if let (Ok(a), Ok(b)) = (whole, split) {
                prop_assert_eq!(a, b);
            }
        }

        #[test]
        fn what_is_encoded_comes_back(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6), step in 1usize..50) {
            let mut wire = Vec::new();
            for p in &pieces {
                wire.extend_from_slice(format!("{:x}\r\n", p.len()).as_bytes());
                wire.extend_from_slice(p);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(run(&wire, Framing::Chunked, step, true), Ok((pieces.concat(), 0, vec![])));
        }
    }
}
