mod decoder;
mod encoder;
pub(crate) mod header;
pub(crate) mod huffman;
mod packed;
mod table;

#[cfg(test)]
mod test;

pub(crate) use self::decoder::FrozenDecoder;
pub use self::decoder::{Decoder, DecoderError, NeedMore};
pub use self::encoder::Encoder;
pub(crate) use self::encoder::FrozenEncoder;
pub use self::header::{BytesStr, Header};
