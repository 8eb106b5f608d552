//! The filters between an answer and its client: compression, for sites that have it.

use std::rc::Rc;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::asked::{Asked, Turn};
use super::compression_note::CompressionNote;
use super::compressors::CompressorSlot;
use super::context::Context;
use super::reply::Reply;
use super::rewritten::may_rewrite;
use super::snapshot::SiteOfView;
use crate::cache::encoded::FormInMaking;
use crate::cache::profile::Cookies;
use crate::cache::store::CachePart;
use crate::compression::{
    Circumstances, Coding, CompressionRules, Effort, Identity, choose, encode, encoder, judge, judge_response,
};
use crate::filter::head::{add_vary, changed, weaken};
use crate::filter::{BodyFilter, FilterFault, Step};
use crate::message::{Fields, Framing, Name, RequestHead, content_length};
use crate::upstream::ResponseBody;

/// The largest body that is compressed in one go, in bytes. The length of its compressed form is known.
const AT_ONCE_MAX: usize = 32 * 1024;

/// The decision about the compression of a response, for `pintle explain`.
pub(super) type Compressed = Result<Coding, Identity>;

/// Puts the site's filters on an answer. Returns the decision about its compression, if the site has one.
pub(super) fn for_client(
    reply: &mut Reply,
    head: &RequestHead,
    asked: Option<&Asked>,
    context: &Context,
) -> Option<Compressed> {
    let site = reply.site.as_ref().filter(|site| site.compression.is_some() && reply.forwarded)?;
    let is_described = head.method == Method::HEAD;
    let answer = FilteredAnswer { site: &site.clone(), head, asked: asked?, context, is_described };
    answer.compress(reply)
}

/// Does to the head of an answer what [`for_client`] does. Its body is not there.
pub(super) fn described(reply: &mut Reply, turn: &Turn<'_>) -> Option<Compressed> {
    let Turn { head, asked, context, .. } = *turn;
    let site = reply.site.as_ref().filter(|site| site.compression.is_some() && reply.forwarded)?;
    FilteredAnswer { site: &site.clone(), head, asked, context, is_described: true }.compress(reply)
}

/// An answer of a site with compression.
struct FilteredAnswer<'a> {
    site: &'a SiteOfView,
    head: &'a RequestHead,
    asked: &'a Asked,
    context: &'a Context,
    /// The head describes a body that is not there: the answer to HEAD, or one that `pintle explain` supposes.
    is_described: bool,
}

impl FilteredAnswer<'_> {
    fn compress(&self, reply: &mut Reply) -> Option<Compressed> {
        let compression = self.site.compression.as_ref()?;
        let rules = &*compression.rules;
        if reply.head.status == StatusCode::NOT_MODIFIED {
            self.validate(reply, rules);
            return None;
        }
        let known = self.circumstances(reply);
        if reply.head.status == StatusCode::PARTIAL_CONTENT && is_compressible(rules, &reply.head.fields) {
            // The whole would be compressed for some clients (RFC 9110 section 15.3.7).
            add_vary(&mut reply.head.fields, "Accept-Encoding");
        }
        if let Err(why) = judge_response(rules, &reply.head, known) {
            return Some(Err(why));
        }
        // The tag of a rewritten body is weak whatever the upstream sends.
        if !may_rewrite(self.site, self.head)
            && let Some(tag) = reply.head.fields.value_of(b"etag")
        {
            compression.tags.note(tag.starts_with(b"W/"));
        }
        add_vary(&mut reply.head.fields, "Accept-Encoding");
        let coding = judge(rules, self.head, &reply.head, known);
        Some(coding.and_then(|coding| self.encode(reply, coding).map(|()| coding)))
    }

    /// Finishes a 304. It names the representation that the client has: if that was compressed, its tag is weak.
    fn validate(&self, reply: &mut Reply, rules: &CompressionRules) {
        let fields = &mut reply.head.fields;
        let is_one = is_compressible(rules, fields);
        // A date does not say which representation the client has. By a weak tag it may keep either.
        let names_none = !self.head.fields.has_field(b"if-none-match");
        let is_coded = names_none && is_one && choose(&self.head.fields, &rules.encodings).is_some();
        if self.asked.has_undone_tags || is_coded {
            weaken(fields);
        }
        if is_one {
            add_vary(fields, "Accept-Encoding");
        }
    }

    fn circumstances(&self, reply: &Reply) -> Circumstances {
        let fields = &self.head.fields;
        let profile = self.site.cache().map(|cache| cache.rules.profile).unwrap_or_default();
        let is_shared = self.asked.cache.get().is_some_and(|note| match note.part {
            CachePart::Hit | CachePart::Stale | CachePart::Validated | CachePart::Collapsed => true,
            CachePart::Miss => note.status.stored,
            CachePart::Bypass => false,
        });
        let is_personal =
            fields.has_field(b"authorization") || profile.cookies(fields.get_all(Name::Cookie)) == Cookies::Personal;
        let length = match self.is_described {
            true => content_length(&reply.head.fields).ok().flatten(),
            false => reply.length(),
        };
        Circumstances { length, is_personal, is_shared }
    }

    /// Compresses the body.
    fn encode(&self, reply: &mut Reply, coding: Coding) -> Result<(), Identity> {
        let worker = &self.context.worker;
        if self.is_described {
            mark(reply, coding, None);
            return Ok(());
        }
        let kept = reply.stored.zip(self.site.cache().and_then(|cache| cache.encoded.as_ref()));
        if let Some(body) = kept.and_then(|(number, encoded)| encoded.get(number, coding)) {
            self.note(coding, reply.length().unwrap_or_default());
            mark(reply, coding, Some(body.len()));
            reply.body = ResponseBody::stored(body);
            return Ok(());
        }
        let (most, own) = (self.asked.view.shared.limits.compressors, &self.context.entry.compressors);
        let making = kept.and_then(|(number, encoded)| encoded.begin(number, coding));
        let effort = worker.compressors.effort(most, own, making.is_some(), is_small(&reply.body));
        let Some(effort) = effort else {
            worker.limit_reached("compressors");
            return Err(Identity::Busy);
        };
        let making = making.filter(|_| effort == Effort::Kept);
        let body = std::mem::replace(&mut reply.body, ResponseBody::Empty);
        match whole(body) {
            Ok(data) => {
                let Some(coded) = encode(coding, effort, &data).map(Bytes::from) else {
                    reply.body = ResponseBody::Full(data);
                    return Err(Identity::Busy);
                };
                if let Some(making) = making {
                    making.keep_whole(coded.clone());
                }
                self.note(coding, data.len() as u64);
                mark(reply, coding, Some(coded.len()));
                reply.body = ResponseBody::Full(coded);
            }
            Err(body) => {
                reply.body = body;
                let encoder = encoder(coding, effort, reply.length()).ok_or(Identity::Busy)?;
                let (note, slot) = (self.note(coding, 0), worker.compressors.begin(own));
                let filter = ClientEncoder { encoder, note, making, _slot: slot };
                mark(reply, coding, None);
                let body = std::mem::replace(&mut reply.body, ResponseBody::Empty);
                reply.body = body.filtered(Box::new(filter));
            }
        }
        Ok(())
    }

    fn note(&self, coding: Coding, before: u64) -> Rc<CompressionNote> {
        self.asked.compressed.get_or_init(|| Rc::new(CompressionNote { coding, before: before.into() })).clone()
    }
}

