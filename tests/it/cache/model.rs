//! Random histories: what a shared cache by RFC 9111 and RFC 5861 does with them, as a short model says, and what
//! the program does. Time goes on while pintle is stopped or killed, so each history is about its disk, too.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Got;
use crate::harness::{Authority, BLOG, KeyKind, Origin, Pintle, Reply, eventually, output};

/// What the operator allows: stale pages while the origin fails, for this many seconds.
const OPERATOR: i64 = 2000;
/// Real time passes, too: no decision depends on so few seconds.
const NOISE: i64 = 100;
const PATHS: usize = 3;
const LANGUAGES: [&str; 2] = ["de", "en"];
/// The ranges that clients ask for, as curl writes them.
const RANGES: [&str; 3] = ["0-3", "4-", "-2"];

/// What an origin says about a page.
#[derive(Debug, Clone, Copy)]
struct Says {
    control: &'static str,
    /// How long it is fresh; `None` if nothing is stored.
    lifetime: Option<i64>,
    /// Each use is validated.
    no_cache: bool,
    /// A stale one is never sent.
    strict: bool,
    /// The operator's permission for stale pages counts.
    operator: bool,
    /// The origin's own one.
    if_error: Option<i64>,
    /// A stale one is sent while it is validated, for this long.
    revalidate: Option<i64>,
    /// A former page is dropped.
    drops: bool,
}

const PLAIN: Says = Says {
    control: "",
    lifetime: None,
    no_cache: false,
    strict: false,
    operator: true,
    if_error: None,
    revalidate: None,
    drops: false,
};

const SAYS: [Says; 11] = [
    PLAIN,
    Says { control: "max-age=1000", lifetime: Some(1000), ..PLAIN },
    Says { control: "public, max-age=3000", lifetime: Some(3000), ..PLAIN },
    Says { control: "max-age=1, s-maxage=2000", lifetime: Some(2000), operator: false, ..PLAIN },
    Says { control: "no-store, max-age=1000", drops: true, ..PLAIN },
    Says { control: "private, max-age=1000", drops: true, ..PLAIN },
    Says { control: "no-cache, max-age=1000", lifetime: Some(1000), no_cache: true, strict: true, ..PLAIN },
    Says { control: "max-age=0", lifetime: Some(0), ..PLAIN },
    Says { control: "max-age=1000, must-revalidate", lifetime: Some(1000), strict: true, ..PLAIN },
    Says { control: "max-age=1000, stale-if-error=9000", lifetime: Some(1000), if_error: Some(9000), ..PLAIN },
    Says { control: "max-age=400, stale-while-revalidate=2500", lifetime: Some(400), revalidate: Some(2500), ..PLAIN },
];

/// What a client asks for.
const ASKS: [&str; 7] =
    ["", "no-cache", "max-age=500", "min-fresh=1500", "max-stale=3000", "only-if-cached", "no-store"];
const STATUSES: [&str; 4] = ["200 OK", "404 Not Found", "301 Moved Permanently", "500 Oops"];

#[derive(Debug, Clone)]
enum Step {
    /// The origin has another page.
    Page {
        path: usize,
        says: usize,
        status: usize,
        varies: bool,
        tagged: bool,
    },
    Get {
        path: usize,
        language: usize,
        asks: usize,
    },
    Head {
        path: usize,
        language: usize,
    },
    Range {
        path: usize,
        language: usize,
        range: usize,
    },
    Post {
        path: usize,
    },
    Origin {
        up: bool,
    },
    Purge {
        path: usize,
        soft: bool,
    },
    /// pintle is stopped, or killed, and started so many seconds later.
    Later {
        seconds: i64,
        killed: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS;
    let status = prop_oneof![6 => Just(0usize), 1 => Just(1), 1 => Just(2), 1 => Just(3)];
    let says = prop_oneof![1 => Just(0usize), 4 => Just(1), 3 => Just(SAYS.len() - 1), 9 => 2usize..SAYS.len()];
    let asks = prop_oneof![5 => Just(0usize), 5 => 1..ASKS.len()];
    prop_oneof![
        4 => (path.clone(), says, status, any::<bool>(), any::<bool>())
            .prop_map(|(path, says, status, varies, tagged)| Step::Page { path, says, status, varies, tagged }),
        12 => (path.clone(), 0..LANGUAGES.len(), asks)
            .prop_map(|(path, language, asks)| Step::Get { path, language, asks }),
        3 => (path.clone(), 0..LANGUAGES.len()).prop_map(|(path, language)| Step::Head { path, language }),
        3 => (path.clone(), 0..LANGUAGES.len(), 0..RANGES.len())
            .prop_map(|(path, language, range)| Step::Range { path, language, range }),
        1 => path.clone().prop_map(|path| Step::Post { path }),
        2 => prop::bool::weighted(0.5).prop_map(|up| Step::Origin { up }),
        1 => (path, any::<bool>()).prop_map(|(path, soft)| Step::Purge { path, soft }),
        2 => (300i64..2500, any::<bool>()).prop_map(|(seconds, killed)| Step::Later { seconds, killed }),
    ]
}

/// A page of the origin.
#[derive(Debug, Clone, Copy)]
struct Page {
    version: usize,
    says: Says,
    status: usize,
    varies: bool,
    tagged: bool,
}

impl Page {
    fn fields(&self) -> String {
        let mut fields = String::new();
        if !self.says.control.is_empty() {
            write!(fields, "Cache-Control: {}\r\n", self.says.control).unwrap();
        }
        if self.varies {
            fields.push_str("Vary: Accept-Language\r\n");
        }
        if self.tagged {
            write!(fields, "ETag: \"v{}\"\r\n", self.version).unwrap();
        }
        if self.status == 2 {
            fields.push_str("Location: /elsewhere\r\n");
        }
        fields
    }

