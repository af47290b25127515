//! The last good versions on disk: what a program that was killed needs to go on with when a file was broken meanwhile.
//!
//! One file per watched file, replaced by renaming. The first line is the watched file's path as a JSON text, the rest is
//! YAML. Only what changed is written. It is a copy of configuration, no source: without it nothing but the last good
//! versions of what is broken at the very moment of starting is lost.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::Files;

/// A directory that remembers.
#[derive(Debug)]
pub struct Memory {
    directory: PathBuf,
    /// Where each watched file's copy stands.
    copies: BTreeMap<Arc<str>, PathBuf>,
    /// What could not be written yet.
    unsaved: BTreeMap<Arc<str>, Option<Vec<u8>>>,
}

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use '{}' for the last good versions: {source}; expected a directory that this user may write", path.display())]
pub struct MemoryError {
    /// The directory.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// How copies end; everything else in the directory is left alone.
const ENDING: &str = "last-good";

impl Memory {
    /// Opens the directory, making it (0700: pods' specs may hold what is not for everybody) if it is not there.
    ///
    /// # Errors
    /// It cannot be made, listed or written.
    pub fn open(directory: &Path) -> Result<Self, MemoryError> {
        let failed = |source| MemoryError { path: directory.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let mut memory = Self { directory: directory.to_owned(), copies: BTreeMap::new(), unsaved: BTreeMap::new() };
        memory.try_writing().map_err(failed)?;
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == ENDING) {
                match read_copy(&path) {
                    Some((name, _)) => drop(memory.copies.insert(name, path)),
                    None => {
                        tracing::warn!(path = %path.display(), "a last good version cannot be read and is left out")
                    }
                }
            }
        }
        Ok(memory)
    }

    /// What was in force last.
    #[must_use]
    pub fn load(&self) -> Files {
        let copies = self.copies.values().filter_map(|path| read_copy(path));
        Files { contents: copies.map(|(name, text)| (name, Ok(text.into()))).collect(), ..Files::default() }
    }

    /// Writes what changed. What cannot be written (a full disk) is said and tried again with the next change: serving
    /// goes on, only the memory is old.
    pub fn save(&mut self, changes: Vec<(Arc<str>, Option<Vec<u8>>)>) {
        self.unsaved.extend(changes);
        let unsaved = std::mem::take(&mut self.unsaved);
        for (name, text) in unsaved {
            if let Err(error) = self.save_one(&name, text.as_deref()) {
                tracing::error!(file = %name, %error, "cannot remember the last good version; trying again with the next change");
                self.unsaved.insert(name, text);
            }
        }
    }

    fn save_one(&mut self, name: &Arc<str>, text: Option<&[u8]>) -> io::Result<()> {
        match (text, self.copies.get(name).cloned()) {
            (Some(text), path) => {
                let path = path.unwrap_or_else(|| self.free_path(name));
                let heading = serde_json::to_string(name).map_err(io::Error::other)? + "\n";
                replace(&path, &[heading.as_bytes(), text])?;
                self.copies.insert(name.clone(), path);
            }
            (None, Some(path)) => {
                fs::remove_file(path)?;
                self.copies.remove(name);
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// The hash keeps names short and free of slashes; the first line says whose copy it is, so that no hash need be
    /// stable from version to version.
    fn free_path(&self, name: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        loop {
            name.hash(&mut hasher);
            let path = self.directory.join(format!("{:016x}.{ENDING}", hasher.finish()));
            if !self.copies.values().any(|taken| *taken == path) {
                return path;
            }
        }
    }

    fn try_writing(&self) -> io::Result<()> {
        let path = self.directory.join(".writable");
        replace(&path, &[])?;
        fs::remove_file(path)
    }
}

/// Whole or not at all, for readers and for a process that is killed meanwhile.
fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let staged = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
    for part in parts {
        file.write_all(part)?;
    }
    drop(file);
    fs::rename(staged, path)
}

fn read_copy(path: &Path) -> Option<(Arc<str>, Vec<u8>)> {
    let bytes = fs::read(path).ok()?;
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let name: String = serde_json::from_slice(&bytes[..end]).ok()?;
    Some((name.into(), bytes[end + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::Memory;

    #[test]
    fn what_is_saved_is_loaded_again_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/last-good");
        let mut memory = Memory::open(&path).unwrap();
        assert!(memory.load().contents.is_empty());
        let odd = "a\nb/\"c\".yaml";
        memory.save(vec![(odd.into(), Some(b"n: 1".to_vec())), ("d.yaml".into(), Some(b"n: 2\n".to_vec()))]);
        memory.save(vec![("d.yaml".into(), None), ("e.yaml".into(), None)]);
        fs::write(path.join("broken.last-good"), "no heading").unwrap();
        fs::write(path.join("somebody-elses"), "x").unwrap();
        let loaded = Memory::open(&path).unwrap().load().contents;
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[odd].as_deref().unwrap(), b"n: 1");
        let copies = fs::read_dir(&path).unwrap().flatten();
        for entry in copies.filter(|entry| entry.file_name().len() == "0123456789abcdef.last-good".len()) {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn an_unusable_directory_is_an_error_with_the_next_step() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Memory::open(&file).unwrap_err().to_string();
        assert!(error.contains("expected a directory that this user may write"), "{error}");
    }
}
