//! Names of crawlers in User-Agent. Anybody can send such a name, so a name adds a limit and
//! never lifts one.

use std::sync::LazyLock;

/// The bytes of User-Agent that are searched. Real ones have the name further in front.
const SEARCHED: usize = 512;

/// A name, in lower case.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let lines = include_str!("crawlers.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.split_once('\t')?.0.to_ascii_lowercase())).collect()
});

/// The names that begin with each byte.
static BY_FIRST_BYTE: LazyLock<[Vec<usize>; 256]> = LazyLock::new(|| {
    let mut by_first = std::array::from_fn(|_| Vec::new());
    for (index, name) in NAMES.iter().enumerate() {
        if let Some(first) = name.bytes().next() {
            by_first[usize::from(first)].push(index);
        }
    }
    by_first
});

/// Returns the crawler that a User-Agent names, in lower case.
#[must_use]
pub fn crawler(user_agent: &[u8]) -> Option<&'static str> {
    let searched = user_agent.get(..SEARCHED).unwrap_or(user_agent);
    (0..searched.len()).find_map(|at| {
        let rest = &searched[at..];
        let names = &BY_FIRST_BYTE[usize::from(rest[0].to_ascii_lowercase())];
        let fits =
            |name: &&str| rest.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name.as_bytes()));
        names.iter().map(|index| NAMES[*index].as_str()).find(fits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |agent: &str, name: Option<&str>| assert_eq!(crawler(agent.as_bytes()), name, "{agent}");
        check("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Some("googlebot"));
        check("mozilla/5.0 applewebkit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)", Some("gptbot"));
        check("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", None);
        check("", None);
        check(&format!("{}Googlebot", "x".repeat(SEARCHED)), None);
    }

    #[test]
    fn each_name_has_an_operator_and_none_is_part_of_another() {
        assert!(NAMES.len() > 30);
        for line in include_str!("crawlers.txt").lines().filter(|line| !line.starts_with('#')) {
            let (name, operator) = line.split_once('\t').unwrap();
            assert!(!operator.trim().is_empty() && name.len() > 3, "{line}");
            assert_eq!(crawler(name.as_bytes()), Some(name.to_ascii_lowercase().as_str()), "{name}");
        }
        let browser = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 \
                       Safari/537.36 Edg/131.0.0.0";
        assert_eq!(crawler(browser.as_bytes()), None);
    }
}