    fn body(&self) -> String {
        format!("version {}", self.version)
    }

    fn code(&self) -> u16 {
        STATUSES[self.status][..3].parse().unwrap()
    }

    fn tag(&self) -> Option<usize> {
        self.tagged.then_some(self.version)
    }

    /// Is it stored? Statuses beside 2xx need a stated time, and a page that is stale at once must have a validator.
    fn is_stored(&self) -> bool {
        let is_of_use = self.says.lifetime.is_some_and(|lifetime| lifetime > 0 || self.tagged);
        self.status != 3 && is_of_use
    }
}

/// A stored response.
#[derive(Debug, Clone)]
struct Kept {
    page: Page,
    /// The language that it is for; `None` for all.
    language: Option<usize>,
    at: i64,
    is_invalid: bool,
    /// The origin has failed for it: for a while, it is sent without another attempt.
    has_failed: bool,
}

impl Kept {
    /// The properties in which it differs from another response for the same requests.
    fn state(&self) -> (usize, i64, Option<usize>) {
        (self.page.version, self.at, self.language)
    }

    fn lifetime(&self) -> i64 {
        self.page.says.lifetime.unwrap_or_default()
    }

    fn is_usable_on_error(&self, now: i64) -> bool {
        let (age, says) = (now - self.at, self.page.says);
        let operator = if says.operator { OPERATOR } else { 0 };
        !says.strict
            && (age < self.lifetime() || age - self.lifetime() < says.if_error.unwrap_or_default().max(operator))
    }

    /// It is stale, and may be sent while it is validated.
    fn is_usable_meanwhile(&self, now: i64) -> bool {
        let (age, says) = (now - self.at, self.page.says);
        age >= self.lifetime() && says.revalidate.is_some_and(|window| age - self.lifetime() < window)
    }

    /// An answer to HEAD shows that the origin has another page (RFC 9111 section 4.3.5).
    fn is_contradicted_by(&self, page: &Page) -> bool {
        page.status == 0 && (self.page.tag() != page.tag() || self.page.body().len() != page.body().len())
    }

    /// The ages at which something changes.
    fn limits(&self) -> [i64; 8] {
        let lifetime = self.lifetime();
        let meanwhile = lifetime + self.page.says.revalidate.unwrap_or_default();
        [0, 500, lifetime, lifetime - 1500, lifetime + OPERATOR, lifetime + 3000, lifetime + 9000, meanwhile]
    }
}

/// The part of a page that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Head,
    Range(usize),
}

impl Part {
    /// This part of a body.
    fn of(self, body: &str) -> &str {
        match self {
            Self::Whole => body,
            Self::Head => "",
            Self::Range(0) => &body[..4],
            Self::Range(1) => &body[4..],
            Self::Range(_) => &body[body.len() - 2..],
        }
    }

