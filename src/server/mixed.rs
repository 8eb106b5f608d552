//! Rewrites the references of responses, for sites that have it: on their way from the upstream, so that a cache stores
//! what clients get. The rules are fixed for a site, so a stored page needs nothing more.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use http::StatusCode;

use super::asked::Turn;
use super::rewritten::RewrittenCount;
use super::snapshot::SiteOfView;
use super::worker::Worker;
use crate::compression::decoders;
use crate::filter::head::{Unchanged, changed, has_directive, may_change_response, weaken};
use crate::filter::{BodyFilter, FilterFault, Step};
use crate::message::{Framing, RequestHead, ResponseHead};
use crate::mixed::media::{NotRewritten, RewriteKind, is_policy_with_hashes, kind_of, may_be_rewritten, names_hashes};
use crate::mixed::policy::RewriteRules;
use crate::mixed::{OwnNames, Rewriter, fields};
use crate::policy::redirect::HttpsPorts;
use crate::site::Site;
use crate::telemetry::Counters;
use crate::upstream::ResponseBody;

/// The decision about the rewriting of a response: the kind of its body, or the reason why it stays.
pub(super) type Rewriting = Result<RewriteKind, &'static str>;

/// Returns the rules of a site that has references rewritten.
fn rules(site: &Site) -> Option<&RewriteRules> {
    site.mixed.as_ref()?.rewrites.as_ref()
}

/// Decides about the body of a response; `None` if its site has nothing rewritten.
pub(super) fn decision(site: &Site, request: &RequestHead, response: &ResponseHead) -> Option<Rewriting> {
    Some(judge(rules(site)?, request, response))
}

fn judge(rules: &RewriteRules, request: &RequestHead, response: &ResponseHead) -> Rewriting {
    let kind = kind_of(response, rules.types).map_err(NotRewritten::text)?;
    may_change_response(response).map_err(Unchanged::words)?;
    if request.websocket {
        return Err("the connection changes its protocol");
    }
    if has_directive(&request.fields, b"no-transform") {
        return Err("Cache-Control of the request has no-transform");
    }
    Ok(kind)
}

/// Does so for an answer, and notes the number of references in its body.
pub(super) fn answer(
    parts: (&mut ResponseHead, ResponseBody),
    turn: &Turn<'_>,
    site: &SiteOfView,
    https: HttpsPorts<'_>,
) -> ResponseBody {
    let count = || Some(turn.asked.rewritten.get_or_init(RewrittenCount::default).clone());
    rewrite_references(parts, turn.head, site, https, &turn.context.worker, count)
}

/// Rewrites the fields of a response, and has its body rewritten. `count` counts the references in it.
pub(super) fn rewrite_references(
    (response, body): (&mut ResponseHead, ResponseBody),
    request: &RequestHead,
    site: &SiteOfView,
    https: HttpsPorts<'_>,
    worker: &Worker,
    count: impl FnOnce() -> Option<RewrittenCount>,
) -> ResponseBody {
    let Some(rules) = rules(site) else { return body };
    if response.status == StatusCode::NOT_MODIFIED && may_be_rewritten(request.target_bytes()) {
        // The client has the rewritten body, whose tag is weak.
        weaken(&mut response.fields);
    }
    let names = OwnNames::new(rules.names.clone(), request.host(), https.of_client(request.port()));
    fields::rewrite(&mut response.fields, request.fields.value_of(b"origin"), &names);
    let Ok(kind) = judge(rules, request, response) else { return body };
    let Ok(decoders) = decoders(&response.fields) else {
        worker.warn_seldom(site.index(), "references", || {
            let hint = "let the upstream compress with gzip, Brotli or zstd, or not at all";
            tracing::warn!(site = site.label(), hint, "references stay: the content coding is unknown");
        });
        return body;
    };
    // The site's rules add their fields later.
    let added = || site.response.added.iter();
    let keeps_inline =
        names_hashes(response) || added().any(|(name, value)| is_policy_with_hashes(name.as_bytes(), value));
    if let (Some(mixed), Some(tag)) = (&site.mixed, response.fields.value_of(b"etag")) {
        mixed.tags.note(tag.starts_with(b"W/"));
    }
    let framing = response.framing;
    changed(response);
    if framing == Framing::UntilClose {
        // Nobody knows whether it is whole.
        response.framing = framing;
    }
    response.fields.remove_if(|_, name, _| name.eq_ignore_ascii_case(b"content-encoding"));
    if matches!(body, ResponseBody::Empty) {
        return body;
    }
    let body = decoders.into_iter().fold(body, ResponseBody::filtered);
    let filter = ReferenceFilter {
        rewriter: Rewriter::new(kind, names, keeps_inline),
        counted: 0,
        counters: worker.counters.clone(),
        count: count(),
    };
    body.filtered(Box::new(filter))
}

/// The rewriting as a filter. It never fails, and a pause of the upstream holds back only what is not complete.
struct ReferenceFilter {
    rewriter: Rewriter,
    counted: u64,
    counters: Arc<Counters>,
    count: Option<RewrittenCount>,
}

impl ReferenceFilter {
    fn note(&mut self) {
        let all = self.rewriter.references();
        let new = all - std::mem::replace(&mut self.counted, all);
        if new > 0 {
            self.counters.references_rewritten.add(new);
            if let Some(count) = &self.count {
                count.set(count.get() + new);
            }
        }
    }
}

impl BodyFilter for ReferenceFilter {
    fn push(&mut self, input: &mut Bytes, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        self.rewriter.push(input, out);
        input.advance(input.len());
        self.note();
        Ok(Step::Done)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
        self.rewriter.finish(out);
        self.note();
        Ok(Step::Done)
    }
}
