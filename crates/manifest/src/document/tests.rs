//! Where one document ends and the next begins, and that no bytes break the reader.

use proptest::prelude::{any, prop_assert_eq, proptest};
use rstest::rstest;

use super::split;
use crate::objects::read;

/// Each document as `line/document/item:name`, or the problem.
fn shape(text: &str) -> Vec<String> {
    let one = |document: Result<super::Document, crate::Finding>| match document {
        Ok(found) => {
            let name = found.value.get("n").map_or("?".to_owned(), |name| format!("{name:?}"));
            let item = found.place.item.map(|item| format!("/{item}")).unwrap_or_default();
            format!("{}/{}{item} {name}", found.place.line, found.place.document)
        }
        Err(finding) => {
            format!("{}/{} !{} {}", finding.place.line, finding.place.document, finding.field, finding.problem)
        }
    };
    split("x", text.as_bytes()).into_iter().map(one).collect()
}

#[rstest]
#[case::empty("", &[])]
#[case::comments("# a\n---\n# b\n---\n", &[])]
#[case::one("n: 1\n", &["1/1 Number(1)"])]
#[case::byte_order_mark("\u{feff}n: 1\n", &["1/1 Number(1)"])]
#[case::two("n: 1\n---\nn: 2\n", &["1/1 Number(1)", "3/2 Number(2)"])]
#[case::windows("n: 1\r\n---\r\nn: 2\r\n", &["1/1 Number(1)", "3/2 Number(2)"])]
#[case::line_of_content("---\n\n# why\nn: 1\n", &["4/1 Number(1)"])]
#[case::directive("%YAML 1.2\n---\nn: 1\n...\n---\nn: 2\n", &["3/1 Number(1)", "6/2 Number(2)"])]
#[case::on_the_marker("--- {n: 1}\n--- # second\nn: 2\n", &["1/1 Number(1)", "3/2 Number(2)"])]
#[case::not_a_marker("n: |\n  ---\n  x\nm: ----\n", &["1/1 String(\"---\\nx\\n\")"])]
#[case::json("{\"n\":\t1}", &["1/1 Number(1)"])]
#[case::json_with_tabs("{\n\t\"n\": 1\n}\n", &["1/1 Number(1)"])]
#[case::anchors("a: &x {n: 7}\n<<: *x\n", &["1/1 Number(7)"])]
#[case::not_a_mapping("- a\n---\njust text\n", &["1/1 ! expected a Kubernetes object (a mapping)", "3/2 ! expected a Kubernetes object (a mapping)"])]
#[case::list("apiVersion: v1\nkind: List\nitems: [{n: 1}, 7, {n: 2}]\n", &["1/1/1 Number(1)", "1/1 ! expected a Kubernetes object (a mapping)", "1/1/3 Number(2)"])]
#[case::empty_list("apiVersion: v1\nkind: List\nitems: []\n", &[])]
#[case::no_items("apiVersion: v1\nkind: PodList\n", &[])]
#[case::items_are_text("apiVersion: v1\nkind: List\nitems: x\n", &["1/1 !items expected a list"])]
#[case::foreign_list("apiVersion: example.org/v1\nkind: AllowList\nitems: [{n: 1}]\n", &["1/1 ?"])]
fn shapes(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(shape(text), expected);
}

#[rstest]
#[case::syntax("n: 1\n---\na: 1\nb: [\n---\nn: 3\n", 2, 4)]
#[case::twice("a: 1\na: 2\n---\nn: 3\n", 1, 1)]
#[case::tab("a:\n\tb: 1\n---\nn: 3\n", 1, 2)]
#[case::alias("a: *nobody\n---\nn: 3\n", 1, 1)]
fn a_syntax_error_costs_one_document_and_names_its_line(
    #[case] text: &str,
    #[case] document: usize,
    #[case] near: usize,
) {
    let found = split("x", text.as_bytes());
    let errors: Vec<_> = found.iter().filter_map(|document| document.as_ref().err()).collect();
    let [error] = errors[..] else { panic!("{found:?}") };
    assert_eq!(error.place.document, document, "{error}");
    // The parser notices an open bracket only at the end.
    assert!((near..=near + 1).contains(&error.place.line), "{error}");
    assert!(error.problem.starts_with("is not valid YAML: "), "{error}");
    let said = error.problem.split(" line ").nth(1).map(|rest| rest.split(' ').next().unwrap().parse().unwrap());
    assert!(said.is_none_or(|line: usize| line == error.place.line), "{error}");
    assert_eq!(found.last().unwrap().as_ref().unwrap().value.get("n"), Some(&3.into()));
}

#[test]
fn typed_lists_lend_their_items_what_they_leave_out() {
    let found = split("x", b"apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: a}}]\n");
    let value = &found[0].as_ref().unwrap().value;
    assert_eq!((value["kind"].as_str(), value["apiVersion"].as_str()), (Some("Pod"), Some("v1")));
}

#[test]
fn bytes_that_are_no_text_name_the_line() {
    let found = split("x", b"n: 1\nm: \xff\n");
    assert_eq!(
        found[0].as_ref().unwrap_err().to_string(),
        "x: error: is not UTF-8 text (line 2); expected YAML or JSON"
    );
}

#[test]
fn a_small_file_cannot_become_a_large_value() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let previous = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![previous; 9].join(", "));
    }
    let found = split("x", bomb.as_bytes());
    assert!(found[0].as_ref().unwrap_err().problem.contains("repetition limit"), "{found:?}");
    let deep = "[".repeat(100_000);
    assert!(split("x", deep.as_bytes())[0].is_err());
}

const CORPUS: [&str; 2] =
    [include_str!("../../tests/data/shop.yaml"), include_str!("../../tests/data/kubectl-get-all.yaml")];

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        for document in split("x", &bytes).iter().flatten() {
            drop(read(document));
        }
    }

    #[test]
    fn no_damage_to_real_files_panics(which in 0..CORPUS.len(), at: proptest::sample::Index, length in 0_usize..40, put in "[ -~\n]{0,12}") {
        let text = CORPUS[which];
        let start = at.index(text.len());
        let end = (start + length).min(text.len());
        let damaged = [&text.as_bytes()[..start], put.as_bytes(), &text.as_bytes()[end..]].concat();
        for document in split("x", &damaged).iter().flatten() {
            drop(read(document));
        }
    }

    #[test]
    fn documents_are_found_again(numbers in proptest::collection::vec(any::<u32>(), 0..6)) {
        let text: String = numbers.iter().map(|number| format!("---\n# {number}\nn: {number}\n")).collect();
        let expected: Vec<String> =
            numbers.iter().enumerate().map(|(index, number)| format!("{}/{} Number({number})", 3 * index + 3, index + 1)).collect();
        prop_assert_eq!(shape(&text), expected);
    }
}
