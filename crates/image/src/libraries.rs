//! What a program of the machine needs beside it to run elsewhere: its loader and its libraries, found as the loader would.
//!
//! By `readelf`, not by running the program: it also works for a tree of another architecture (`--root`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::layer::{Layer, LayerError};

/// Where Debian keeps libraries, below the root, once for each architecture (`/usr/lib/x86_64-linux-gnu`).
const PLACES: [&str; 2] = ["usr/lib", "lib"];

/// Copies a program below `root` to the same path in the image, with all that it loads at its start.
///
/// # Errors
/// It is not there, or a library is not.
pub fn with_libraries(layer: &mut Layer, root: &Path, program: &str) -> Result<(), LayerError> {
    let file = root.join(program.trim_start_matches('/'));
    layer.copy(program, 0o755, &file)?;
    for library in of(root, &file)? {
        layer.copy(&library, 0o755, &root.join(library.trim_start_matches('/')))?;
    }
    Ok(())
}

/// The loader and the libraries of a program (which may lie elsewhere), as paths below `root`; none of a static one.
///
/// # Errors
/// It is no program, or a library is not below `root`.
pub fn of(root: &Path, program: &Path) -> Result<Vec<String>, LayerError> {
    let mut open: Vec<PathBuf> = vec![program.to_owned()];
    let mut found = BTreeSet::new();
    while let Some(file) = open.pop() {
        let needs = needs(&file)?;
        let mut more: Vec<PathBuf> = needs.loader.iter().map(|path| path.trim_start_matches('/').into()).collect();
        for library in needs.libraries {
            more.push(find(root, &library).ok_or_else(|| LayerError::Libraries {
                program: file.clone(),
                problem: format!("needs {library}, which is not below {}", root.display()),
            })?);
        }
        for path in more {
            if found.insert(format!("/{}", path.display())) {
                open.push(root.join(path));
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The files of a folder among the libraries, such as plug-ins: sorted paths below `root`.
#[must_use]
pub fn in_folder(root: &Path, folder: &str) -> Vec<String> {
    let Some(place) = find(root, folder) else { return Vec::new() };
    let entries = std::fs::read_dir(root.join(&place)).into_iter().flatten().flatten();
    let mut paths: Vec<String> = entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| format!("/{}", place.join(entry.file_name()).display()))
        .collect();
    paths.sort();
    paths
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    loader: Option<String>,
    libraries: Vec<String>,
}

fn needs(file: &Path) -> Result<Needs, LayerError> {
    let failed = |problem: String| LayerError::Libraries { program: file.to_owned(), problem };
    let output = Command::new("readelf")
        .args(["--wide", "--dynamic", "--program-headers"])
        .arg(file)
        .output()
        .map_err(|error| failed(format!("cannot run readelf (Debian package binutils): {error}")))?;
    if !output.status.success() {
        return Err(failed(format!("readelf: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// `(NEEDED)  Shared library: [libc.so.6]`, and `[Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]`.
fn parse(text: &str) -> Needs {
    let between = |line: &str, before: &str| Some(line.split_once(before)?.1.split_once(']')?.0.to_owned());
    Needs {
        loader: text.lines().find_map(|line| between(line, "program interpreter: ")),
        libraries: text
            .lines()
            .filter(|line| line.contains("(NEEDED)"))
            .filter_map(|line| between(line, "["))
            .collect(),
    }
}

/// The path of a library below the root, without the root.
fn find(root: &Path, library: &str) -> Option<PathBuf> {
    let architectures = |place: &str| {
        let entries = std::fs::read_dir(root.join(place)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name.contains("-linux-gnu"));
        names.sort();
        names
    };
    PLACES.iter().find_map(|place| {
        let below = architectures(place).into_iter().map(|name| Path::new(place).join(name));
        below
            .chain([PathBuf::from(place)])
            .map(|directory| directory.join(library))
            .find(|path| root.join(path).exists())
    })
}

#[cfg(test)]
mod tests {
    use super::{Needs, parse, with_libraries};
    use crate::layer::Layer;

    #[test]
    fn what_readelf_says() {
        let text = "  INTERP 0x1 0x2\n      [Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]\n\
                    0x01 (NEEDED)             Shared library: [libmnl.so.0]\n0x01 (SONAME) Library soname: [x]\n\
                    0x01 (NEEDED)             Shared library: [libc.so.6]\n";
        let expected = Needs {
            loader: Some("/lib64/ld-linux-x86-64.so.2".to_owned()),
            libraries: vec!["libmnl.so.0".to_owned(), "libc.so.6".to_owned()],
        };
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn a_program_comes_with_its_loader_and_libraries() {
        let mut layer = Layer::default();
        with_libraries(&mut layer, "/".as_ref(), "/usr/bin/readelf").unwrap();
        assert!(layer.contains("/usr/bin/readelf"));
        let bytes = layer.to_tar().unwrap();
        let mut archive = tar::Archive::new(&*bytes);
        let paths: Vec<String> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        for part in ["libc.so.6", "/ld-linux"] {
            assert!(paths.iter().any(|path| path.contains(part)), "{part} in {paths:?}");
        }
        let refused = with_libraries(&mut layer, "/".as_ref(), "/etc/passwd").unwrap_err().to_string();
        assert!(refused.contains("/etc/passwd"), "{refused}");
    }
}
