//! The encoders. Each has a window that bounds its memory, and that of the client.

use std::cell::RefCell;

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{
    BrotliEncoderDestroyInstance, BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct,
};
use brotli::enc::interface::{PredictionModeContextMap, StaticCommand};
use brotli::{InputPair, InputReferenceMut};
use bytes::{Buf as _, Bytes};
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use super::coding::Coding;
use crate::filter::{BodyFilter, FilterFault, OUT_STEP, Step};

/// The windows by their exponents: the bytes that an encoder looks back, and that a decoder keeps. zstd must stay below 8 MiB
/// (RFC 9659), and Brotli below 16 MiB. Smaller ones save memory here.
const ZSTD_WINDOW: u32 = 18;
const BROTLI_WINDOW: u32 = 18;
const KEPT_WINDOW: u32 = 20;
const GZIP_WINDOW: u8 = 15;
/// Room for output that is made at once.
const ROOM: usize = 16 * 1024;
/// Encoders of a kind that a thread keeps. Making one costs more than a small body does.
const SPARE_MAX: usize = 2;

/// The effort of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Little: the worker is busy.
    Fast,
    /// For a body that is sent once.
    Usual,
    /// For a body that is kept, and sent many times.
    Kept,
}

impl Effort {
    /// The levels: of gzip from 1 to 9, of zstd from 1 to 22, of Brotli from 0 to 11.
    fn level(self, coding: Coding) -> u32 {
        match (coding, self) {
            (Coding::Gzip, Self::Fast) => 1,
            (Coding::Gzip, Self::Usual) => 5,
            (Coding::Gzip, Self::Kept) => 7,
            (Coding::Zstd, Self::Fast) => 1,
            (Coding::Zstd, Self::Usual) => 3,
            (Coding::Zstd, Self::Kept) => 9,
            (Coding::Brotli, Self::Fast) => 2,
            (Coding::Brotli, Self::Usual) => 4,
            (Coding::Brotli, Self::Kept) => 6,
        }
    }

    fn window(self, coding: Coding) -> u32 {
        match (self, coding) {
            (Self::Kept, _) => KEPT_WINDOW,
            (_, Coding::Zstd) => ZSTD_WINDOW,
            (_, Coding::Brotli | Coding::Gzip) => BROTLI_WINDOW,
        }
    }
}

thread_local! {
    static SPARE_ZSTD: RefCell<Vec<CCtx<'static>>> = const { RefCell::new(Vec::new()) };
    static SPARE_GZIP: RefCell<Vec<(u32, Compress)>> = const { RefCell::new(Vec::new()) };
}

/// Returns an encoder. `length` is that of the body in bytes, if it is known. `None` if there is no memory for it.
#[must_use]
pub fn encoder(coding: Coding, effort: Effort, length: Option<u64>) -> Option<Box<dyn BodyFilter>> {
    Some(match coding {
        Coding::Zstd => Box::new(ZstdEncoder::new(effort, length)?),
        Coding::Brotli => Box::new(BrotliEncoder::new(effort, length)),
        Coding::Gzip => Box::new(GzipEncoder::new(effort)),
    })
}

/// Compresses a whole body. `None` if that fails.
#[must_use]
pub fn encode(coding: Coding, effort: Effort, body: &Bytes) -> Option<Vec<u8>> {
    let mut encoder = encoder(coding, effort, Some(body.len() as u64))?;
    let (mut input, mut out) = (body.clone(), Vec::with_capacity(body.len() / 3 + 64));
    loop {
        let step = encoder.push(&mut input, &mut out).ok()?;
        if input.is_empty() && step == Step::Done {
            break;
        }
    }
    while encoder.finish(&mut out).ok()? == Step::More {}
    Some(out)
}

struct ZstdEncoder {
    effort: Effort,
    /// `None` once it was given back.
    context: Option<CCtx<'static>>,
}

const ZSTD_FAILED: FilterFault = FilterFault("zstd failed");