    /// The value of Content-Range for this part of a body.
    fn content_range(self, body: &str) -> Option<String> {
        let length = body.len();
        let (first, last) = match self {
            Self::Whole | Self::Head => return None,
            Self::Range(0) => (0, 3),
            Self::Range(1) => (4, length - 1),
            Self::Range(_) => (length - 2, length - 1),
        };
        Some(format!("bytes {first}-{last}/{length}"))
    }
}

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// From the store, without a request to the origin.
    Stored(u16, String),
    /// From the store, and validated afterwards.
    Meanwhile(u16, String),
    /// The origin's answer.
    Asked(u16, String),
    /// A stored one that the origin has confirmed.
    Confirmed(u16, String),
    /// A stored one, since the origin fails.
    OnError(u16, String),
    /// The origin's error, or pintle's.
    Failed(u16),
}

impl Answer {
    /// The answer for a part of the page. Ranges are of stored pages: this origin sends whole ones.
    fn of(self, part: Part) -> Self {
        let ranged = |code: u16, body: String, whole: fn(u16, String) -> Self| {
            let code = if code == 200 && matches!(part, Part::Range(_)) { 206 } else { code };
            let is_cut = part == Part::Head || code == 206;
            whole(code, if is_cut { part.of(&body).to_owned() } else { body })
        };
        match self {
            Self::Stored(code, body) => ranged(code, body, Self::Stored),
            Self::Meanwhile(code, body) => ranged(code, body, Self::Meanwhile),
            Self::Confirmed(code, body) => ranged(code, body, Self::Confirmed),
            Self::OnError(code, body) => ranged(code, body, Self::OnError),
            Self::Asked(code, _) if part == Part::Head => Self::Asked(code, String::new()),
            other => other,
        }
    }
}

/// The cache that the RFCs describe.
#[derive(Debug, Default, Clone)]
struct Model {
    kept: HashMap<usize, Vec<Kept>>,
    pages: HashMap<usize, Page>,
    now: i64,
    is_down: bool,
}

impl Model {
    fn find(&self, path: usize, language: usize) -> Option<usize> {
        let kept = self.kept.get(&path)?;
        let fits = |(_, one): &(usize, &Kept)| one.language.is_none_or(|own| own == language);
        // One that names the request's field comes before one for all.
        let mut fitting: Vec<_> = kept.iter().enumerate().filter(fits).collect();
        fitting.sort_by_key(|(at, one)| (one.language.is_none(), *at));
        fitting.first().map(|(at, _)| *at)
    }

    fn get(&mut self, path: usize, language: usize, asks: usize, part: Part) -> Answer {
        let asks = ASKS[asks];
        let only = asks == "only-if-cached";
        let Some(at) = self.find(path, language) else {
            return if only { Answer::Failed(504) } else { self.ask(path, language, (asks, part), None) };
        };
        let one = self.kept[&path][at].clone();
        let (age, lifetime) = (self.now - one.at, one.lifetime());
        let stored = |answer: fn(u16, String) -> Answer| answer(one.page.code(), one.page.body());
        let insists = match asks {
            "no-cache" => true,
            "max-age=500" => age > 500,
            "min-fresh=1500" => lifetime - age < 1500,
            _ => false,
        };
        let is_sendable = !one.is_invalid && !one.page.says.no_cache;
        let may_be_stale = asks == "max-stale=3000" && !one.page.says.strict && one.page.says.operator;
        match () {
            () if is_sendable && age < lifetime && !insists => stored(Answer::Stored),
            () if is_sendable && may_be_stale && age - lifetime <= 3000 => stored(Answer::Stored),
            () if is_sendable && one.is_usable_meanwhile(self.now) && !insists => stored(Answer::Meanwhile),
            () if only => Answer::Failed(504),
            () => self.ask(path, language, (asks, part), Some(at)),
        }
    }

    /// The validation behind an answer that was sent meanwhile. Returns the response that it was for.
    fn validate(&mut self, path: usize, language: usize) -> Kept {
        let at = self.find(path, language).unwrap();
        let before = self.kept[&path][at].clone();
        if !self.is_down && self.pages[&path].status != 3 {
            self.ask(path, language, ("", Part::Whole), Some(at));
        }
        let is_same = |one: &&mut Kept| one.state() == before.state();
        // The origin has failed, or its page is not one to store.
        self.kept.entry(path).or_default().iter_mut().filter(is_same).for_each(|one| one.has_failed = true);
        before
    }

