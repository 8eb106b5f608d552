//! The platforms that `pintle init` knows.

/// A blog's platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the platform of that name")]
pub enum Platform {
    WordPressCom,
    WordPressVip,
    Pressable,
    WpEngine,
    Kinsta,
    WordPress,
    GhostPro,
    Ghost,
    Blogger,
    Tumblr,
    Squarespace,
    Wix,
    GitHubPages,
    Netlify,
    Vercel,
    Substack,
    Medium,
    HubSpot,
    Webflow,
    Hatena,
    Dreamwidth,
}

/// Where a self-hosted WordPress keeps its own address.
const SITE_ADDRESS: &str = "set both addresses in Settings > General to {url}";
/// A platform on which the owner names the blog's domain.
const DOMAIN: &str = "add the domain {host} in the settings of the blog, if your plan allows it";

impl Platform {
    /// All platforms.
    pub const ALL: [Self; 21] = [
        Self::WordPressCom,
        Self::WordPressVip,
        Self::Pressable,
        Self::WpEngine,
        Self::Kinsta,
        Self::WordPress,
        Self::GhostPro,
        Self::Ghost,
        Self::Blogger,
        Self::Tumblr,
        Self::Squarespace,
        Self::Wix,
        Self::GitHubPages,
        Self::Netlify,
        Self::Vercel,
        Self::Substack,
        Self::Medium,
        Self::HubSpot,
        Self::Webflow,
        Self::Hatena,
        Self::Dreamwidth,
    ];

    /// Returns its name in JSON. Programs depend on it: it does not change.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::WordPressCom => "wordpress.com",
            Self::WordPressVip => "wordpress-vip",
            Self::Pressable => "pressable",
            Self::WpEngine => "wp-engine",
            Self::Kinsta => "kinsta",
            Self::WordPress => "wordpress",
            Self::GhostPro => "ghost-pro",
            Self::Ghost => "ghost",
            Self::Blogger => "blogger",
            Self::Tumblr => "tumblr",
            Self::Squarespace => "squarespace",
            Self::Wix => "wix",
            Self::GitHubPages => "github-pages",
            Self::Netlify => "netlify",
            Self::Vercel => "vercel",
            Self::Substack => "substack",
            Self::Medium => "medium",
            Self::HubSpot => "hubspot",
            Self::Webflow => "webflow",
            Self::Hatena => "hatena",
            Self::Dreamwidth => "dreamwidth",
        }
    }

    /// Returns its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WordPressCom => "WordPress.com",
            Self::WordPressVip => "WordPress VIP",
            Self::Pressable => "Pressable",
            Self::WpEngine => "WP Engine",
            Self::Kinsta => "Kinsta",
            Self::WordPress => "WordPress on a server of its own",
            Self::GhostPro => "Ghost(Pro)",
            Self::Ghost => "Ghost on a server of its own",
            Self::Blogger => "Blogger",
            Self::Tumblr => "Tumblr",
            Self::Squarespace => "Squarespace",
            Self::Wix => "Wix",
            Self::GitHubPages => "GitHub Pages",
            Self::Netlify => "Netlify",
            Self::Vercel => "Vercel",
            Self::Substack => "Substack",
            Self::Medium => "Medium",
            Self::HubSpot => "HubSpot",
            Self::Webflow => "Webflow",
            Self::Hatena => "Hatena Blog",
            Self::Dreamwidth => "Dreamwidth",
        }
    }

    /// Returns `true` for software that runs on many hosts. Its signs count only if no host is named.
    #[must_use]
    pub fn is_software(self) -> bool {
        matches!(self, Self::WordPress | Self::Ghost | Self::Webflow)
    }

    /// Returns `true` for WordPress with a `wp-config.php` of its own.
    #[must_use]
    pub fn has_wp_config(self) -> bool {
        matches!(self, Self::WordPress | Self::Pressable | Self::WpEngine | Self::Kinsta | Self::WordPressVip)
    }

    /// Returns the way to tell the blog its public name.
    #[must_use]
    pub fn naming(self, host: &str) -> String {
        let text = match self {
            Self::WordPress | Self::Pressable | Self::WpEngine | Self::Kinsta => SITE_ADDRESS,
            Self::WordPressVip => "have the primary domain of the environment changed to {host}",
            Self::Ghost => "set \"url\" in config.production.json to {url}",
            Self::GitHubPages => "name {host} as the custom domain in the settings of the repository, under Pages",
            Self::Netlify | Self::Vercel => "add {host} to the domains of the project, or build it with {url}",
            Self::Dreamwidth => "Dreamwidth has no setting for it",
            _ => DOMAIN,
        };
        text.replace("{url}", &format!("https://{host}")).replace("{host}", host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        for (n, one) in Platform::ALL.into_iter().enumerate() {
            for other in &Platform::ALL[n + 1..] {
                assert!(one != *other && one.id() != other.id() && one.name() != other.name());
            }
            let text = one.naming("blog.example.com");
            assert!(!text.contains('{') && text.is_ascii(), "{text}");
        }
    }
}