/// `true` if the site compresses this type, or if the head states none: that of a 304, or of several parts.
fn is_compressible(rules: &CompressionRules, fields: &Fields) -> bool {
    let is_several = |kind: &[u8]| kind.get(..10).is_some_and(|begin| begin.eq_ignore_ascii_case(b"multipart/"));
    let is_one = |kind: &[u8]| is_several(kind) || rules.types.iter().any(|one| one.matches(kind));
    fields.get(Name::ContentType).is_none_or(is_one)
}

/// Returns a small body that has come whole, or the body.
fn whole(body: ResponseBody) -> Result<Bytes, ResponseBody> {
    match body {
        ResponseBody::Full(data) | ResponseBody::Stored(data, _) if data.len() <= AT_ONCE_MAX => Ok(data),
        body => Err(body),
    }
}

fn is_small(body: &ResponseBody) -> bool {
    matches!(body, ResponseBody::Full(data) | ResponseBody::Stored(data, _) if data.len() <= AT_ONCE_MAX)
}

/// Says in a head that the body is compressed, and how long it is, if that is known.
fn mark(reply: &mut Reply, coding: Coding, length: Option<usize>) {
    changed(&mut reply.head);
    reply.head.fields.push(b"Content-Encoding", coding.name().as_bytes());
    if let Some(length) = length {
        reply.head.framing = Framing::Length(length as u64);
    }
}

/// The encoder of an answer, with what is counted and kept of it.
struct ClientEncoder {
    encoder: Box<dyn BodyFilter>,
    note: Rc<CompressionNote>,
    making: Option<FormInMaking>,
    _slot: CompressorSlot,
}

impl ClientEncoder {
    fn keep(&self, bytes: &[u8]) {
        if let Some(making) = &self.making {
            making.add(bytes);
        }
    }
}

impl BodyFilter for ClientEncoder {
    fn push(&mut self, input: &mut Bytes, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        let (before, written) = (input.len(), out.len());
        let step = self.encoder.push(input, out)?;
        self.note.before.set(self.note.before.get() + (before - input.len()) as u64);
        self.keep(&out[written..]);
        Ok(step)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        let written = out.len();
        let step = self.encoder.flush(out)?;
        self.keep(&out[written..]);
        Ok(step)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        let written = out.len();
        let step = self.encoder.finish(out)?;
        self.keep(&out[written..]);
        if let (Step::Done, Some(making)) = (step, &self.making) {
            making.keep();
        }
        Ok(step)
    }
}
