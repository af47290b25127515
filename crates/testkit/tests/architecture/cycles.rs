//! No module may reach itself through others: then no file can be understood, tested or moved alone. Also: an `error.rs`
//! imports no sibling, since shared error types are what ties most cycles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::Finding;
use crate::modules::{Module, Modules};
use crate::workspace::SourceFile;

/// From file to file, with the line and path that make the edge.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let modules = Modules::new(files);
    let graph = graph(&modules);
    let mut findings = errors_with_siblings(&graph);
    findings.extend(faces_with_globs(&modules));
    let mut reported = BTreeSet::new();
    for file in graph.keys().filter(|file| !file.ends_with("tests.rs")) {
        let Some(cycle) = shortest_cycle(&graph, file) else { continue };
        // Each cycle is met from each of its files; once is enough.
        if cycle.iter().any(|step| reported.contains(step)) {
            continue;
        }
        let steps: Vec<_> =
            cycle.windows(2).map(|pair| format!("\n    {} {}", pair[0], graph[&pair[0]][&pair[1]])).collect();
        findings.push(Finding {
            place: file.clone(),
            fault: format!("module cycle {}{}", cycle.join(" -> "), steps.concat()),
            remedy: "move what both need into a file of its own below them, or hand it in as an argument",
        });
        reported.extend(cycle);
    }
    findings
}

fn graph(modules: &Modules) -> Graph {
    let mut graph = Graph::new();
    for (place, module) in modules.iter().filter(|(_, module)| !module.is_face) {
        let edges = graph.entry(module.file.clone()).or_default();
        for found in &module.references.paths {
            if let Some(target) = modules.resolve(place, found.inline, &found.path)
                && target.file != module.file
            {
                let reason = format!("line {} names {}", found.line, found.path.join("::"));
                edges.entry(target.file.clone()).or_insert(reason);
            }
        }
    }
    graph
}

fn errors_with_siblings(graph: &Graph) -> Vec<Finding> {
    let errors = graph.iter().filter(|(file, _)| file.rsplit('/').next() == Some("error.rs"));
    errors
        .filter_map(|(file, edges)| {
            let (_, reason) = edges.first_key_value()?;
            Some(Finding {
                place: file.clone(),
                fault: format!("an error.rs that imports a sibling: {file} {reason}"),
                remedy: "keep the error beside the code that makes it, or carry values instead of a sibling's types",
            })
        })
        .collect()
}

/// Behind `pub use a::*` nobody sees which file a name leads to, this check included.
fn faces_with_globs(modules: &Modules) -> Vec<Finding> {
    let has_glob =
        |module: &Module| module.is_face && module.references.imports.iter().any(|import| import.name == "*");
    let faces = modules.iter().filter(|(_, module)| has_glob(module));
    faces
        .map(|(_, module)| Finding {
            place: module.file.clone(),
            fault: "a face that imports everything (`*`)".to_owned(),
            remedy: "name what it shows",
        })
        .collect()
}

/// The files on the shortest way from a file back to itself, that file first and last.
fn shortest_cycle(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(file) = queue.pop_front() {
        for next in graph.get(file)?.keys() {
            if next == start {
                let mut way = vec![start.to_owned()];
                let mut step = file;
                while step != start {
                    way.push(step.to_owned());
                    step = came_from[step];
                }
                way.push(start.to_owned());
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(next.as_str()) {
                came_from.insert(next, file);
                queue.push_back(next);
            }
        }
    }
    None
}

mod self_test {
    use super::*;

    fn faults(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| SourceFile { path: (*path).to_owned(), text: (*text).to_owned() })
            .collect();
        check(&files).into_iter().map(|finding| finding.fault).collect()
    }

    fn first_line(files: &[(&str, &str)]) -> Vec<String> {
        faults(files).iter().filter_map(|fault| fault.lines().next().map(str::to_owned)).collect()
    }

    const LIB: (&str, &str) = ("lib.rs", "mod a; mod b; mod c; pub use a::A; pub use b::B;");

    #[test]
    fn a_tree_has_no_cycle() {
        let files =
            [LIB, ("a.rs", "use crate::b::B; use crate::c;"), ("b.rs", "use super::c::C;"), ("c.rs", "use std::a;")];
        assert_eq!(faults(&files), [""; 0]);
    }

    #[test]
    fn finds_a_cycle_and_names_its_lines() {
        let files =
            [LIB, ("a.rs", "\nuse crate::b::B;"), ("b.rs", "fn f() { super::c::g() }"), ("c.rs", "use crate::{a::A};")];
        let found = faults(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("module cycle a.rs -> b.rs -> c.rs -> a.rs"), "{}", found[0]);
        assert!(found[0].contains("a.rs line 2 names crate::b::B"), "{}", found[0]);
    }

    #[test]
    fn looks_through_faces() {
        let through_root = [LIB, ("a.rs", "use crate::B;"), ("b.rs", "use crate::A;")];
        assert_eq!(first_line(&through_root), ["module cycle a.rs -> b.rs -> a.rs"]);
        let through_folder = [
            ("lib.rs", "mod x; mod y;"),
            ("x/mod.rs", "mod inner; pub use inner::Inner; use crate::y::Y;"),
            ("x/inner.rs", "use super::Y;"),
            ("y.rs", "use crate::x; fn f() { x::Inner::new() }"),
        ];
        assert_eq!(first_line(&through_folder), ["module cycle x/inner.rs -> y.rs -> x/inner.rs"]);
    }

    #[test]
    fn a_face_names_what_it_shows() {
        let files = [("lib.rs", "mod a; pub use a::*;"), ("a.rs", "use std::io::*;")];
        assert_eq!(faults(&files), ["a face that imports everything (`*`)"]);
    }

    #[test]
    fn a_parent_that_defines_things_is_a_node() {
        let files = [("lib.rs", "mod a;"), ("a.rs", "mod b; use b::B; struct A;"), ("a/b.rs", "use super::A;")];
        assert_eq!(first_line(&files), ["module cycle a.rs -> a/b.rs -> a.rs"]);
    }

    #[test]
    fn tests_may_look_at_anything() {
        let files = [
            LIB,
            ("a.rs", "#[cfg(test)] mod tests { use crate::b::B; use super::A; }"),
            ("b.rs", "use crate::a::A; #[cfg(test)] mod tests;"),
            ("b/tests.rs", "use super::B; use crate::a::A;"),
        ];
        assert_eq!(faults(&files), [""; 0]);
    }

    #[test]
    fn an_error_imports_no_sibling() {
        let files = [LIB, ("a.rs", "use super::error::E;"), ("error.rs", "use crate::b::B;"), ("b.rs", "struct B;")];
        assert_eq!(faults(&files), ["an error.rs that imports a sibling: error.rs line 1 names crate::b::B"]);
    }

    #[test]
    fn imports_that_go_in_circles_end() {
        let files = [("lib.rs", "mod a; use crate::y as x; use crate::x as y;"), ("a.rs", "use crate::x;")];
        assert_eq!(faults(&files), [""; 0]);
        let growing = [("lib.rs", "mod a; use crate::x::y::z as x;"), ("a.rs", "use crate::x;")];
        assert_eq!(faults(&growing), [""; 0]);
    }
}
