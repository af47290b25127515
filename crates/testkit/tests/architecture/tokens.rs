//! Words and signs of a Rust file, without comments, strings and lifetimes: enough to follow paths, no compiler.

/// One word (identifier, keyword, number) or one sign; `::` is one sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// From 1.
    pub(crate) line: usize,
    pub(crate) is_word: bool,
}

pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut scanner = Scanner { rest: text, line: 1, found: Vec::new() };
    while let Some(next) = scanner.rest.chars().next() {
        scanner.step(next);
    }
    scanner.found
}

struct Scanner<'text> {
    rest: &'text str,
    line: usize,
    found: Vec<Token>,
}

impl Scanner<'_> {
    fn step(&mut self, next: char) {
        if self.rest.starts_with("//") {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.skip(block_comment(self.rest));
        } else if let Some(length) = string_literal(self.rest) {
            self.skip(length);
        } else if next == '\'' {
            self.skip(character_or_lifetime(self.rest));
        } else if is_word_part(next) {
            let end = self.rest.find(|sign| !is_word_part(sign)).unwrap_or(self.rest.len());
            self.take(end, true);
        } else if self.rest.starts_with("::") {
            self.take(2, false);
        } else if next.is_whitespace() {
            self.skip(next.len_utf8());
        } else {
            self.take(next.len_utf8(), false);
        }
    }

    fn take(&mut self, length: usize, is_word: bool) {
        self.found.push(Token { text: self.rest[..length].to_owned(), line: self.line, is_word });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }
}

fn is_word_part(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

/// Length of the comment at the start; comments nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the string literal at the start, with any of the prefixes b, c, r, br, cr and hashes.
fn string_literal(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let rest = text.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with('"') || (prefix.ends_with('r') && opens_raw(rest)))
    })?;
    let body = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let close = format!("\"{}", "#".repeat(hashes));
        let start = prefix.len() + hashes + 1;
        return Some(text[start..].find(&close).map_or(text.len(), |end| start + end + close.len()));
    }
    let mut escaped = false;
    for (index, sign) in body.char_indices().skip(1) {
        match sign {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(prefix.len() + index + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// `r#"` opens a raw string, `r#name` is a raw identifier.
fn opens_raw(rest: &str) -> bool {
    rest.starts_with('#') && rest.trim_start_matches('#').starts_with('"')
}

/// Length of `'x'`, `'\n'` or of the quote of a lifetime.
fn character_or_lifetime(text: &str) -> usize {
    let mut signs = text.char_indices().skip(1);
    match signs.next() {
        Some((_, '\\')) => {
            signs.next();
            signs.find(|(_, sign)| *sign == '\'').map_or(text.len(), |(index, _)| index + 1)
        }
        Some(_) => match signs.next() {
            Some((index, '\'')) => index + 1,
            _ => 1 + text[1..].find(|sign| !is_word_part(sign)).unwrap_or(text.len() - 1),
        },
        None => text.len(),
    }
}

mod self_test {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_strings_characters_and_lifetimes_are_no_words() {
        let text = r##"a /* b /* c */ d */ "e \" f" r#"g " h"# b"i" '"' '\'' 'j' &'k l::m // n"##;
        assert_eq!(words(text), ["a", "&", "l", "::", "m"]);
        assert_eq!(words("r#type bare br c"), ["r", "#", "type", "bare", "br", "c"]);
    }

    #[test]
    fn lines_are_counted_through_what_is_skipped() {
        let found = tokens("/* \n */ \"\n\"\nword");
        assert_eq!((found.len(), found[0].line), (1, 4));
    }
}
