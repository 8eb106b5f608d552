//! "Did you mean": the known word that is nearest to an unknown one.

/// Words that differ by more than this are no slip of the pen.
const DISTANCE_MAX: usize = 2;

/// Returns the known word that somebody may have meant, if one is near enough.
#[must_use]
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = plain(word);
    let length = word.chars().count();
    let far = |known: &str| {
        // Of a short word, two letters are too much.
        let most = DISTANCE_MAX.min(known.chars().count() / 2);
        let known = plain(known);
        // The unknown word may be as long as a file.
        let may_be_near = known.chars().count().abs_diff(length) <= most;
        may_be_near.then(|| distance(&known, &word)).filter(|far| *far <= most)
    };
    known.into_iter().filter_map(|known| Some((far(known)?, known))).min_by_key(|(far, _)| *far).map(|(_, known)| known)
}

/// `did you mean "enforce"?`
#[must_use]
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean {near:?}?"))
}

/// `maxAge`, `max-age` and `max_age` are the same slip of the pen.
fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).collect::<String>().to_lowercase()
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("max_age", "max_agee"), 1);
        assert_eq!(distance("hosts", "host"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "ab"), 2);
    }

    #[test]
    fn meant() {
        let check = |word: &str, known: &[&str], want: Option<&str>| {
            assert_eq!(nearest(word, known.iter().copied()), want, "{word}");
        };
        let modes = ["enforce", "report-only", "withdraw"];
        check("enforced", &modes, Some("enforce"));
        check("ReportOnly", &modes, Some("report-only"));
        check("off", &modes, None);
        check("maxAge", &["max_age", "mode"], Some("max_age"));
        check("cites", &["site", "tls"], Some("site"));
        check("no", &["on", "off"], None);
        check("jsn", &["json", "combined"], Some("json"));
    }
}
