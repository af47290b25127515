//! The floor plan, checked. Reads the whole workspace and fails when it leaves the plan of docs/architecture.md: a crate
//! edge that is not in the table, a heavy dependency away from its home, a module cycle, a file that is too long or does not
//! say what it is for. Functions that are too long, `unwrap` and the like are clippy's.
//!
//! Every check is a function from text to findings, and each module ends with bad examples that its check must find.

mod cycles;
mod edges;
mod files;
mod modules;
mod references;
mod tokens;
mod workspace;

use std::fmt;

/// One thing that is wrong, where, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    place: String,
    fault: String,
    remedy: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}\n    -> {}", self.place, self.fault, self.remedy)
    }
}

fn expect_none(findings: &[Finding]) {
    let list: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "\n\n{} finding(s):\n\n{}\n", list.len(), list.join("\n\n"));
}

#[test]
fn every_crate_edge_is_in_the_table() {
    expect_none(&edges::check(&workspace::members()));
}

#[test]
fn every_heavy_dependency_is_at_home() {
    expect_none(&edges::check_homes(&workspace::members()));
}

#[test]
fn no_module_cycles() {
    let of_member = |member: workspace::Member| {
        let source = member.folder.join("src");
        let in_crate = move |finding| Finding { place: format!("{} in {}", member.name, source.display()), ..finding };
        cycles::check(&workspace::sources(&member.folder)).into_iter().map(in_crate)
    };
    expect_none(&workspace::members().into_iter().flat_map(of_member).collect::<Vec<_>>());
}

#[test]
fn every_file_is_short_and_says_what_it_is_for() {
    let files = workspace::all_files();
    assert!(files.len() > 20, "only {} files found: is this the workspace?", files.len());
    expect_none(&files::check(&files));
}