    fn ask(&mut self, path: usize, language: usize, (asks, part): (&str, Part), at: Option<usize>) -> Answer {
        let page = self.pages[&path];
        if self.is_down || page.status == 3 {
            let (now, kept) = (self.now, self.kept.entry(path).or_default());
            return match at.map(|at| &mut kept[at]).filter(|one| one.is_usable_on_error(now)) {
                Some(one) => {
                    one.has_failed = true;
                    Answer::OnError(one.page.code(), one.page.body())
                }
                None => Answer::Failed(if self.is_down { 503 } else { 500 }),
            };
        }
        let kept = self.kept.entry(path).or_default();
        let new = Kept {
            page,
            language: page.varies.then_some(language),
            at: self.now,
            is_invalid: false,
            has_failed: false,
        };
        let is_confirmed = |one: &Kept| one.page.version == page.version && page.tagged && page.status == 0;
        if at.is_some_and(|at| is_confirmed(&kept[at])) {
            // An answer to a request that says no-store is not kept.
            if asks == "no-store" {
                kept.remove(at.unwrap_or_default());
                return Answer::Confirmed(page.code(), page.body());
            }
            kept.retain(|one| one.language != new.language);
            kept.insert(0, new);
            return Answer::Confirmed(page.code(), page.body());
        }
        if part == Part::Head {
            // An answer to HEAD is not stored, but it may show that the stored page is an old one.
            if let Some(one) = at.map(|at| &mut kept[at]).filter(|one| one.is_contradicted_by(&page)) {
                one.is_invalid = true;
            }
            return Answer::Asked(page.code(), page.body());
        }
        // Without a stored response, the origin gets the range. Of its answers, only a page that it sends is stored.
        if matches!(part, Part::Range(_)) && at.is_none() && page.status != 0 {
            return Answer::Asked(page.code(), page.body());
        }
        if let Some(at) = at.filter(|_| page.status == 1 || (page.says.drops && asks != "no-store")) {
            kept.remove(at);
        }
        if page.is_stored() && asks != "no-store" {
            kept.retain(|one| one.language != new.language);
            kept.insert(0, new);
        }
        Answer::Asked(page.code(), page.body())
    }

    /// The answer in the pause after a failure of the origin, if there is one.
    fn in_pause(&self, path: usize, language: usize) -> Option<Answer> {
        let one = &self.kept.get(&path)?[self.find(path, language)?];
        (one.has_failed && one.is_usable_on_error(self.now)).then(|| Answer::OnError(one.page.code(), one.page.body()))
    }

    fn invalidate(&mut self, path: usize) {
        self.kept.entry(path).or_default().iter_mut().for_each(|one| one.is_invalid = true);
    }

    /// Lets time pass, but to no moment at which a few seconds decide.
    fn later(&mut self, seconds: i64) {
        self.now += seconds;
        self.kept.values_mut().flatten().for_each(|one| one.has_failed = false);
        let is_near = |now: i64, one: &Kept| one.limits().iter().any(|limit| (now - one.at - limit).abs() < NOISE);
        while self.kept.values().flatten().any(|one| is_near(self.now, one)) {
            self.now += NOISE;
        }
    }
}

/// The origin's side: its page for each path, and whether it answers.
#[derive(Debug, Default)]
struct Served {
    pages: HashMap<String, Page>,
    is_down: bool,
}

struct Bed {
    authority: Authority,
    origin: Origin,
    served: Arc<Mutex<Served>>,
    config: String,
    folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let (authority, served) = (Authority::new(), Arc::<Mutex<Served>>::default());
        let answers = served.clone();
        let origin = Origin::start(move |received| {
            let served = answers.lock().unwrap();
            let page = served.pages.get(received.path()).filter(|_| !served.is_down);
            let is_head = received.line().starts_with("HEAD");
            let Some(page) = page else { return reply_to(is_head, "503 Busy", "", "busy") };
            if received.line().starts_with("POST") {
                return Reply::new("200 OK", "", "posted");
            }
            let tag = format!("\"v{}\"", page.version);
            if page.tagged && page.status == 0 && received.field("if-none-match") == Some(&tag) {
                return Reply::new("304 Not Modified", &page.fields(), "");
            }
            reply_to(is_head, STATUSES[page.status], &page.fields(), &page.body())
        });
        let folder = tempfile::TempDir::new().unwrap();
        let leaf = authority.leaf_of("blog", &[BLOG], KeyKind::Ecdsa, -1000, 9000);
        let config = format!(
            "[state]\ndirectory = {:?}\n[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\n\
             key = {:?}\n[site.cache]\nhonour_client = \"yes\"\nstale_if_error = \"{OPERATOR}s\"\n",
            folder.path().join("state"),
            origin.url(),
            leaf.chain,
            leaf.key
        );
        Self { authority, origin, served, config, folder }
    }

    fn start(&self, now: i64) -> Pintle {
        let clock = self.folder.path().join("clock");
        fs::write(&clock, format!("{now} boot-{now}")).unwrap();
        let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n";
        Pintle::start_command(&self.authority, listen, &self.config, |command| {
            command.env("PINTLE_TEST_CLOCK", &clock);
        })
    }
}

