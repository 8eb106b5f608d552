//! The fields that decide about compression, and the encoders.

use bytes::Bytes;
use pintle::compression::{Coding, Effort, choose, encoder, undo};
use pintle::filter::Step;
use pintle::filter::head::{add_vary, has_directive};
use pintle::message::Fields;

fn fields(list: &[(&str, &[u8])]) -> Fields {
    let mut fields = Fields::default();
    list.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value));
    fields
}

/// A value, as each of the fields that are read, and as a body in pieces. What is refused last is never chosen, a tag is
/// undone once, a name is in Vary once, and an encoder ends.
pub fn compression(data: &[u8]) {
    let value: Vec<u8> = data.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n' | 0)).collect();
    let accept = fields(&[("Accept-Encoding", &value)]);
    if let Some(coding) = choose(&accept, &Coding::ALL) {
        let refusal = format!("{};q=0", coding.name());
        let refused = fields(&[("Accept-Encoding", &value), ("Accept-Encoding", refusal.as_bytes())]);
        assert_ne!(choose(&refused, &Coding::ALL), Some(coding));
        assert_eq!(choose(&accept, &[coding]), Some(coding));
    }
    let mut conditions = fields(&[("If-None-Match", &value), ("If-Match", &value)]);
    undo(&mut conditions);
    let mut vary = fields(&[("Vary", &value)]);
    add_vary(&mut vary, "Accept-Encoding");
    let before = vary.size();
    add_vary(&mut vary, "Accept-Encoding");
    assert_eq!(vary.size(), before);
    assert!(has_directive(&fields(&[("Cache-Control", &value), ("Cache-Control", b"no-transform")]), b"no-transform"));
    let Some((first, body)) = data.split_first() else { return };
    let coding = Coding::ALL[usize::from(*first) % Coding::ALL.len()];
    let Some(mut encoder) = encoder(coding, Effort::Fast, None) else { return };
    let mut out = Vec::new();
    for piece in body.chunks(usize::from(first >> 2) + 1).take(64) {
        let mut piece = Bytes::copy_from_slice(piece);
        while !piece.is_empty() {
            encoder.push(&mut piece, &mut out).expect("encoders take everything");
        }
        if first & 1 == 1 {
            while encoder.flush(&mut out).expect("and write it out") == Step::More {}
        }
    }
    while encoder.finish(&mut out).expect("and end") == Step::More {}
    assert!(!out.is_empty());
}
