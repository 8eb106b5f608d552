//! The signs of each platform, as data. A strong sign names its platform alone. Two weak ones do so
//! together. A backing sign is common elsewhere: it counts beside a weak one only.
//!
//! Hosts come and go: capture fresh answers before a release, and keep them in `tests/it/init/fixtures`.

use super::platform::Platform;

/// The weight of a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Only beside a weak sign.
    Backing,
    /// With another one.
    Weak,
    /// Alone.
    Strong,
}

/// A condition on a value. Case is ignored.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// Any value.
    Any,
    /// This value.
    Is(&'static str),
    /// A value that contains this.
    Contains(&'static str),
    /// At least 16 hexadecimal digits.
    Hex,
    /// A digit, a point and a place, as in `3.fra _dca`.
    Place,
}

/// A condition on the answers.
#[derive(Debug, Clone, Copy)]
pub enum Test {
    /// A response field.
    Field(&'static str, Value),
    /// A cookie of this name.
    Cookie(&'static str),
    /// A `generator` of the page that begins so.
    Generator(&'static str),
    /// An attribute of the `html` element.
    Html(&'static str, Value),
    /// A path of the blog that the page refers to.
    Path(&'static str),
    /// A reference to this domain, or to one below it.
    Asset(&'static str),
    /// A `link` of the page with this rel.
    Rel(&'static str),
    /// An attribute `data-ghost...`.
    DataGhost,
    /// The feed's `generator`.
    Feed(&'static str),
    /// A line of robots.txt that begins so.
    Robots(&'static str),
    /// A text in the answer to a foreign Host.
    Foreign(&'static str),
    /// The blog's own name lies below one of these domains.
    Below(&'static [&'static str]),
}

/// A sign.
#[derive(Debug, Clone, Copy)]
pub struct PlatformSign {
    /// Its platform.
    pub platform: Platform,
    /// Its strength as evidence.
    pub weight: Weight,
    /// The condition.
    pub test: Test,
}

const fn strong(platform: Platform, test: Test) -> PlatformSign {
    PlatformSign { platform, weight: Weight::Strong, test }
}

const fn weak(platform: Platform, test: Test) -> PlatformSign {
    PlatformSign { platform, weight: Weight::Weak, test }
}

const fn backing(platform: Platform, test: Test) -> PlatformSign {
    PlatformSign { platform, weight: Weight::Backing, test }
}

use Platform as P;
use Test::{Asset, Below, Cookie, DataGhost, Feed, Field, Foreign, Generator, Html, Path, Rel, Robots};
use Value::{Any, Contains, Hex, Is, Place};

/// All signs.
pub const SIGNS: &[PlatformSign] = &[
    strong(P::WordPressCom, Field("host-header", Is("WordPress.com"))),
    strong(P::WordPressCom, Field("host-header", Is("wpcloud"))),
    weak(P::WordPressCom, Field("x-ac", Place)),
    weak(P::WordPressCom, Field("x-hacker", Contains("automattic.com"))),
    weak(P::WordPressCom, Field("link", Contains("<https://wp.me/"))),
    weak(P::WordPressCom, Generator("WordPress.com")),
    weak(P::WordPressCom, Feed("http://wordpress.com/")),
    weak(P::WordPressCom, Foreign("Do you want to register")),
    weak(P::WordPressCom, Below(&["wordpress.com", "wpcomstaging.com"])),
    strong(P::WordPressVip, Field("x-powered-by", Contains("WordPress VIP"))),
    weak(P::WordPressVip, Field("host-header", Hex)),
    weak(P::WordPressVip, Field("x-rq", Any)),
    weak(P::WordPressVip, Field("x-hacker", Contains("wpvip.com"))),
    weak(P::WordPressVip, Below(&["go-vip.net", "go-vip.co"])),
    strong(P::Pressable, Field("host-header", Is("Pressable"))),
    weak(P::Pressable, Below(&["mystagingwebsite.com"])),
    strong(P::WpEngine, Field("x-powered-by", Is("WP Engine"))),
    weak(P::WpEngine, Field("wpe-backend", Any)),
    weak(P::WpEngine, Below(&["wpengine.com", "wpenginepowered.com"])),
    strong(P::Kinsta, Field("x-kinsta-cache", Any)),
    weak(P::Kinsta, Field("ki-edge", Any)),
    weak(P::Kinsta, Field("ki-cf-cache-status", Any)),
    weak(P::Kinsta, Below(&["kinsta.cloud"])),
    strong(P::WordPress, Field("link", Contains("https://api.w.org/"))),
    weak(P::WordPress, Field("x-pingback", Contains("/xmlrpc.php"))),
    weak(P::WordPress, Rel("https://api.w.org/")),
    weak(P::WordPress, Generator("WordPress ")),
    weak(P::WordPress, Path("/wp-content/")),
    weak(P::WordPress, Feed("https://wordpress.org/?v=")),
    strong(P::GhostPro, Field("ghost-fastly", Any)),
    weak(P::GhostPro, Below(&["ghost.io"])),
    weak(P::GhostPro, Generator("Ghost ")),
    backing(P::GhostPro, Foreign("Failed to resolve DNS path for this host")),
    weak(P::Ghost, Generator("Ghost ")),
    weak(P::Ghost, DataGhost),
    weak(P::Ghost, Robots("Disallow: /ghost/")),
    weak(P::Ghost, Feed("Ghost ")),
    backing(P::Ghost, Field("x-powered-by", Is("Express"))),
    weak(P::Blogger, Generator("blogger")),
    weak(P::Blogger, Feed("Blogger")),
    weak(P::Blogger, Below(&["blogspot.com"])),
    backing(P::Blogger, Field("server", Is("GSE"))),
    backing(P::Blogger, Asset("www.blogger.com")),
    strong(P::Tumblr, Field("x-tumblr-user", Any)),
    weak(P::Tumblr, Field("x-tumblr-pixel", Any)),
    weak(P::Tumblr, Feed("Tumblr ")),
    weak(P::Tumblr, Below(&["tumblr.com"])),
    weak(P::Tumblr, Foreign("Whatever you were looking for doesn't currently exist at this address")),
    strong(P::Squarespace, Field("server", Is("Squarespace"))),
    weak(P::Squarespace, Cookie("SS_MID")),
    weak(P::Squarespace, Feed("Site-Server")),
    weak(P::Squarespace, Robots("# Squarespace")),
    weak(P::Squarespace, Below(&["squarespace.com"])),
    backing(P::Squarespace, Cookie("crumb")),
    backing(P::Squarespace, Field("x-contextid", Any)),
    backing(P::Squarespace, Asset("static1.squarespace.com")),
    strong(P::Wix, Field("x-wix-request-id", Any)),
    weak(P::Wix, Generator("Wix.com")),
    weak(P::Wix, Below(&["wixsite.com"])),
    weak(P::Wix, Robots("# by wix.com")),
    weak(P::Wix, Asset("static.parastorage.com")),
    weak(P::Wix, Foreign("Looks Like This Domain Isn't Connected To A Website Yet")),
    strong(P::GitHubPages, Field("server", Is("GitHub.com"))),
    strong(P::GitHubPages, Field("x-github-request-id", Any)),
    weak(P::GitHubPages, Below(&["github.io"])),
    weak(P::GitHubPages, Foreign("There isn't a GitHub Pages site here.")),
    strong(P::Netlify, Field("server", Is("Netlify"))),
    strong(P::Netlify, Field("x-nf-request-id", Any)),
    weak(P::Netlify, Below(&["netlify.app"])),
    weak(P::Netlify, Foreign("Not Found - Request ID:")),
    strong(P::Vercel, Field("server", Is("Vercel"))),
    strong(P::Vercel, Field("x-vercel-id", Any)),
    weak(P::Vercel, Below(&["vercel.app"])),
    weak(P::Vercel, Foreign("DEPLOYMENT_NOT_FOUND")),
    strong(P::Substack, Field("x-served-by", Is("Substack"))),
    strong(P::Substack, Field("x-cluster", Is("substack"))),
    weak(P::Substack, Feed("Substack")),
    weak(P::Substack, Below(&["substack.com"])),
    backing(P::Substack, Asset("substackcdn.com")),
    strong(P::Medium, Field("x-powered-by", Is("Medium"))),
    weak(P::Medium, Feed("Medium")),
    weak(P::Medium, Below(&["medium.com"])),
    backing(P::Medium, Asset("cdn-client.medium.com")),
    strong(P::HubSpot, Field("x-hs-hub-id", Any)),
    weak(P::HubSpot, Field("x-hs-content-id", Any)),
    weak(P::HubSpot, Generator("HubSpot")),
    weak(P::HubSpot, Below(&["hs-sites.com"])),
    strong(P::Webflow, Html("data-wf-site", Any)),
    weak(P::Webflow, Generator("Webflow")),
    weak(P::Webflow, Below(&["webflow.io"])),
    weak(P::Webflow, Foreign("The page you are looking for doesn't exist or has been moved.")),
    strong(P::Hatena, Html("data-admin-domain", Contains("blog.hatena.ne.jp"))),
    weak(P::Hatena, Html("data-blog-host", Any)),
    weak(P::Hatena, Feed("Hatena")),
    weak(P::Hatena, Asset("st-hatena.com")),
    weak(P::Hatena, Asset("hatenablog.com")),
    weak(P::Hatena, Asset("hatenablog-parts.com")),
    weak(P::Hatena, Below(&["hatenablog.com", "hatenablog.jp", "hateblo.jp", "hatenadiary.com", "hatenadiary.jp"])),
    weak(P::Hatena, Foreign("404 Blog is not found")),
    strong(P::Dreamwidth, Cookie("ljuniq")),
    weak(P::Dreamwidth, Feed("LiveJournal / Dreamwidth")),
    weak(P::Dreamwidth, Asset("dreamwidth.org")),
    weak(P::Dreamwidth, Below(&["dreamwidth.org"])),
];

/// Generators of other makers. With one of these in the page, weak signs are leftovers of a move:
/// migrated blogs keep paths and pictures.
pub const OTHER_MAKERS: &[&str] = &[
    "11ty",
    "Astro",
    "Bludit",
    "Docusaurus",
    "Drupal",
    "Eleventy",
    "Gatsby",
    "Grav",
    "Gridsome",
    "Hexo",
    "Hugo",
    "Jekyll",
    "Joomla",
    "Lektor",
    "Metalsmith",
    "Middleman",
    "Movable Type",
    "Next.js",
    "Nikola",
    "Nuxt",
    "Octopress",
    "Pelican",
    "Publii",
    "Quarto",
    "Serendipity",
    "SilverStripe",
    "Simply Static",
    "SvelteKit",
    "TYPO3",
    "Textpattern",
    "Typecho",
    "VitePress",
    "VuePress",
    "Zola",
];

/// Servers that people run themselves: pages of a site builder that come from one were exported.
pub const OWN_SERVERS: &[&str] = &["nginx", "Apache", "Caddy", "lighttpd", "LiteSpeed", "Microsoft-IIS"];

/// Relatives of Dreamwidth, which set the same cookie.
pub const OTHER_JOURNALS: &[&str] = &["livejournal.com", "livejournal.net", "insanejournal.com", "deadjournal.com"];
