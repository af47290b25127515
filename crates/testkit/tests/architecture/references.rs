//! Which paths a file names: in `use` lines and in its code. What stands under `#[cfg(test)]` does not count, since tests
//! may look at anything.

use crate::tokens::{Token, tokens};

/// What one file names.
#[derive(Debug, Default)]
pub(crate) struct References {
    pub(crate) imports: Vec<Import>,
    pub(crate) paths: Vec<Reference>,
}

/// One leaf of a `use` at the top of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// The name that it gets here; `*` for a glob.
    pub(crate) name: String,
    pub(crate) path: Vec<String>,
}

/// One path, as written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) path: Vec<String>,
    /// How many inline modules (`mod x { .. }`) are open around it.
    pub(crate) inline: usize,
    pub(crate) line: usize,
}

pub(crate) fn references(text: &str) -> References {
    let tokens = tokens(text);
    let mut reader = Reader { tokens: &tokens, at: 0, found: References::default(), depth: 0, inline: Vec::new() };
    while reader.at < tokens.len() {
        reader.step();
    }
    reader.found
}

struct Reader<'t> {
    tokens: &'t [Token],
    at: usize,
    found: References,
    /// Open braces.
    depth: usize,
    /// The depths at which inline modules were opened.
    inline: Vec<usize>,
}

impl Reader<'_> {
    fn word(&self, offset: usize) -> &str {
        self.tokens.get(self.at + offset).map_or("", |token| token.text.as_str())
    }

    fn sees(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(offset, word)| self.word(offset) == *word)
    }

    fn step(&mut self) {
        if self.sees(&["#", "[", "cfg", "(", "test", ")", "]"]) {
            self.at += 7;
            self.skip_item();
            return;
        }
        match self.word(0) {
            // `impl Trait + use<'a>` lists captures and imports nothing.
            "use" if self.word(1) != "<" => {
                let line = self.tokens[self.at].line;
                self.at += 1;
                self.use_tree(&[], line);
                return;
            }
            "mod" if self.word(2) == "{" => self.inline.push(self.depth),
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self.inline.last() == Some(&self.depth) {
                    self.inline.pop();
                }
            }
            _ if self.starts_path() => {
                self.path();
                return;
            }
            _ => {}
        }
        self.at += 1;
    }

    fn starts_path(&self) -> bool {
        let continues = self.at > 0 && matches!(self.tokens[self.at - 1].text.as_str(), "::" | ".");
        self.tokens[self.at].is_word && self.word(1) == "::" && !continues
    }

    fn path(&mut self) {
        let line = self.tokens[self.at].line;
        let mut path = vec![self.word(0).to_owned()];
        self.at += 1;
        while self.word(0) == "::" && self.tokens.get(self.at + 1).is_some_and(|token| token.is_word) {
            path.push(self.word(1).to_owned());
            self.at += 2;
        }
        self.found.paths.push(Reference { path, inline: self.inline.len(), line });
    }

    /// Reads one tree behind `use`: `a::b`, `a::{b, c::d as e}`, `a::*`.
    fn use_tree(&mut self, prefix: &[String], line: usize) {
        let mut path = prefix.to_vec();
        loop {
            match self.word(0) {
                "{" => {
                    self.at += 1;
                    // A leaf stops before `;`: inside braces that is no Rust, and going on would never end.
                    while !matches!(self.word(0), "}" | ";" | "") {
                        self.use_tree(&path, line);
                        if self.word(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "::" => self.at += 1,
                "*" => {
                    self.at += 1;
                    return self.leaf("*".to_owned(), path, line);
                }
                "as" => {
                    let name = self.word(1).to_owned();
                    self.at += 2;
                    return self.leaf(name, path, line);
                }
                "," | ";" | "}" | "" => {
                    let name = path.last().cloned().unwrap_or_default();
                    return self.leaf(name, path, line);
                }
                "self" if !path.is_empty() => self.at += 1,
                word => {
                    path.push(word.to_owned());
                    self.at += 1;
                }
            }
        }
    }

    fn leaf(&mut self, name: String, path: Vec<String>, line: usize) {
        if self.inline.is_empty() {
            self.found.imports.push(Import { name, path: path.clone() });
        }
        self.found.paths.push(Reference { path, inline: self.inline.len(), line });
    }

    /// Skips attributes and the item behind them: to its `;` or over its braces.
    fn skip_item(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            let word = self.word(0).to_owned();
            match word.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if depth == 0 && matches!(word.as_str(), ";" | "}") {
                return;
            }
        }
    }
}

mod self_test {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        references(text).paths.into_iter().map(|found| format!("{}@{}", found.path.join("::"), found.inline)).collect()
    }

    #[test]
    fn use_trees_are_taken_apart() {
        let text = "pub use crate::{a::{self, b as c}, d}; use super::super::x::*;";
        assert_eq!(paths(text), ["crate::a@0", "crate::a::b@0", "crate::d@0", "super::super::x@0"]);
        let names: Vec<_> = references(text).imports.into_iter().map(|import| import.name).collect();
        assert_eq!(names, ["a", "c", "d", "*"]);
    }

    #[test]
    fn captures_are_no_imports() {
        let text = "fn f<'a>() -> impl T + use<'a> { let x = a::b(); x } type F = impl T + use<>; use crate::c;";
        assert_eq!(paths(text), ["a::b@0", "crate::c@0"]);
    }

    #[test]
    fn text_that_is_no_rust_ends() {
        for text in
            ["use {;", "use a::{b; c}; {;", "use ;", "use a::{", "use a as", "use a::{b}}, c;", "use", "use {{;}"]
        {
            assert!(references(text).paths.len() < 9, "{text}");
        }
    }

    #[test]
    fn paths_in_code_count_and_tests_do_not() {
        let text = "fn f() -> crate::a::B<u8> { self.x; x.crate_::y; mod_::z() }
            #[cfg(test)] use crate::t1;
            #[cfg(test)] #[path = \"x\"] mod tests { use crate::t2::{a}; fn g() {} }
            mod inner { fn h() { super::k(); } } fn i() { self::l() }";
        assert_eq!(paths(text), ["crate::a::B@0", "mod_::z@0", "super::k@1", "self::l@0"]);
    }
}
