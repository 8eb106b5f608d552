//! Answers from stored responses: whole, in part, or 304.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};

use super::super::asked::Turn;
use super::super::cache_note::CacheNote;
use super::super::reply::Reply;
use super::super::rewritten::may_rewrite;
use super::super::why::Why;
use crate::cache::conditional::{self, ConditionOutcome};
use crate::cache::page::StoredResponse;
use crate::cache::range::{RequestedRange, wanted};
use crate::cache::stored_head::StoredHead;
use crate::message::{Fields, Framing, ResponseHead};
use crate::mixed::request::WholeRequest;
use crate::upstream::ResponseBody;

/// Fields of a stored response that its 304 repeats (RFC 9110 section 15.4.5).
const OF_304: [&[u8]; 6] = [b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary"];

/// The most bytes of an answer with several parts. It is a copy of its own, which no limit counts. Beyond, the whole body
/// is sent, which is shared.
const SEVERAL_PARTS_MAX: u64 = 64 << 10;

/// Answers with a stored response, and notes the hit.
pub(super) fn hit(turn: &Turn<'_>, stored: &StoredResponse, detail: Option<&'static str>) -> Reply {
    let clock = stored.head.clock(turn.context.worker.clock.uptime());
    whole(turn, stored, CacheNote::hit(clock.left(), detail))
}

/// Answers with a stored response: with the whole, a part of it, or 304, as the request's conditions say.
pub(super) fn whole(turn: &Turn<'_>, stored: &StoredResponse, note: CacheNote) -> Reply {
    let request = turn.head;
    if let Some(reply) = not_modified(turn, &stored.head, note) {
        return reply;
    }
    let head = &stored.head;
    let is_ranged = head.status == StatusCode::OK && request.method == Method::GET;
    if is_ranged && let Some(range) = request.fields.value_of(b"range") {
        let now = head.now(turn.context.worker.clock.uptime());
        if conditional::range_counts(&request.fields, head.validators(), now) {
            match wanted(range, stored.body.len() as u64) {
                RequestedRange::Whole => {}
                RequestedRange::Parts(parts) if parts.len() > 1 && bytes_of(&parts) > SEVERAL_PARTS_MAX => {}
                RequestedRange::Unsatisfiable => return unsatisfiable(turn, stored, note),
                RequestedRange::Parts(parts) => return partial(turn, stored, &parts, note),
            }
        }
    }
    let mut fields = head.client_fields();
    if request.method == Method::HEAD && head.status != StatusCode::NO_CONTENT {
        fields.push(b"Content-Length", itoa::Buffer::new().format(stored.body.len()).as_bytes());
    }
    let framing = Framing::Length(stored.body.len() as u64);
    let reply = finish(turn, head, (head.status, framing, fields), ResponseBody::stored(stored.body.clone()), note);
    Reply { stored: Some(stored.number), ..reply }
}

/// Answers with a response whose body is still under way.
pub(super) fn streamed(
    turn: &Turn<'_>,
    head: &StoredHead,
    length: Option<u64>,
    body: ResponseBody,
    note: CacheNote,
) -> Reply {
    if let Some(reply) = not_modified(turn, head, note) {
        return reply;
    }
    let framing = length.map_or(Framing::Chunked, Framing::Length);
    finish(turn, head, (head.status, framing, head.client_fields()), body, note)
}

/// Answers 304, if the request's condition says so.
pub(super) fn not_modified(turn: &Turn<'_>, head: &StoredHead, note: CacheNote) -> Option<Reply> {
    let request = turn.head;
    if !conditional::has_conditions(&request.fields) {
        return None;
    }
    let now = head.now(turn.context.worker.clock.uptime());
    let is_modified = head.status != StatusCode::OK
        || is_from_before_rewriting(turn, head)
        || conditional::evaluate(&request.method, &request.fields, head.validators(), now) == ConditionOutcome::Whole;
    if is_modified {
        return None;
    }
    let mut fields = Fields::default();
    for (name, value) in head.fields.iter() {
        if OF_304.iter().any(|kept| name.eq_ignore_ascii_case(kept)) {
            fields.push(name, value);
        }
    }
    let parts = (StatusCode::NOT_MODIFIED, Framing::None, fields);
    Some(finish(turn, head, parts, ResponseBody::Empty, note))
}

/// `true` if the client's copy is one from before the rewriting: its tag is strong, and that of a rewritten body is weak.
fn is_from_before_rewriting(turn: &Turn<'_>, head: &StoredHead) -> bool {
    let site = turn.asked.site.as_ref();
    site.is_some_and(|site| may_rewrite(site, turn.head))
        && head.fields.value_of(b"etag").is_some_and(|tag| tag.starts_with(b"W/"))
        && WholeRequest::of(turn.head) == WholeRequest::Anew
}

fn bytes_of(parts: &[Range<u64>]) -> u64 {
    parts.iter().map(|part| part.end - part.start).fold(0, u64::saturating_add)
}

fn unsatisfiable(turn: &Turn<'_>, stored: &StoredResponse, note: CacheNote) -> Reply {
    let mut fields = Fields::default();
    fields.push(b"Content-Range", format!("bytes */{}", stored.body.len()).as_bytes());
    let parts = (StatusCode::RANGE_NOT_SATISFIABLE, Framing::Length(0), fields);
    finish(turn, &stored.head, parts, ResponseBody::Empty, note)
}

fn partial(turn: &Turn<'_>, stored: &StoredResponse, parts: &[Range<u64>], note: CacheNote) -> Reply {
    let (head, length) = (&stored.head, stored.body.len());
    let slice = |part: &Range<u64>| {
        let at = |n: u64| usize::try_from(n).unwrap_or(length).min(length);
        stored.body.slice(at(part.start)..at(part.end))
    };
    let range = |part: &Range<u64>| format!("bytes {}-{}/{length}", part.start, part.end - 1);
    let mut fields = Fields::default();
    let body = match parts {
        [part] => {
            fields = head.client_fields();
            fields.push(b"Content-Range", range(part).as_bytes());
            slice(part)
        }
        parts => {
            let kind = head.fields.value_of(b"content-type");
            for (_, name, value) in
                head.client_fields().iter().filter(|(_, name, _)| !name.eq_ignore_ascii_case(b"content-type"))
            {
                fields.push(name, value);
            }
            let boundary = boundary();
            fields.push(b"Content-Type", format!("multipart/byteranges; boundary={boundary}").as_bytes());
            multipart(&boundary, parts.iter().map(|part| (range(part), slice(part))), kind)
        }
    };
    let framing = Framing::Length(body.len() as u64);
    finish(turn, head, (StatusCode::PARTIAL_CONTENT, framing, fields), ResponseBody::stored(body), note)
}

/// Answers with a range of a response of which parts are stored. `at` is its place in the body of parts.
pub(super) fn part_of_parts(
    turn: &Turn<'_>,
    stored: &StoredResponse,
    (range, total): (&Range<u64>, u64),
    at: Range<usize>,
) -> Reply {
    let mut fields = stored.head.client_fields();
    fields.push(b"Content-Range", format!("bytes {}-{}/{total}", range.start, range.end - 1).as_bytes());
    let body = stored.body.slice(at);
    let clock = stored.head.clock(turn.context.worker.clock.uptime());
    let parts = (StatusCode::PARTIAL_CONTENT, Framing::Length(body.len() as u64), fields);
    finish(turn, &stored.head, parts, ResponseBody::stored(body), CacheNote::hit(clock.left(), None))
}

/// A boundary for multipart/byteranges that nobody can know when they write a body.
fn boundary() -> String {
    let mut random = [0; 16];
    // Without random bytes it is a known one; parts state their lengths all the same.
    let _ = aws_lc_rs::rand::fill(&mut random);
    format!("pintle-{:032x}", u128::from_ne_bytes(random))
}

/// Writes several parts of a body (RFC 9110 section 14.6).
fn multipart(boundary: &str, parts: impl Iterator<Item = (String, Bytes)>, kind: Option<&[u8]>) -> Bytes {
    let mut body = BytesMut::new();
    for (range, data) in parts {
        body.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        if let Some(kind) = kind {
            body.extend_from_slice(b"Content-Type: ");
            body.extend_from_slice(kind);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("Content-Range: {range}\r\n\r\n").as_bytes());
        body.extend_from_slice(&data);
    }
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    body.freeze()
}

/// Makes the reply, with Age and Cache-Status, and notes it for the record.
fn finish(
    turn: &Turn<'_>,
    head: &StoredHead,
    (status, framing, mut fields): (StatusCode, Framing, Fields),
    body: ResponseBody,
    mut note: CacheNote,
) -> Reply {
    let Turn { head: request, asked, context, .. } = *turn;
    if note.status.forwarded.is_some() && note.status.forwarded_status.is_none() && status != head.status {
        note.status.forwarded_status = Some(head.status.as_u16());
    }
    let age = head.clock(context.worker.clock.uptime()).age;
    fields.push(b"Age", itoa::Buffer::new().format(age).as_bytes());
    fields.push(b"Cache-Status", note.status.member().as_bytes());
    asked.cache.set(Some(note));
    let site = asked.site.as_ref();
    Reply {
        site: site.cloned(),
        secure: true,
        noted: asked.names_host,
        pinned: site.is_some_and(|site| context.may_pin(site, request)),
        forwarded: true,
        vary: asked.origin.vary(),
        why: Why::default(),
        ..Reply::local(
            ResponseHead { status, framing, fields, keep_alive: true },
            if request.method == Method::HEAD { ResponseBody::Empty } else { body },
        )
    }
}
