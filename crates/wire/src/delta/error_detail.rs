//! Which resources a NACK means: its text lists `name: reason`, one per line.
//!
//! The text is for people, and other clients separate otherwise, so reading is generous: a name counts wherever it begins
//! an item. Who can name none of the resources has refused them all.

use std::collections::BTreeMap;

/// Letters of a reason that are kept: it is for people, and a client may write what it likes.
const REASON: usize = 512;

/// One line per refused resource.
pub(super) fn write<'a>(refused: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let lines: Vec<String> = refused.map(|(name, reason)| format!("{name}: {}", reason.replace('\n', " "))).collect();
    lines.join("\n")
}

/// Of the names that were sent, those that the text refuses, with the reason: what follows the name, up to the next one.
pub(super) fn read<'a>(text: &str, sent: impl Iterator<Item = &'a str> + Clone) -> BTreeMap<String, String> {
    let mut items: Vec<(usize, &str)> = sent.clone().filter_map(|name| Some((begin(text, name)?, name))).collect();
    if items.is_empty() {
        return sent.map(|name| (name.to_owned(), shortened(text))).collect();
    }
    items.sort_unstable();
    let ends = items.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    let reason = |((at, name), end): (&(usize, &str), usize)| {
        let after = at + name.len() + 1; // the colon
        let reason = text.get(after..end).unwrap_or_default().lines().next().unwrap_or_default();
        ((*name).to_owned(), shortened(reason.trim().trim_end_matches([',', ';'])))
    };
    items.iter().zip(ends).map(reason).collect()
}

fn shortened(text: &str) -> String {
    text.chars().take(REASON).collect()
}

/// Where an item `name:` begins.
fn begin(text: &str, name: &str) -> Option<usize> {
    let begins_item = |at: usize| at == 0 || text[..at].ends_with(['\n', ' ', ',', ';', '[', '"']);
    let is_item = |at: usize| begins_item(at) && text[at + name.len()..].starts_with(':');
    text.match_indices(name).map(|(at, _)| at).find(|at| is_item(*at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};
    use rstest::rstest;

    use super::{read, write};

    #[rstest]
    #[case("a/b: bad\na/c: worse", &[("a/b", "bad"), ("a/c", "worse")])]
    #[case("a/b: bad, a/c: worse", &[("a/b", "bad"), ("a/c", "worse")])]
    #[case("a/c: worse; a/b: bad: too", &[("a/b", "bad: too"), ("a/c", "worse")])]
    #[case("xa/b: bad", &[("xa/b", "bad")])]
    #[case("out of memory", &[("a/b", "out of memory"), ("a/c", "out of memory"), ("xa/b", "out of memory")])]
    #[case("", &[("a/b", ""), ("a/c", ""), ("xa/b", "")])]
    fn who_is_meant(#[case] text: &str, #[case] expected: &[(&str, &str)]) {
        let meant = read(text, ["a/b", "a/c", "xa/b"].into_iter());
        let meant: Vec<(&str, &str)> = meant.iter().map(|(name, reason)| (name.as_str(), reason.as_str())).collect();
        assert_eq!(meant, expected);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            refused in proptest::collection::btree_map("[a-z]{1,3}/[a-z]{1,3}", "[a-z]{1,5}( [a-z]{1,5}){0,2}", 1..5),
            accepted in proptest::collection::btree_set("[A-Z]{1,3}/[A-Z]{1,3}", 0..5),
        ) {
            let text = write(refused.iter().map(|(name, reason)| (name.as_str(), reason.as_str())));
            let sent = refused.keys().chain(&accepted).map(String::as_str);
            prop_assert_eq!(read(&text, sent), refused);
        }
    }
}
