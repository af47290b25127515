//! Reads the workspace: members and their dependencies as cargo sees them, and the text of every Rust file.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One crate of the workspace.
pub(crate) struct Member {
    pub(crate) name: String,
    /// Where its Cargo.toml is.
    pub(crate) folder: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a crate's Cargo.toml.
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Dev,
    Build,
}

/// A Rust file; the path is relative to the root (of the workspace or of a crate's `src`).
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn members() -> Vec<Member> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    members_of(&serde_json::from_slice(&output.stdout).expect("cargo writes JSON"))
}

/// Reads what `cargo metadata --no-deps` prints.
pub(crate) fn members_of(metadata: &serde_json::Value) -> Vec<Member> {
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let dependency = |value: &serde_json::Value| Dependency {
        name: text(&value["name"]),
        kind: match value["kind"].as_str() {
            None => Kind::Normal,
            Some("dev") => Kind::Dev,
            Some(_) => Kind::Build,
        },
    };
    list(&metadata["packages"])
        .iter()
        .map(|package| Member {
            name: text(&package["name"]),
            folder: Path::new(&text(&package["manifest_path"])).parent().unwrap_or(Path::new("")).to_owned(),
            dependencies: list(&package["dependencies"]).iter().map(dependency).collect(),
        })
        .collect()
}

/// The Rust files of one crate's `src`.
pub(crate) fn sources(folder: &Path) -> Vec<SourceFile> {
    read_tree(&folder.join("src"))
}

/// Every Rust file of the workspace, tests and build scripts included.
pub(crate) fn all_files() -> Vec<SourceFile> {
    read_tree(&root())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("testkit lies two folders below the root")
}

fn read_tree(root: &Path) -> Vec<SourceFile> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a directory entry").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let built_or_hidden = name.starts_with('.') || name == "target" || name.starts_with("target-");
            if path.is_dir() && !built_or_hidden {
                folders.push(path);
            } else if path.is_file() && name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let path = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
                files.push(SourceFile { path, text });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}
