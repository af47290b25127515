//! What every single Rust file keeps to.

use crate::Finding;
use crate::tokens::{Token, tokens};
use crate::workspace::SourceFile;

/// House rule: a file that needs more is two files. Aim at 150 to 300.
const LONGEST: usize = 600;

/// The `//!` may stand below an attribute or a shebang, no lower.
const FIRST_LINES: usize = 3;

pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    files
        .iter()
        .flat_map(|file| [too_long(file), undocumented(file), face_with_code(file), left_over(file)])
        .flatten()
        .collect()
}

fn finding(file: &SourceFile, fault: String, remedy: &'static str) -> Option<Finding> {
    Some(Finding { place: file.path.clone(), fault, remedy })
}

fn too_long(file: &SourceFile) -> Option<Finding> {
    let lines = file.text.lines().count();
    if lines <= LONGEST {
        return None;
    }
    let remedy = "split it by what its parts are for; long tests go to a sibling tests.rs";
    finding(file, format!("{lines} lines, more than {LONGEST}"), remedy)
}

fn undocumented(file: &SourceFile) -> Option<Finding> {
    if file.text.lines().take(FIRST_LINES).any(|line| line.starts_with("//! ")) {
        return None;
    }
    finding(file, "does not say what it is for".to_owned(), "begin it with `//!`: what it is for and how it fits")
}

/// lib.rs and mod.rs show what there is; what is defined in them would be a node of every cycle below.
fn face_with_code(file: &SourceFile) -> Option<Finding> {
    let name = file.path.rsplit('/').next()?;
    if name != "lib.rs" && name != "mod.rs" {
        return None;
    }
    let item = tokens(&file.text).into_iter().find(|token| {
        matches!(token.text.as_str(), "fn" | "struct" | "enum" | "trait" | "impl" | "macro_rules") && token.is_word
    })?;
    let Token { text, line, .. } = item;
    finding(
        file,
        format!("a face that defines something: `{text}` in line {line}"),
        "move it to a file of its own and `pub use` it",
    )
}

fn left_over(file: &SourceFile) -> Option<Finding> {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let (number, word) = file
        .text
        .lines()
        .enumerate()
        .find_map(|(index, line)| words.iter().find(|word| line.contains(**word)).map(|word| (index + 1, word)))?;
    finding(file, format!("{word} in line {number}"), "do it now, or open an issue and remove the note")
}

mod self_test {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        let file = SourceFile { path: path.to_owned(), text: text.to_owned() };
        check(&[file]).into_iter().map(|finding| finding.fault).collect()
    }

    #[test]
    fn finds_a_long_file() {
        let text = format!("//! Long.\n{}", "\n".repeat(LONGEST - 1));
        assert_eq!(faults("a.rs", &text), [""; 0]);
        assert_eq!(faults("a.rs", &format!("{text}\n")), ["601 lines, more than 600"]);
    }

    #[test]
    fn finds_a_file_that_does_not_say_what_it_is_for() {
        assert_eq!(faults("a.rs", "#![no_std]\n//! For this.\n"), [""; 0]);
        for text in ["", "fn x() {}\n", "\n\n\n//! Too late.\n", "// Not a doc.\n", "//!\n"] {
            assert_eq!(faults("tests/a.rs", text), ["does not say what it is for"], "{text:?}");
        }
    }

    #[test]
    fn finds_code_in_a_face() {
        let text = "//! A face: no struct here.\nmod a;\npub use a::A;\n";
        assert_eq!(faults("src/lib.rs", text), [""; 0]);
        let text = format!("{text}fn helper() {{}}\n");
        assert_eq!(faults("src/x/mod.rs", &text), ["a face that defines something: `fn` in line 4"]);
        assert_eq!(faults("src/x.rs", &text), [""; 0]);
    }

    #[test]
    fn finds_what_was_left_over() {
        let text = concat!("//! Doc.\n// TO", "DO later\n");
        assert_eq!(faults("a.rs", text), [concat!("TO", "DO in line 2")]);
    }
}