impl ZstdEncoder {
    fn new(effort: Effort, length: Option<u64>) -> Option<Self> {
        let mut context = SPARE_ZSTD.with_borrow_mut(Vec::pop).or_else(CCtx::try_create)?;
        context.reset(ResetDirective::SessionAndParameters).ok()?;
        let level = i32::try_from(effort.level(Coding::Zstd)).ok()?;
        context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
        context.set_parameter(CParameter::WindowLog(effort.window(Coding::Zstd))).ok()?;
        context.set_pledged_src_size(length).ok()?;
        Some(Self { effort, context: Some(context) })
    }

    /// Returns the number of bytes taken, and those that are left to write; for the flush and the end only.
    fn run(&mut self, input: &[u8], out: &mut Vec<u8>, how: ZSTD_EndDirective) -> Result<(usize, usize), FilterFault> {
        let context = self.context.as_mut().ok_or(ZSTD_FAILED)?;
        out.reserve(ROOM);
        let at = out.len();
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around_pos(out, at);
        let left = context.compress_stream2(&mut output, &mut input, how).map_err(|_| ZSTD_FAILED)?;
        Ok((input.pos(), left))
    }
}

impl BodyFilter for ZstdEncoder {
    fn push(&mut self, input: &mut Bytes, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        let written = out.len();
        while !input.is_empty() && out.len() - written < OUT_STEP {
            let (taken, _) = self.run(input, out, ZSTD_EndDirective::ZSTD_e_continue)?;
            input.advance(taken);
        }
        Ok(Step::Done)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        let (_, left) = self.run(&[], out, ZSTD_EndDirective::ZSTD_e_flush)?;
        Ok(if left > 0 { Step::More } else { Step::Done })
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        let (_, left) = self.run(&[], out, ZSTD_EndDirective::ZSTD_e_end)?;
        Ok(if left > 0 { Step::More } else { Step::Done })
    }
}

impl Drop for ZstdEncoder {
    fn drop(&mut self) {
        // The tables of the highest effort are too large to be kept.
        let Some(context) = self.context.take().filter(|_| self.effort != Effort::Kept) else { return };
        let _ = SPARE_ZSTD.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(context);
            }
        });
    }
}

struct GzipEncoder {
    level: u32,
    /// `None` once it was given back.
    state: Option<Compress>,
}

const GZIP_FAILED: FilterFault = FilterFault("gzip failed");

impl GzipEncoder {
    fn new(effort: Effort) -> Self {
        let level = effort.level(Coding::Gzip);
        let spare = SPARE_GZIP.with_borrow_mut(|spare| {
            let at = spare.iter().position(|(own, _)| *own == level)?;
            Some(spare.swap_remove(at).1)
        });
        let state = match spare {
            Some(mut state) => {
                state.reset();
                state
            }
            None => Compress::new_gzip(Compression::new(level), GZIP_WINDOW),
        };
        Self { level, state: Some(state) }
    }

    fn run(&mut self, input: &[u8], out: &mut Vec<u8>, how: FlushCompress) -> Result<(usize, Status), FilterFault> {
        let state = self.state.as_mut().ok_or(GZIP_FAILED)?;
        out.reserve(ROOM);
        let before = state.total_in();
        let status = state.compress_vec(input, out, how).map_err(|_| GZIP_FAILED)?;
        let taken = usize::try_from(state.total_in() - before).map_err(|_| GZIP_FAILED)?;
        Ok((taken, status))
    }
}

impl BodyFilter for GzipEncoder {
    fn push(&mut self, input: &mut Bytes, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        let written = out.len();
        while !input.is_empty() && out.len() - written < OUT_STEP {
            let (taken, _) = self.run(input, out, FlushCompress::None)?;
            input.advance(taken);
        }
        Ok(Step::Done)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        self.run(&[], out, FlushCompress::Sync)?;
        // With room left, everything was written.
        Ok(if out.len() == out.capacity() { Step::More } else { Step::Done })
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        let (_, status) = self.run(&[], out, FlushCompress::Finish)?;
        Ok(if status == Status::StreamEnd { Step::Done } else { Step::More })
    }
}

impl Drop for GzipEncoder {
    fn drop(&mut self) {
        let Some(state) = self.state.take() else { return };
        let _ = SPARE_GZIP.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push((self.level, state));
            }
        });
    }
}

