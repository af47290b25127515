//! Which pods the nodes say they capture. The word of a node is kept as it was given, and believed only for pods that the
//! source says run there, at the moment when it is used: so a report that is quicker than the source is not lost, and one
//! that outlives its pod means nothing.
//!
//! Kept in `captured.json` of the state directory, written before it is in force: a server that was killed must not take
//! captured pods for plain ones when it comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weft_model::Uid;
use weft_runtime::shared::{self, Reader, Writer};

const FILE: &str = "captured.json";

/// What every node has reported last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    nodes: BTreeMap<Arc<str>, BTreeSet<Uid>>,
}

impl Captured {
    /// The pods to believe, given where each pod runs by the source (none: there is no such pod).
    #[must_use]
    pub fn effective<'n>(&self, node_of: impl Fn(&Uid) -> Option<&'n str>) -> BTreeSet<Uid> {
        let claims = self.nodes.iter().flat_map(|(node, uids)| uids.iter().map(move |uid| (node, uid)));
        claims.filter(|(node, uid)| node_of(uid) == Some(&***node)).map(|(_, uid)| uid.clone()).collect()
    }

    /// The report of one node.
    #[must_use]
    pub fn of_node(&self, node: &str) -> Option<&BTreeSet<Uid>> {
        self.nodes.get(node)
    }

    /// How many pods are claimed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.values().map(BTreeSet::len).sum()
    }

    /// Whether nothing is claimed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with(&self, node: &Arc<str>, uids: BTreeSet<Uid>) -> Self {
        let mut next = self.clone();
        if uids.is_empty() {
            next.nodes.remove(node);
        } else {
            next.nodes.insert(node.clone(), uids);
        }
        next
    }
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CapturedError {
    /// It cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It is not what we have written. Starting without it would make every captured pod plain until it is reported again.
    #[error("{} is damaged ({cause}); remove it to start with no captured pods until the nodes report again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: serde_json::Error,
    },
    /// It cannot be written; the report is not in force.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// The only one who changes it.
#[derive(Debug)]
pub struct CapturedStore {
    path: PathBuf,
    writer: Writer<Captured>,
    remembers: bool,
}

impl CapturedStore {
    /// Reads what was there, from `captured.json` in the directory.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn open(directory: &Path) -> Result<(Self, Reader<Captured>), CapturedError> {
        let path = directory.join(FILE);
        let (captured, remembers) = match std::fs::read(&path) {
            Ok(text) => {
                let known = serde_json::from_slice(&text);
                (known.map_err(|cause| CapturedError::Damaged { path: path.clone(), cause })?, true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Captured::default(), false),
            Err(cause) => return Err(CapturedError::Read { path, cause }),
        };
        let (writer, reader) = shared::channel(captured);
        Ok((Self { path, writer, remembers }, reader))
    }

    /// Whether there was a file: without one this is a new mesh, or one whose state was lost.
    #[must_use]
    pub fn remembers(&self) -> bool {
        self.remembers
    }

    /// How many pods all nodes claim.
    #[must_use]
    pub fn count(&self) -> usize {
        self.writer.load().len()
    }

    /// Puts the report of one node in force: first into the file, then for everybody. Does nothing if it says nothing new.
    /// Blocks for the time of an fsync, some milliseconds.
    ///
    /// # Errors
    /// It cannot be written, and is not in force.
    pub fn report(&mut self, node: &Arc<str>, uids: BTreeSet<Uid>) -> Result<(), CapturedError> {
        let next = self.writer.load().with(node, uids);
        if next != *self.writer.load() {
            write(&self.path, &next).map_err(|cause| CapturedError::Write { path: self.path.clone(), cause })?;
            self.writer.publish(next);
        }
        Ok(())
    }
}

/// Beside the file, to the disk, then into its place: whoever reads finds the old or the new, never a half.
fn write(path: &Path, captured: &Captured) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(captured)?)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uids(names: &[&str]) -> BTreeSet<Uid> {
        names.iter().map(|name| Uid::of_pod("c", "ns", name)).collect()
    }

    #[test]
    fn a_report_survives_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, reader) = CapturedStore::open(folder.path()).unwrap();
        let node: Arc<str> = "node-1".into();
        store.report(&node, uids(&["a", "b"])).unwrap();
        store.report(&"node-2".into(), uids(&["c"])).unwrap();
        store.report(&node, uids(&["b"])).unwrap();
        let version = reader.version();
        store.report(&node, uids(&["b"])).unwrap();
        assert_eq!(reader.version(), version, "nothing new");
        drop(store);
        let (mut store, again) = CapturedStore::open(folder.path()).unwrap();
        assert_eq!(again.load(), reader.load());
        assert_eq!(again.load().of_node("node-1"), Some(&uids(&["b"])));
        store.report(&node, BTreeSet::new()).unwrap();
        assert_eq!((again.load().of_node("node-1"), again.load().len()), (None, 1));
    }

    #[test]
    fn a_node_is_believed_only_for_its_own_pods() {
        let node: Arc<str> = "node-1".into();
        let captured = Captured::default().with(&node, uids(&["mine", "theirs", "gone"]));
        let node_of = |uid: &Uid| match uid.0.rsplit('/').next() {
            Some("mine") => Some("node-1"),
            Some("theirs") => Some("node-2"),
            _ => None,
        };
        assert_eq!(captured.effective(node_of), uids(&["mine"]));
    }

    #[test]
    fn a_damaged_file_is_an_error_with_a_next_step_and_what_cannot_be_written_is_not_in_force() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{\"nodes\": [").unwrap();
        let error = CapturedStore::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        let (mut store, reader) = CapturedStore::open(folder.path()).unwrap();
        folder.close().unwrap();
        assert!(matches!(store.report(&"n".into(), uids(&["a"])), Err(CapturedError::Write { .. })));
        assert!(reader.load().is_empty());
    }
}
