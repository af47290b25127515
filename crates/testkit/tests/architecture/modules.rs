//! The module tree of one crate: which file is which module, and where a path through it ends.

use std::collections::BTreeMap;

use crate::references::{Import, References, references};
use crate::workspace::SourceFile;

/// The files of one crate as modules, by their path from the crate's root.
pub(crate) struct Modules {
    by_path: BTreeMap<Vec<String>, Module>,
}

pub(crate) struct Module {
    pub(crate) file: String,
    /// A face (lib.rs, main.rs, mod.rs) shows what others define: it is looked through, and is no node of the graph.
    pub(crate) is_face: bool,
    pub(crate) references: References,
}

/// `use a as b` can go round in circles; nobody chains this many re-exports in earnest.
const MOST_REEXPORTS: usize = 8;

impl Modules {
    pub(crate) fn new(files: &[SourceFile]) -> Self {
        let mut by_path = BTreeMap::new();
        for file in files {
            let Some(path) = module_path(&file.path) else { continue };
            let is_face = matches!(file.path.rsplit('/').next(), Some("lib.rs" | "main.rs" | "mod.rs"));
            let references = references(&file.text);
            let module = Module { file: file.path.clone(), is_face, references };
            // lib.rs and main.rs of one package share the root; the library's imports are the ones that matter inside.
            if file.path != "main.rs" || !by_path.contains_key(&path) {
                by_path.insert(path, module);
            }
        }
        Self { by_path }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Vec<String>, &Module)> {
        self.by_path.iter()
    }

    /// The file that defines what the path names, seen from `module` (with `inline` modules open inside it); `None` for
    /// other crates and for faces. The deepest module on the path either defines the next name or imports it; an import
    /// is followed to where it leads.
    pub(crate) fn resolve(&self, module: &[String], inline: usize, path: &[String]) -> Option<&Module> {
        let mut path = self.absolute(module, inline, path)?;
        for _ in 0..MOST_REEXPORTS {
            let known = (0..=path.len()).rev().find(|length| self.by_path.contains_key(&path[..*length]))?;
            let (place, rest) = path.split_at(known);
            let module = &self.by_path[place];
            let Some(import) = rest.first().and_then(|name| import_of(module, name)) else {
                return (!module.is_face).then_some(module);
            };
            let target: Vec<_> = import.path.iter().chain(&rest[1..]).cloned().collect();
            path = self.absolute(place, 0, &target)?;
        }
        None
    }

    fn absolute(&self, module: &[String], mut inline: usize, path: &[String]) -> Option<Vec<String>> {
        let mut base = module.to_vec();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => (base, rest) = (Vec::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    rest = &rest[1..];
                    // Leaving an inline module leads to the file that it stands in.
                    match inline.checked_sub(1) {
                        Some(fewer) => inline = fewer,
                        None => drop(base.pop()?),
                    }
                }
            }
            first => {
                let mut child = base.clone();
                child.push(first.to_owned());
                let known = self.by_path.contains_key(&child)
                    || self.by_path.get(&base).is_some_and(|module| import_of(module, first).is_some());
                known.then_some(())?;
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }
}

fn import_of<'m>(module: &'m Module, name: &str) -> Option<&'m Import> {
    // An import of a module under its own name (`use a;`) would lead back to itself.
    module.references.imports.iter().find(|import| import.name == name && import.path != [name])
}

/// `a/b.rs` and `a/b/mod.rs` are `a::b`; a file in `bin` is a crate of its own.
fn module_path(file: &str) -> Option<Vec<String>> {
    if file.starts_with("bin/") {
        return None;
    }
    let mut path: Vec<String> = file.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    let face = path.last().is_some_and(|last| last == "mod") || matches!(file, "lib.rs" | "main.rs");
    if face {
        path.pop();
    }
    Some(path)
}