fn path_of(path: usize) -> String {
    format!("/{path}")
}

/// A response to GET, or its head.
fn reply_to(is_head: bool, status: &str, fields: &str, body: &str) -> Reply {
    match is_head {
        true => {
            let length = body.len();
            Reply::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{fields}\r\n").into_bytes())
        }
        false => Reply::new(status, fields, body),
    }
}

fn get(pintle: &Pintle, path: usize, language: usize, asks: usize, part: Part) -> Got {
    let mut curl = pintle.curl();
    curl.args(["--include", if language == 0 { "--http1.1" } else { "--http2" }]);
    match part {
        Part::Whole => {}
        Part::Head => _ = curl.arg("--head"),
        Part::Range(range) => _ = curl.args(["--range", RANGES[range]]),
    }
    curl.args(["-H", &format!("Accept-Language: {}", LANGUAGES[language])]);
    if !ASKS[asks].is_empty() {
        curl.args(["-H", &format!("Cache-Control: {}", ASKS[asks])]);
    }
    super::read(curl.arg(format!("https://{BLOG}/{path}")))
}

/// What a client got, in the words of the model. `asked` if the origin got a request meanwhile.
fn answer_of(got: &Got, asked: bool) -> Answer {
    let body = got.body.clone();
    let cache = got.all("cache-status").last().copied().unwrap_or_default().to_owned();
    match () {
        () if got.status >= 500 => Answer::Failed(got.status),
        () if cache.contains("stale-if-error") => Answer::OnError(got.status, body),
        // The request to the origin comes later, or has come already.
        () if got.is_hit() && cache.contains("stale-while-revalidate") => Answer::Meanwhile(got.status, body),
        () if got.is_hit() && !asked => Answer::Stored(got.status, body),
        () if cache.contains("fwd-status=304") => Answer::Confirmed(got.status, body),
        () => Answer::Asked(got.status, body),
    }
}

/// The fields that say which part of a page an answer has.
fn has_fields_of(got: &Got, part: Part, page: &str) -> bool {
    let range = if got.status == 206 { part.content_range(page) } else { None };
    // The origin's answer to HEAD has the length of its page, and any other that of the stored one.
    let length =
        part != Part::Head || got.status >= 500 || got.field("content-length") == Some(&*page.len().to_string());
    got.field("content-range").map(str::to_owned) == range && length
}

/// Waits for the end of a validation behind an answer: for its request at the origin, and for what becomes of the store.
fn await_validation(
    pintle: &Pintle,
    bed: &Bed,
    model: &Model,
    (path, language): (usize, usize),
    old: &Kept,
    seen: usize,
) {
    eventually("the validation", || {
        let has_begun = bed.origin.received().len() > seen;
        // In the pause after a failure, there is none: the next request after it begins one.
        if !has_begun && old.has_failed {
            get(pintle, path, language, 0, Part::Whole);
        }
        has_begun.then_some(())
    });
    let is_shown = |variants: &[serde_json::Value], one: &Kept| {
        let language = one.language.map(|language| LANGUAGES[language]);
        variants.iter().any(|shown| {
            let age = shown["age"].as_i64().unwrap_or_default();
            shown["status"] == one.page.code()
                && shown["bytes"] == one.page.body().len()
                && (age - (model.now - one.at)).abs() < NOISE
                && shown["vary"]["accept-language"].as_str() == language
        })
    };
    eventually("the outcome of the validation", || {
        let shown = output(pintle.command("cache").arg("--json").arg(format!("https://{BLOG}/{path}")));
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let variants = shown["variants"].as_array().map(Vec::as_slice).unwrap_or_default();
        let kept = &model.kept[&path];
        let stays = kept.iter().any(|one| one.state() == old.state());
        let is_there = model.find(path, language).is_none_or(|at| is_shown(variants, &kept[at]));
        (is_there && (stays || !is_shown(variants, old))).then_some(())
    });
}

