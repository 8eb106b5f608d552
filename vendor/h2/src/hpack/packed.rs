use super::Header;

use bytes::{Buf, Bytes};

/// The entries of a dynamic table, the oldest one first, in one allocation.
#[derive(Debug)]
pub(super) struct Packed(Box<[u8]>);

impl Packed {
    pub fn new<'a>(entries: impl Iterator<Item = &'a Header> + Clone) -> Packed {
        fn parts(entry: &Header) -> [Vec<u8>; 2] {
            [entry.name().as_slice().to_vec(), entry.value_slice().to_vec()]
        }
        let len = entries
            .clone()
            .flat_map(parts)
            .map(|part| 4 + part.len())
            .sum();
        let mut packed = Vec::with_capacity(len);
        for part in entries.flat_map(parts) {
            packed.extend_from_slice(&(part.len() as u32).to_be_bytes());
            packed.extend_from_slice(&part);
        }
        Packed(packed.into_boxed_slice())
    }

    pub fn unpack(self) -> impl Iterator<Item = Header> {
        let mut rest = Bytes::from(self.0);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let mut part = || {
                let len = rest.get_u32() as usize;
                rest.split_to(len)
            };
            let (name, value) = (part(), part());
            let entry = Header::new(name, value).expect("it was a header before");
            Some(entry.detached())
        })
    }
}
