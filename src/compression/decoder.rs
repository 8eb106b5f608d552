//! Decoders of bodies that an upstream has compressed: bounded, and strict about the end.

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use bytes::{Buf as _, Bytes};
use flate2::{Decompress, FlushDecompress, Status};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::coding::Coding;
use crate::filter::{BodyFilter, FilterFault, OUT_STEP, Step};
use crate::message::{Fields, tokens};

/// The largest window of zstd, by its exponent: 8 MiB (RFC 9659).
const ZSTD_WINDOW_MAX: u32 = 23;
/// The window of gzip, by its exponent.
const GZIP_WINDOW: u8 = 15;
/// The most codings of one body.
const CODINGS_MAX: usize = 2;
/// A body that is larger than this, in bytes, and grows by more than this factor, is an attack.
const GROWTH_FREE: u64 = 16 << 20;
const GROWTH_MAX: u64 = 250;
/// Room for output that is made at once.
const ROOM: usize = 32 * 1024;

const DAMAGED: FilterFault = FilterFault("content coding: damaged body");
const CUT_SHORT: FilterFault = FilterFault("content coding: body cut short");
const GROWS: FilterFault = FilterFault("content coding: body grows too much");

/// A body that pintle cannot decode: its coding is unknown, or there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecodable;

/// Returns the decoders of a body, in the order in which it passes them; none if it has no coding.
///
/// # Errors
///
/// [`Undecodable`]
pub fn decoders(fields: &Fields) -> Result<Vec<Box<dyn BodyFilter>>, Undecodable> {
    let lists = fields.values_of(b"content-encoding");
    let names = lists.flat_map(tokens).filter(|name| !name.eq_ignore_ascii_case(b"identity"));
    let codings: Option<Vec<Coding>> = names.map(Coding::of).collect();
    let codings = codings.filter(|codings| codings.len() <= CODINGS_MAX).ok_or(Undecodable)?;
    // The last coding was applied last (RFC 9110 section 8.4).
    codings.into_iter().rev().map(|coding| decoder(coding).ok_or(Undecodable)).collect()
}

/// Returns a decoder. `None` if there is no memory for it.
#[must_use]
pub fn decoder(coding: Coding) -> Option<Box<dyn BodyFilter>> {
    let decoder = match coding {
        Coding::Gzip => Decoder::Gzip { state: Decompress::new_gzip(GZIP_WINDOW), is_over: false },
        Coding::Brotli => {
            let alloc = StandardAlloc::default;
            Decoder::Brotli { state: Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())), is_over: false }
        }
        Coding::Zstd => {
            let mut context = DCtx::try_create()?;
            context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_MAX)).ok()?;
            Decoder::Zstd { context, is_over: true }
        }
    };
    Some(Box::new(BoundedDecoder { decoder, taken: 0, written: 0 }))
}