/// Asks pintle and the model for the same.
fn ask(
    bed: &Bed,
    pintle: &Pintle,
    model: &mut Model,
    (path, language): (usize, usize),
    (asks, part): (usize, Part),
    step: usize,
) -> Result<(), TestCaseError> {
    let seen = bed.origin.received().len();
    let got = get(pintle, path, language, asks, part);
    let found = answer_of(&got, bed.origin.received().len() > seen);
    let before = model.clone();
    if model.in_pause(path, language).map(|answer| answer.of(part)).as_ref() != Some(&found) {
        let want = model.get(path, language, asks, part);
        prop_assert_eq!(&found, &want.clone().of(part), "step {}: {:?}\n{:?}", step, got, before);
        if matches!(want, Answer::Meanwhile(..)) && ASKS[asks] != "only-if-cached" {
            let old = model.validate(path, language);
            await_validation(pintle, bed, model, (path, language), &old, seen);
        }
    }
    let page = match found {
        Answer::Asked(..) | Answer::Failed(_) => model.pages[&path].body(),
        // The model's answer for the whole page.
        _ => before.find(path, language).map(|at| before.kept[&path][at].page.body()).unwrap_or_default(),
    };
    prop_assert!(has_fields_of(&got, part, &page), "step {}: {:?}\n{:?}", step, got, before);
    Ok(())
}

fn play(steps: &[Step]) -> Result<(), TestCaseError> {
    let (bed, mut model, mut version) = (Bed::new(), Model::default(), 0);
    let mut new_page = |model: &mut Model, path: usize, page: Page| {
        version += 1;
        let page = Page { version, ..page };
        model.pages.insert(path, page);
        bed.served.lock().unwrap().pages.insert(path_of(path), page);
    };
    for path in 0..PATHS {
        new_page(&mut model, path, Page { version: 0, says: SAYS[1], status: 0, varies: path == 1, tagged: true });
    }
    let mut pintle = bed.start(0);
    for (n, step) in steps.iter().enumerate() {
        match *step {
            Step::Page { path, says, status, varies, tagged } => {
                new_page(&mut model, path, Page { version: 0, says: SAYS[says], status, varies, tagged });
            }
            Step::Get { path, language, asks } => {
                ask(&bed, &pintle, &mut model, (path, language), (asks, Part::Whole), n)?;
            }
            Step::Head { path, language } => {
                let page = model.pages[&path];
                let others = model.kept.get(&path).map_or(0, Vec::len);
                let is_contradicted = |at: usize| model.kept[&path][at].is_contradicted_by(&page);
                // On disk, the page's other variants are marked, too, sooner or later.
                if others < 2 || !model.find(path, language).is_some_and(is_contradicted) {
                    ask(&bed, &pintle, &mut model, (path, language), (0, Part::Head), n)?;
                }
            }
            Step::Range { path, language, range } => {
                ask(&bed, &pintle, &mut model, (path, language), (0, Part::Range(range)), n)?;
            }
            Step::Post { path } => {
                output(
                    pintle.curl().args(["--data", "x", "--output", "/dev/null"]).arg(format!("https://{BLOG}/{path}")),
                );
                if !model.is_down {
                    model.invalidate(path);
                }
            }
            Step::Origin { up } => {
                model.is_down = !up;
                bed.served.lock().unwrap().is_down = !up;
            }
            Step::Purge { path, soft } => {
                let kind = if soft { "--soft " } else { "" };
                output(&mut pintle.command(&format!("purge {kind}https://{BLOG}/{path}")));
                match soft {
                    true => model.invalidate(path),
                    false => _ = model.kept.remove(&path),
                }
            }
            Step::Later { seconds, killed } => {
                model.later(seconds);
                if killed {
                    eventually("all is on disk", || {
                        (pintle.status()["caches"][0]["disk"]["waiting"] == 0).then_some(())
                    });
                    // The answer to a purge comes after all changes of files.
                    output(&mut pintle.command("purge --tag none"));
                    pintle.signal("KILL");
                    pintle.wait();
                } else {
                    prop_assert_eq!(pintle.stop(), 0);
                }
                pintle = bed.start(model.now);
            }
        }
    }
    Ok(())
}

#[test]
fn random_histories() {
    let cases = std::env::var("PINTLE_HISTORIES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(6);
    let config = Config { cases, max_shrink_iters: 20, failure_persistence: None, ..Config::default() };
    let histories = prop::collection::vec(step(), 60);
    let mut runner =
        TestRunner::new_with_rng(config, proptest::test_runner::TestRng::deterministic_rng(Default::default()));
    runner.run(&histories, |steps| play(&steps)).unwrap();
}