struct BrotliEncoder(Box<BrotliEncoderStateStruct<StandardAlloc>>);

const BROTLI_FAILED: FilterFault = FilterFault("brotli failed");

impl BrotliEncoder {
    fn new(effort: Effort, length: Option<u64>) -> Self {
        let mut state = Box::new(BrotliEncoderStateStruct::new(StandardAlloc::default()));
        state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_QUALITY, effort.level(Coding::Brotli));
        state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_LGWIN, effort.window(Coding::Brotli));
        if let Some(length) = length.and_then(|length| u32::try_from(length).ok()) {
            state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_SIZE_HINT, length);
        }
        Self(state)
    }

    fn run(&mut self, input: &[u8], out: &mut Vec<u8>, how: BrotliEncoderOperation) -> Result<usize, FilterFault> {
        let (mut left, mut taken) = (input.len(), 0);
        let mut ignored = |_: &mut PredictionModeContextMap<InputReferenceMut<'_>>,
                           _: &mut [StaticCommand],
                           _: InputPair<'_>,
                           _: &mut StandardAlloc| {};
        // The output is taken from the encoder's own buffer.
        let (none, place, total) = (&mut [][..], &mut 0, &mut None);
        let went = self.0.compress_stream(how, &mut left, input, &mut taken, &mut 0, none, place, total, &mut ignored);
        if !went {
            return Err(BROTLI_FAILED);
        }
        let mut size = 0;
        let output = self.0.take_output(&mut size);
        // What lies behind it in the encoder's buffer is of former output.
        out.extend_from_slice(output.get(..size).ok_or(BROTLI_FAILED)?);
        Ok(taken)
    }

    fn step(&self) -> Step {
        if self.0.has_more_output() { Step::More } else { Step::Done }
    }
}

impl BodyFilter for BrotliEncoder {
    fn push(&mut self, input: &mut Bytes, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        let written = out.len();
        while !input.is_empty() && out.len() - written < OUT_STEP {
            let taken = self.run(input, out, BrotliEncoderOperation::BROTLI_OPERATION_PROCESS)?;
            input.advance(taken);
        }
        Ok(Step::Done)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        self.run(&[], out, BrotliEncoderOperation::BROTLI_OPERATION_FLUSH)?;
        Ok(self.step())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        self.run(&[], out, BrotliEncoderOperation::BROTLI_OPERATION_FINISH)?;
        Ok(if self.0.is_finished() { Step::Done } else { Step::More })
    }
}

