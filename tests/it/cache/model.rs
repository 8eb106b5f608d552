//! Random histories: what a shared cache by RFC 9111 and RFC 5861 does with them, as a model of a few lines says, and what
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
    /// A former page is dropped.
    drops: bool,
}

const PLAIN: Says =
    Says { control: "", lifetime: None, no_cache: false, strict: false, operator: true, if_error: None, drops: false };

const SAYS: [Says; 10] = [
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
    let says = prop_oneof![1 => Just(0usize), 4 => Just(1), 9 => 2usize..SAYS.len()];
    let asks = prop_oneof![5 => Just(0usize), 5 => 1..ASKS.len()];
    prop_oneof![
        4 => (path.clone(), says, status, any::<bool>(), any::<bool>())
            .prop_map(|(path, says, status, varies, tagged)| Step::Page { path, says, status, varies, tagged }),
        12 => (path.clone(), 0..LANGUAGES.len(), asks)
            .prop_map(|(path, language, asks)| Step::Get { path, language, asks }),
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
    fn lifetime(&self) -> i64 {
        self.page.says.lifetime.unwrap_or_default()
    }

    fn is_usable_on_error(&self, now: i64) -> bool {
        let (age, says) = (now - self.at, self.page.says);
        let operator = if says.operator { OPERATOR } else { 0 };
        !says.strict
            && (age < self.lifetime() || age - self.lifetime() < says.if_error.unwrap_or_default().max(operator))
    }

    /// The ages at which something changes.
    fn limits(&self) -> [i64; 7] {
        let lifetime = self.lifetime();
        [0, 500, lifetime, lifetime - 1500, lifetime + OPERATOR, lifetime + 3000, lifetime + 9000]
    }
}

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// From the store, without a request to the origin.
    Stored(u16, String),
    /// After a request to the origin: its answer, or the stored one that it has confirmed.
    Asked(u16, String),
    /// A stored one, since the origin fails.
    OnError(u16, String),
    /// The origin's error, or pintle's.
    Failed(u16),
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

    fn get(&mut self, path: usize, language: usize, asks: usize) -> Answer {
        let asks = ASKS[asks];
        let only = asks == "only-if-cached";
        let Some(at) = self.find(path, language) else {
            return if only { Answer::Failed(504) } else { self.ask(path, language, asks, None) };
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
            () if only => Answer::Failed(504),
            () => self.ask(path, language, asks, Some(at)),
        }
    }

    fn ask(&mut self, path: usize, language: usize, asks: &str, at: Option<usize>) -> Answer {
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
                return Answer::Asked(page.code(), page.body());
            }
            kept.retain(|one| one.language != new.language);
            kept.insert(0, new);
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
            let Some(page) = page else { return Reply::new("503 Busy", "", "busy") };
            if received.line().starts_with("POST") {
                return Reply::new("200 OK", "", "posted");
            }
            let tag = format!("\"v{}\"", page.version);
            if page.tagged && page.status == 0 && received.field("if-none-match") == Some(&tag) {
                return Reply::new("304 Not Modified", &page.fields(), "");
            }
            Reply::new(STATUSES[page.status], &page.fields(), &page.body())
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

fn get(pintle: &Pintle, path: usize, language: usize, asks: usize) -> Got {
    let mut curl = pintle.curl();
    curl.args(["--include", if language == 0 { "--http1.1" } else { "--http2" }]);
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
        () if got.is_hit() && !asked => Answer::Stored(got.status, body),
        () => Answer::Asked(got.status, body),
    }
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
                let before = bed.origin.received().len();
                let got = get(&pintle, path, language, asks);
                let found = answer_of(&got, bed.origin.received().len() > before);
                if model.in_pause(path, language).as_ref() == Some(&found) {
                    continue;
                }
                let want = model.get(path, language, asks);
                prop_assert_eq!(found, want, "step {}: {:?}\n{:?}\n{:?}", n, step, got, model);
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
