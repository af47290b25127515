//! From a directory tree to the bytes of its files, read so that no half-written file is taken for a whole one.
//!
//! A snapshot is settled when no file changed while it was read and none changed just before. Whoever writes in place and
//! takes longer is recognised by the watch (`watch.rs`), which knows of files that are still open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What a directory tree holds: the input of [`crate::Store::apply`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// The files in the order of their paths: their bytes, or why they cannot be read.
    pub contents: BTreeMap<Arc<str>, Result<Arc<[u8]>, String>>,
    /// Directories that cannot be listed, and why: what was in them stays in force.
    pub unreadable: BTreeMap<Arc<str>, String>,
    /// Files that are left out because of their names.
    pub ignored: BTreeSet<Arc<str>>,
}

/// A tree that cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read '{}': {source}; expected a directory with Kubernetes YAML that this user may read", path.display())]
pub struct ScanError {
    /// The path as given.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// A snapshot, and whether the files stood still while it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// What was read.
    pub files: Files,
    /// No file changed during the reading, nor in [`QUIET`] before it. Take another snapshot otherwise.
    pub settled: bool,
}

/// A file that changed less than this ago may still be being written. A program that writes 64 KiB pieces needs
/// microseconds between them; 50 ms also outlasts a scheduling hiccup.
pub const QUIET: Duration = Duration::from_millis(50);

/// Larger files are refused: a Kubernetes object has at most 1.5 MiB (etcd's request limit), so this is hundreds of pods
/// in one List, and a mistake (a disk image, a log) does not fill the memory.
const FILE_LIMIT: u64 = 64 << 20;
/// Directories deeper than this are refused.
const DEPTH_LIMIT: usize = 32;
/// Directories of one tree. Thirty that each link twice to the next one are a billion ways, and a walk without end; a node
/// has thousands of files at most, and those in a few directories.
const DIRECTORY_LIMIT: usize = 4096;

/// Takes snapshots of one tree and remembers what it read, so that the next one costs one `stat` per unchanged file.
#[derive(Debug)]
pub struct Scanner {
    root: PathBuf,
    known: BTreeMap<PathBuf, (Stamp, Arc<[u8]>)>,
}

/// What changes when a file changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// One walk through the tree.
struct Walk<'a> {
    known: &'a BTreeMap<PathBuf, (Stamp, Arc<[u8]>)>,
    read: BTreeMap<PathBuf, (Stamp, Arc<[u8]>)>,
    files: Files,
    settled: bool,
    now: SystemTime,
    /// The directories on the way to where the walk is, by device and inode.
    above: Vec<(u64, u64)>,
    directories: usize,
}

impl Scanner {
    /// A scanner for a directory tree, or for a single file.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), known: BTreeMap::new() }
    }

    /// What it scans.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads what has changed.
    ///
    /// # Errors
    /// [`ScanError`] when the root itself cannot be read; anything less is part of the snapshot.
    pub fn scan(&mut self) -> Result<Scan, ScanError> {
        let failed = |source| ScanError { path: self.root.clone(), source };
        let metadata = fs::metadata(&self.root).map_err(failed)?;
        let mut walk = Walk {
            known: &self.known,
            read: BTreeMap::new(),
            files: Files::default(),
            settled: true,
            now: SystemTime::now(),
            above: vec![(metadata.dev(), metadata.ino())],
            directories: 0,
        };
        if metadata.is_dir() {
            let entries = fs::read_dir(&self.root).map_err(failed)?;
            walk.directory(&self.root, entries);
        } else {
            walk.file(&self.root); // named by the user, whatever its extension
        }
        let Walk { read, files, settled, .. } = walk;
        self.known = read;
        Ok(Scan { files, settled })
    }
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, entries: fs::ReadDir) {
        for entry in entries {
            match entry {
                Ok(entry) => self.entry(&entry.path()),
                Err(error) => drop(self.files.unreadable.insert(name(path), error.to_string())),
            }
        }
    }

    fn entry(&mut self, path: &Path) {
        if is_passing(path) {
            return;
        }
        // Follows links: a mounted ConfigMap consists of them.
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            // Gone since it was listed (a rename), or a link to nowhere: no content either way.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.settled = path.is_symlink() && self.settled;
            }
            Err(error) => return drop(self.files.contents.insert(name(path), Err(cannot_read(&error)))),
        };
        if metadata.is_dir() {
            self.below(path, (metadata.dev(), metadata.ino()));
        } else if metadata.is_file() && has_extension(path) {
            self.file(path);
        } else {
            self.files.ignored.insert(name(path));
        }
    }

    fn below(&mut self, path: &Path, this: (u64, u64)) {
        let refused = if self.above.contains(&this) {
            Some("is a directory that it lies in; expected no circle of links".to_owned())
        } else if self.above.len() > DEPTH_LIMIT {
            Some(format!("is more than {DEPTH_LIMIT} directories deep"))
        } else if self.directories >= DIRECTORY_LIMIT {
            Some(format!("is beyond the first {DIRECTORY_LIMIT} directories; expected fewer, or fewer links to them"))
        } else {
            None
        };
        match refused.map_or_else(|| fs::read_dir(path).map_err(|error| cannot_read(&error)), Err) {
            Ok(entries) => {
                self.directories += 1;
                self.above.push(this);
                self.directory(path, entries);
                self.above.pop();
            }
            Err(why) => drop(self.files.unreadable.insert(name(path), why)),
        }
    }

    fn file(&mut self, path: &Path) {
        let content = match read_settled(path, self.known.get(path)) {
            Ok((stamp, bytes, stood_still)) => {
                let quiet = fs::metadata(path).and_then(|metadata| metadata.modified()).is_ok_and(|modified| {
                    // A time in the future is no sign of a writer.
                    self.now.duration_since(modified).map_or(true, |age| age >= QUIET)
                });
                self.settled &= stood_still && quiet;
                self.read.insert(path.to_owned(), (stamp, bytes.clone()));
                Ok(bytes)
            }
            Err(error) => {
                self.settled &= error.kind() != io::ErrorKind::NotFound; // moved away while we looked
                Err(cannot_read(&error))
            }
        };
        self.files.contents.insert(name(path), content);
    }
}

/// The bytes of a file and whether it stood still meanwhile.
fn read_settled(path: &Path, known: Option<&(Stamp, Arc<[u8]>)>) -> io::Result<(Stamp, Arc<[u8]>, bool)> {
    let before = Stamp::of(&fs::metadata(path)?);
    if let Some((stamp, bytes)) = known
        && *stamp == before
    {
        return Ok((before, bytes.clone(), true));
    }
    let mut file = fs::File::open(path)?;
    let mut bytes = Vec::new();
    (&mut file).take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(io::Error::other(format!("it is larger than {} MiB; split it", FILE_LIMIT >> 20)));
    }
    let after = Stamp::of(&fs::metadata(path)?);
    let stood_still = before == after && Stamp::of(&file.metadata()?) == before;
    Ok((before, bytes.into(), stood_still))
}

/// Hidden files, editors' copies and files on their way to another name. Also the `..data` of a mounted ConfigMap, to
/// which the visible names link.
pub(crate) fn is_passing(path: &Path) -> bool {
    let Some(name) = path.file_name() else { return false };
    let name = name.to_string_lossy();
    name.starts_with('.') || name.ends_with('~') || name.ends_with(".tmp") || name.ends_with(".swp")
}

fn has_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

/// A path as findings show it.
pub(crate) fn name(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

fn cannot_read(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

#[cfg(test)]
mod tests;