/// A decoder, and `true` once a body could end here.
enum Decoder {
    Gzip { state: Decompress, is_over: bool },
    Brotli { state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>, is_over: bool },
    Zstd { context: DCtx<'static>, is_over: bool },
}

impl Decoder {
    /// Takes some input, and writes some output. Returns the number of bytes taken, and `true` if there may be more output for
    /// them.
    fn run(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), FilterFault> {
        match self {
            Self::Gzip { state, is_over } => gunzip(state, is_over, input, out),
            // What follows the end is no part of the body.
            Self::Brotli { is_over: true, .. } => Ok((input.len(), false)),
            Self::Brotli { state, is_over } => unbrotli(state, is_over, input, out),
            Self::Zstd { context, is_over } => unzstd(context, is_over, input, out),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Gzip { is_over, .. } | Self::Brotli { is_over, .. } | Self::Zstd { is_over, .. } => *is_over,
        }
    }
}

fn gunzip(
    state: &mut Decompress,
    is_over: &mut bool,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(usize, bool), FilterFault> {
    if *is_over {
        // Another member (RFC 1952 section 2.2). What follows otherwise is no part of the body.
        if !input.starts_with(&[0x1f]) {
            return Ok((input.len(), false));
        }
        (*state, *is_over) = (Decompress::new_gzip(GZIP_WINDOW), false);
    }
    out.reserve(ROOM);
    let (before, written) = (state.total_in(), state.total_out());
    let status = state.decompress_vec(input, out, FlushDecompress::None).map_err(|_| DAMAGED)?;
    *is_over = status == Status::StreamEnd;
    let taken = usize::try_from(state.total_in() - before).map_err(|_| DAMAGED)?;
    // Room is left unless there is more to write.
    let is_full = out.len() == out.capacity() && state.total_out() > written;
    Ok((taken, is_full && !*is_over))
}

fn unbrotli(
    state: &mut BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    is_over: &mut bool,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(usize, bool), FilterFault> {
    let at = out.len();
    out.resize(at + ROOM, 0);
    let (mut left, mut taken, mut room, mut written) = (input.len(), 0, ROOM, 0);
    let target = &mut out[at..];
    let total = &mut 0;
    let result = BrotliDecompressStream(&mut left, &mut taken, input, &mut room, &mut written, target, total, state);
    out.truncate(at + written.min(ROOM));
    match result {
        BrotliResult::ResultFailure => Err(DAMAGED),
        BrotliResult::ResultSuccess => {
            *is_over = true;
            Ok((taken, false))
        }
        // Some of the output may have found no room.
        BrotliResult::NeedsMoreInput => Ok((taken, written >= ROOM)),
        BrotliResult::NeedsMoreOutput => Ok((taken, true)),
    }
}

fn unzstd(
    context: &mut DCtx<'static>,
    is_over: &mut bool,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(usize, bool), FilterFault> {
    out.reserve(ROOM);
    let at = out.len();
    let mut source = InBuffer::around(input);
    let mut output = OutBuffer::around_pos(out, at);
    let left = context.decompress_stream(&mut output, &mut source).map_err(|_| DAMAGED)?;
    *is_over = left == 0;
    let is_full = output.pos() == output.capacity();
    Ok((source.pos(), is_full && left > 0))
}

/// A decoder whose output is bounded.
struct BoundedDecoder {
    decoder: Decoder,
    taken: u64,
    written: u64,
}

impl BodyFilter for BoundedDecoder {
    fn push(&mut self, input: &mut Bytes, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        let begin = out.len();
        loop {
            let before = out.len();
            let (taken, more) = self.decoder.run(input, out)?;
            input.advance(taken);
            self.taken += taken as u64;
            self.written += (out.len() - before) as u64;
            if self.written > GROWTH_FREE && self.written / self.taken.max(1) > GROWTH_MAX {
                return Err(GROWS);
            }
            if input.is_empty() && !more {
                return Ok(Step::Done);
            }
            if out.len() - begin >= OUT_STEP {
                return Ok(if more { Step::More } else { Step::Done });
            }
            if taken == 0 && out.len() == before {
                return Err(DAMAGED);
            }
        }
    }

    fn finish(&mut self, _: &mut Vec<u8>) -> Result<Step, FilterFault> {
        if self.decoder.is_over() || self.taken == 0 { Ok(Step::Done) } else { Err(CUT_SHORT) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoder::{Effort, encode};
    use super::*;
    use proptest::prelude::*;

    fn decode(coding: Coding, bytes: &[u8], size: usize) -> Result<Vec<u8>, FilterFault> {
        let mut decoder = decoder(coding).unwrap();
        let mut all = Vec::new();
        for piece in bytes.chunks(size.max(1)) {
            let mut piece = Bytes::copy_from_slice(piece);
            loop {
                let mut out = Vec::new();
                let step = decoder.push(&mut piece, &mut out)?;
                assert!(out.len() <= 2 * (OUT_STEP + ROOM), "{}", out.len());
                all.extend_from_slice(&out);
                if piece.is_empty() && step == Step::Done {
                    break;
                }
            }
        }
        while decoder.finish(&mut all)? == Step::More {}
        Ok(all)
    }

    proptest! {
        #[test]
        fn bodies_come_back(
            body in proptest::collection::vec(0u8..8, 0..50_000),
            coding in 0usize..3,
            size in 1usize..5000,
        ) {
            let (coding, body) = (Coding::ALL[coding], Bytes::from(body));
            let coded = encode(coding, Effort::Usual, &body).unwrap();
            prop_assert_eq!(decode(coding, &coded, size).unwrap(), &body[..]);
        }

        /// A body that is cut short is noticed, and damage never ends in a panic.
        #[test]
        fn damage(coding in 0usize..3, cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>()) {
            let coding = Coding::ALL[coding];
            let body = Bytes::from((0..20_000_u32).flat_map(|n| n.wrapping_mul(n).to_string().into_bytes()).collect::<Vec<u8>>());
            let coded = encode(coding, Effort::Usual, &body).unwrap();
            let at = cut.index(coded.len() - 1) + 1;
            prop_assert!(decode(coding, &coded[..at], 1000).is_err(), "{:?} {}", coding, at);
            let mut damaged = coded.clone();
            damaged[flip.index(coded.len())] ^= 0x20;
            let _ = decode(coding, &damaged, 1000);
        }
    }

    #[test]
    fn bombs_members_and_lists() {
        let zeros = Bytes::from(vec![0; 64 << 20]);
        for coding in Coding::ALL {
            let coded = encode(coding, Effort::Usual, &zeros).unwrap();
            assert_eq!(decode(coding, &coded, 4096), Err(GROWS), "{coding:?}");
            assert!(decode(coding, b"no such body, not at all", 100).is_err(), "{coding:?}");
            assert_eq!(decode(coding, b"", 1), Ok(Vec::new()));
        }
        let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
        let member = |body| encode(Coding::Gzip, Effort::Usual, body).unwrap();
        assert_eq!(decode(Coding::Gzip, &[member(&one), member(&two)].concat(), 7).unwrap(), b"onetwo");
        let count = |value: &str| {
            let mut fields = Fields::default();
            fields.push(b"Content-Encoding", value.as_bytes());
            decoders(&fields).map(|all| all.len())
        };
        for (value, want) in [
            ("gzip", Ok(1)),
            ("x-gzip, BR", Ok(2)),
            ("identity", Ok(0)),
            ("", Ok(0)),
            ("gzip, gzip, gzip", Err(Undecodable)),
            ("deflate", Err(Undecodable)),
            ("dcb", Err(Undecodable)),
        ] {
            assert_eq!(count(value), want, "{value}");
        }
        assert_eq!(decoders(&Fields::default()).map(|all| all.len()), Ok(0));
    }
}
