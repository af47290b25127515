//! The files of an image, and the tar that holds them: sorted by path, owned by root, from 1970.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

/// A file that cannot be taken into a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The tar cannot be made.
    #[error("cannot write the layer: {0}")]
    Tar(#[from] io::Error),
    /// What a program needs cannot be found.
    #[error("{}: {problem}", program.display())]
    Libraries {
        /// The program.
        program: PathBuf,
        /// What is missing.
        problem: String,
    },
}

#[derive(Debug, Clone)]
enum Entry {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

/// Files by their absolute path in the image. What comes later replaces what was there under the same path.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    entries: BTreeMap<String, Entry>,
}

impl Layer {
    /// A file of given bytes; the directories above it come by themselves (mode 0755).
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> &mut Self {
        self.put(path, Entry::File { mode, content: content.into() })
    }

    /// An empty directory.
    pub fn directory(&mut self, path: &str, mode: u32) -> &mut Self {
        self.put(path, Entry::Directory { mode })
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.put(path, Entry::Link { target: target.to_owned() })
    }

    /// A file of this machine.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn copy(&mut self, path: &str, mode: u32, from: &Path) -> Result<&mut Self, LayerError> {
        let content = std::fs::read(from).map_err(|cause| LayerError::Read { path: from.to_owned(), cause })?;
        Ok(self.file(path, mode, content))
    }

    /// Whether there is something under this path.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_start_matches('/'))
    }

    /// The tar.
    ///
    /// # Errors
    /// A path does not fit into one.
    pub fn to_tar(&self) -> Result<Vec<u8>, LayerError> {
        let mut builder = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            match entry {
                Entry::Directory { mode } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    builder.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
                Entry::File { mode, content } => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, path, &**content)?;
                }
                Entry::Link { target } => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(builder.into_inner()?)
    }

    fn put(&mut self, path: &str, entry: Entry) -> &mut Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let path = parts.join("/");
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].to_owned()).or_insert(Entry::Directory { mode: 0o755 });
        }
        self.entries.insert(path, entry);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::Layer;

    #[test]
    fn the_order_in_which_files_come_is_not_in_the_tar() {
        let mut one = Layer::default();
        one.file("/usr/bin/b", 0o755, "b").file("/etc/a", 0o644, "a").link("/bin", "usr/bin");
        let mut other = Layer::default();
        other.link("/bin", "usr/bin").file("etc/a", 0o644, "old").file("etc/a", 0o644, "a").file(
            "usr/bin/b",
            0o755,
            "b",
        );
        assert_eq!(one.to_tar().unwrap(), other.to_tar().unwrap());
    }

    #[test]
    fn what_was_put_in_comes_out() {
        let long = format!("/opt/{}/file", "directory/".repeat(30)); // longer than the header of a tar has room for
        let mut layer = Layer::default();
        layer.file(&long, 0o640, "far down").directory("/tmp", 0o1777).link("/bin/sh", "dash");
        let bytes = layer.to_tar().unwrap();
        let mut archive = tar::Archive::new(&*bytes);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 0));
            seen.push((entry.path().unwrap().display().to_string(), header.mode().unwrap(), content));
        }
        assert!(
            seen.contains(&(long.trim_start_matches('/').replace("//", "/"), 0o640, "far down".to_owned())),
            "{seen:?}"
        );
        assert!(seen.contains(&("tmp/".to_owned(), 0o1777, String::new())) && seen[0].0 == "bin/", "{seen:?}");
        assert!(Layer::default().copy("/x", 0o644, "/no/such".as_ref()).unwrap_err().to_string().contains("/no/such"));
    }
}