impl Drop for BrotliEncoder {
    fn drop(&mut self) {
        BrotliEncoderDestroyInstance(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::decoder::decoder;
    use super::*;
    use proptest::prelude::*;

    fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        match coding {
            Coding::Gzip => _ = flate2::read::GzDecoder::new(bytes).read_to_end(&mut all).unwrap(),
            Coding::Brotli => _ = brotli::Decompressor::new(bytes, 4096).read_to_end(&mut all).unwrap(),
            Coding::Zstd => {
                all.reserve(1 << 22);
                zstd_safe::DCtx::create().decompress(&mut all, bytes).unwrap();
            }
        }
        all
    }

    /// The part of a body that can be read from the beginning of its coded form.
    fn readable(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let (mut decoder, mut input, mut all) = (decoder(coding).unwrap(), Bytes::copy_from_slice(bytes), Vec::new());
        loop {
            let step = decoder.push(&mut input, &mut all).unwrap();
            if input.is_empty() && step == Step::Done {
                return all;
            }
        }
    }

    /// Text that compresses about as pages do.
    fn page(length: usize) -> Vec<u8> {
        let words = ["<p class=\"entry\">", "the", "reader", "of", "pages", "</p>\n", "a href=", "2026"];
        let mut seed = 7_u32;
        let mut text = Vec::new();
        while text.len() < length {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.extend_from_slice(words[(seed >> 24) as usize % words.len()].as_bytes());
            text.extend_from_slice((seed >> 20).to_string().as_bytes());
        }
        text.truncate(length);
        text
    }

    const EFFORTS: [Effort; 3] = [Effort::Fast, Effort::Usual, Effort::Kept];

    proptest! {
        /// Whatever the pieces, and wherever the source pauses, the client reads what was sent.
        #[test]
        fn decoded_bodies_are_the_same(
            pieces in proptest::collection::vec((0usize..40_000, any::<bool>(), any::<bool>()), 0..12),
            coding in 0usize..3,
            effort in 0usize..3,
            is_noise in any::<bool>(),
        ) {
            let (coding, effort) = (Coding::ALL[coding], EFFORTS[effort]);
            let length: usize = pieces.iter().map(|(length, ..)| length).sum();
            let body = match is_noise {
                true => (0..length).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect(),
                false => page(length),
            };
            let mut encoder = encoder(coding, effort, None).unwrap();
            let (mut rest, mut out) = (Bytes::from(body.clone()), Vec::new());
            for (length, flushes, checks) in pieces {
                let mut piece = rest.split_to(length);
                while !piece.is_empty() {
                    encoder.push(&mut piece, &mut out).unwrap();
                }
                if flushes {
                    while encoder.flush(&mut out).unwrap() == Step::More {}
                    if checks {
                        prop_assert_eq!(readable(coding, &out), &body[..body.len() - rest.len()]);
                    }
                }
            }
            while encoder.finish(&mut out).unwrap() == Step::More {}
            prop_assert_eq!(decode(coding, &out), body);
        }
    }

    #[test]
    fn whole_bodies() {
        for coding in Coding::ALL {
            for effort in EFFORTS {
                for length in [0, 1, 1024, 100_000] {
                    let body = Bytes::from(page(length));
                    let coded = encode(coding, effort, &body).unwrap();
                    assert_eq!(decode(coding, &coded), body);
                    assert!(
                        length < 1000 || coded.len() < length * 2 / 3,
                        "{coding:?} {effort:?} {length} {}",
                        coded.len()
                    );
                }
            }
        }
    }

    /// The guide names these limits of the memory of zstd.
    #[test]
    fn memory() {
        for (effort, most) in [(Effort::Fast, 2 << 20), (Effort::Usual, 2 << 20), (Effort::Kept, 12 << 20)] {
            let mut encoder = ZstdEncoder::new(effort, None).unwrap();
            let (mut input, mut out) = (Bytes::from(page(2 << 20)), Vec::new());
            while !input.is_empty() {
                encoder.push(&mut input, &mut out).unwrap();
            }
            let size = encoder.context.as_ref().unwrap().sizeof();
            assert!(size <= most, "{effort:?} {size}");
        }
    }

    /// Browsers refuse zstd windows above 8 MiB (RFC 9659), and save memory by smaller ones.
    #[test]
    fn windows() {
        for effort in EFFORTS {
            for length in [1024, 10 << 20] {
                for known in [None, Some(length as u64)] {
                    let mut encoder = encoder(Coding::Zstd, effort, known).unwrap();
                    let (mut input, mut out) = (Bytes::from(page(length)), Vec::new());
                    while !input.is_empty() {
                        encoder.push(&mut input, &mut out).unwrap();
                    }
                    while encoder.finish(&mut out).unwrap() == Step::More {}
                    assert!(window_of(&out) <= 1 << KEPT_WINDOW, "{effort:?} {length} {known:?}");
                }
            }
        }
    }

    /// The window that a frame declares (RFC 8878 section 3.1.1.1).
    fn window_of(frame: &[u8]) -> u64 {
        assert_eq!(frame[..4], [0x28, 0xb5, 0x2f, 0xfd]);
        let descriptor = frame[4];
        if descriptor & 0x20 == 0 {
            let (exponent, mantissa) = (frame[5] >> 3, u64::from(frame[5] & 7));
            let base = 1 << (10 + exponent);
            return base + base / 8 * mantissa;
        }
        // A single segment: the window is as large as the content.
        let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
        let bytes = &frame[5..5 + length];
        let size = bytes.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte));
        if length == 2 { size + 256 } else { size }
    }
}
