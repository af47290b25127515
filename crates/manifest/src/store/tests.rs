//! What stays in force when files break, vanish and come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_model::enrolment::{Enrolment, MtlsMode};

use super::{Outcome, Store};
use crate::files::Files;
use crate::finding::Severity;

fn files(contents: &[(&str, &str)]) -> Files {
    let content = |(name, text): &(&str, &str)| (Arc::from(*name), Ok(Arc::from(text.as_bytes())));
    Files { contents: contents.iter().map(content).collect(), ..Files::default() }
}

fn service(name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

/// Name and first port of every service in force, `name:port`.
fn ports(outcome: &Outcome) -> Vec<String> {
    outcome.objects.services.iter().map(|((_, name), service)| format!("{name}:{}", service.ports[0].port)).collect()
}

fn problems(outcome: &Outcome) -> Vec<String> {
    outcome.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_whole_shop_is_read() {
    let text = include_str!("../../tests/data/shop.yaml");
    let outcome = Store::default().apply(&files(&[("shop.yaml", text)]));
    assert_eq!(problems(&outcome), Vec::<String>::new());
    let objects = &outcome.objects;
    let [cart, web] = ["cart-1", "web-1"].map(|name| &objects.pods[&("shop".to_owned(), name.to_owned())]);
    assert_eq!(objects.enrolment(cart), Enrolment::Enrolled);
    assert_eq!(objects.enrolment(web), Enrolment::OptedOut);
    assert_eq!(objects.mtls_mode(cart), MtlsMode::Permissive);
    assert_eq!(cart.netns(), Some("pod-a"));
    assert_eq!(cart.addresses.len(), 2);
    assert_eq!(cart.named_port("web"), Some(8080));
    assert!(cart.is_ready());
    assert_eq!(objects.pods_of_node("node-a").map(|pod| pod.uid()).collect::<Vec<_>>(), ["shop/cart-1"]);
    let place = &outcome.objects.places.values().find(|place| place.item == Some(2)).unwrap();
    assert_eq!(place.to_string(), "shop.yaml:18 (document 3, item 2)");
}

#[test]
fn a_refused_document_keeps_its_last_good_version_and_harms_nothing_else() {
    let mut store = Store::default();
    let before = [service("a", "1"), service("b", "2")].join("---\n");
    assert_eq!(ports(&store.apply(&files(&[("x.yaml", &before)]))), ["a:1", "b:2"]);

    let broken = [service("a", "nonsense!"), service("b", "3")].join("---\n");
    let outcome = store.apply(&files(&[("x.yaml", &broken)]));
    assert_eq!(ports(&outcome), ["a:1", "b:3"]);
    assert_eq!(outcome.kept.iter().map(ToString::to_string).collect::<Vec<_>>(), ["Service shop/a"]);
    assert_eq!(
        problems(&outcome),
        ["x.yaml:1 (document 1): error: Service shop/a: spec.ports[0].port: is the text 'nonsense!'; expected a port \
          number from 1 to 65535"]
    );

    let repaired = store.apply(&files(&[("x.yaml", &service("a", "4"))]));
    assert_eq!((ports(&repaired), repaired.kept.len()), (vec!["a:4".to_owned()], 0));
}

#[test]
fn a_document_that_cannot_be_parsed_keeps_what_the_file_does_not_say_otherwise() {
    let mut store = Store::default();
    let before = [service("a", "1"), service("b", "2"), service("c", "3")].join("---\n");
    store.apply(&files(&[("x.yaml", &before)]));
    let broken = [service("a", "5"), "kind: [unclosed\n".to_owned(), service("d", "4")].join("---\n");
    let outcome = store.apply(&files(&[("x.yaml", &broken)]));
    assert_eq!(ports(&outcome), ["a:5", "b:2", "c:3", "d:4"]);
    assert!(problems(&outcome)[0].starts_with("x.yaml:"), "{:?}", problems(&outcome));
    assert!(problems(&outcome)[0].contains("(document 2): error: is not valid YAML"), "{:?}", problems(&outcome));
    // Broken from the start, and still: nothing is made up.
    assert_eq!(ports(&Store::default().apply(&files(&[("x.yaml", &broken)]))), ["a:5", "d:4"]);
}

#[test]
fn unreadable_files_and_directories_keep_everything_and_removed_ones_nothing() {
    let mut store = Store::default();
    let all =
        files(&[("d/x.yaml", &service("a", "1")), ("d/e/y.yaml", &service("b", "2")), ("z.yaml", &service("c", "3"))]);
    assert_eq!(ports(&store.apply(&all)), ["a:1", "b:2", "c:3"]);

    let mut damaged = files(&[("z.yaml", "")]);
    damaged.contents.insert("d/x.yaml".into(), Err("cannot be read: permission denied".to_owned()));
    damaged.unreadable.insert("d/e".into(), "cannot be read: permission denied".to_owned());
    let outcome = store.apply(&damaged);
    assert_eq!(ports(&outcome), ["a:1", "b:2"]);
    assert_eq!(outcome.findings.len(), 2);
    assert_eq!(ports(&store.apply(&damaged)), ["a:1", "b:2"], "and again");
    assert_eq!(ports(&store.apply(&files(&[]))), Vec::<String>::new());
}

#[test]
fn of_two_with_one_name_the_first_by_path_stays_and_both_are_named() {
    let contents = [("b.yaml", service("a", "2")), ("a.yaml", service("a", "1"))];
    let contents = contents.each_ref().map(|(name, text)| (*name, text.as_str()));
    let outcome = Store::default().apply(&files(&contents));
    assert_eq!(ports(&outcome), ["a:1"]);
    let [only] = &outcome.findings[..] else { panic!("{:?}", outcome.findings) };
    assert_eq!(only.severity, Severity::Error);
    let text = only.to_string();
    assert!(text.starts_with("b.yaml:1 (document 1)") && text.contains("a.yaml:1 (document 1)"), "{text}");
}

#[test]
fn the_same_files_give_the_same_outcome_whatever_was_before() {
    let good = files(&[("x.yaml", &service("a", "1")), ("y.yaml", "kind: Foreign\napiVersion: example.org/v1\n")]);
    let mut store = Store::default();
    let first = store.apply(&good);
    store.apply(&files(&[("x.yaml", &service("b", "1"))]));
    assert_eq!(store.apply(&good), first);
    assert_eq!(first.findings.len(), 1);
    assert!(!first.findings[0].needs_action(), "a foreign kind is only noted");
    let empty: BTreeMap<Arc<str>, String> = BTreeMap::new();
    assert_eq!(good.unreadable, empty);
}

/// What is written for a restart reads back as what was in force, however good and broken versions are mixed.
#[test]
fn what_is_remembered_reads_back() {
    let text = |numbers: &[u32]| -> String {
        let one = |(index, number): (usize, &u32)| match number {
            0 => String::from("kind: [\n"),
            1 => service(&format!("s{index}"), "broken"),
            number => service(&format!("s{index}"), &number.to_string()),
        };
        numbers.iter().enumerate().map(one).collect::<Vec<_>>().join("---\n")
    };
    let versions = proptest::collection::vec(proptest::collection::vec(0_u32..6, 1..5), 1..6);
    proptest::proptest!(|(versions in versions)| {
        let (mut store, mut remembered) = (Store::default(), BTreeMap::new());
        for version in &versions {
            let outcome = store.apply(&files(&[("x.yaml", &text(version))]));
            for (path, content) in store.take_changes() {
                match content {
                    Some(content) => drop(remembered.insert(path, Ok(Arc::from(content)))),
                    None => drop(remembered.remove(&path)),
                }
            }
            let read_back = Files { contents: remembered.clone(), ..Files::default() };
            proptest::prop_assert_eq!(ports(&Store::default().apply(&read_back)), ports(&outcome));
        }
    });
}
