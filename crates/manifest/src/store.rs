//! Files in, objects in force out: the last good version of everything that is broken now.
//!
//! | what happens to a file | what is in force |
//! |---|---|
//! | a document of it is refused, its kind and name can be read | that object's last good version; all else as written |
//! | a document of it cannot be told at all (broken YAML) | every object that the file had before and does not have otherwise |
//! | it cannot be read, or its directory cannot be listed | all that it had |
//! | it is removed, or a document is removed from it | gone |
//!
//! Pure: the same files in the same order give the same result. What did not change is not read again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::check::check;
use crate::document;
use crate::files::Files;
use crate::finding::{Finding, Place, Severity};
use crate::objects::{Object, ObjectKey, Objects, Reading, read};

/// Remembers the last good version of every object.
#[derive(Debug, Default)]
pub struct Store {
    files: BTreeMap<Arc<str>, FileState>,
    /// Files of which something else is in force since somebody asked.
    changed: BTreeSet<Arc<str>>,
}

/// What is in force after a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The objects in force.
    pub objects: Objects,
    /// What is wrong, in the order of the files.
    pub findings: Vec<Finding>,
    /// Objects of which an older version is in force than the files say.
    pub kept: BTreeSet<ObjectKey>,
    /// The policies as an API server has them now, refused ones too, to tell it what becomes of them; none of files.
    pub policies: BTreeMap<ObjectKey, Revision>,
}

/// Which state of an object an API server has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revision {
    /// Which life of its name.
    pub uid: String,
    /// Counts up with every change of its spec.
    pub generation: u64,
}

#[derive(Debug)]
struct FileState {
    content: Result<Arc<[u8]>, String>,
    held: Vec<Held>,
    findings: Vec<Finding>,
}

#[derive(Debug, Clone)]
struct Held {
    key: ObjectKey,
    object: Object,
    place: Place,
    /// The bytes in which `place` counts: the file's, or those of an older version.
    source: Arc<[u8]>,
    /// An older version than the file's.
    old: bool,
}

impl Store {
    /// Takes a snapshot of the files in.
    pub fn apply(&mut self, files: &Files) -> Outcome {
        let gone = |path: &Arc<str>| {
            let hidden = files.unreadable.keys().any(|directory| is_below(path, directory));
            !files.contents.contains_key(path) && !hidden
        };
        self.changed.extend(self.files.keys().filter(|path| gone(path)).cloned());
        self.files.retain(|path, _| !gone(path));
        for (path, content) in &files.contents {
            let before = self.files.get(path);
            if before.is_none_or(|before| before.content != *content) {
                let held = before.map_or(&[][..], |before| &before.held);
                let state = read_file(path, content, held);
                self.files.insert(path.clone(), state);
                self.changed.insert(path.clone());
            }
        }
        self.merge(files)
    }

    /// The files that changed since the last call, each with a text that says what is in force of it, or `None` when that
    /// is nothing. Applied to an empty store, these texts give the same objects: how the last good versions outlive a
    /// restart.
    pub fn take_changes(&mut self) -> Vec<(Arc<str>, Option<Vec<u8>>)> {
        let changed = std::mem::take(&mut self.changed);
        let text = |path: &Arc<str>| self.files.get(path).and_then(FileState::text_in_force);
        changed.into_iter().map(|path| (path.clone(), text(&path))).collect()
    }

    fn merge(&self, files: &Files) -> Outcome {
        let mut outcome = Outcome::default();
        for (directory, why) in &files.unreadable {
            outcome.findings.push(whole_file(directory, Severity::Error, why.clone()));
        }
        for path in &files.ignored {
            let problem = "is not named .yaml, .yml or .json; ignored".to_owned();
            outcome.findings.push(whole_file(path, Severity::Note, problem));
        }
        for state in self.files.values() {
            outcome.findings.extend(state.findings.iter().cloned());
            for held in &state.held {
                if let Some(first) = outcome.objects.place(&held.key) {
                    let problem =
                        format!("is already defined at {first}, and that one counts; expected each name once");
                    let finding = whole_file("", Severity::Error, problem);
                    let object = held.key.to_string();
                    outcome.findings.push(Finding { place: held.place.clone(), object, ..finding });
                    continue;
                }
                if held.old {
                    outcome.kept.insert(held.key.clone());
                }
                outcome.objects.insert(held.key.clone(), held.object.clone(), held.place.clone());
            }
        }
        outcome.findings.extend(check(&outcome.objects));
        outcome.findings.sort();
        outcome
    }
}

impl FileState {
    fn text_in_force(&self) -> Option<Vec<u8>> {
        if self.held.is_empty() {
            return None;
        }
        match &self.content {
            // Exactly what was written, where all of it counts.
            Ok(bytes) if !self.held.iter().any(|held| held.old) => Some(bytes.to_vec()),
            _ => Some(self.held.iter().filter_map(Held::text).collect::<String>().into_bytes()),
        }
    }
}

impl Held {
    /// The document as YAML, found again in the bytes that it was read from.
    fn text(&self) -> Option<String> {
        let same = |place: &Place| (place.document, place.item) == (self.place.document, self.place.item);
        let documents = document::split(&self.place.file, &self.source);
        let found = documents.into_iter().flatten().find(|document| same(&document.place))?;
        serde_yaml::to_string(&found.value).ok().map(|text| format!("---\n{text}"))
    }
}

fn read_file(path: &str, content: &Result<Arc<[u8]>, String>, before: &[Held]) -> FileState {
    let old = |held: &Held| Held { old: true, ..held.clone() };
    let bytes = match content {
        Ok(bytes) => bytes,
        Err(why) => {
            let findings = vec![whole_file(path, Severity::Error, why.clone())];
            return FileState { content: content.clone(), held: before.iter().map(old).collect(), findings };
        }
    };
    let (mut held, mut findings) = (Vec::new(), Vec::new());
    let mut nameless = false;
    for document in document::split(path, bytes) {
        let document = match document {
            Ok(document) => document,
            Err(finding) => {
                nameless = true;
                findings.push(finding);
                continue;
            }
        };
        match read(&document) {
            Reading::Good(key, object, warnings) => {
                findings.extend(warnings);
                held.push(Held { key, object, place: document.place, source: bytes.clone(), old: false });
            }
            Reading::Refused(key, faults) => {
                findings.extend(faults);
                nameless |= key.is_none();
                held.extend(before.iter().find(|held| Some(&held.key) == key.as_ref()).map(old));
            }
            Reading::Foreign(note) => findings.push(note),
        }
    }
    if nameless {
        let missing = |candidate: &&Held| !held.iter().any(|held| held.key == candidate.key);
        let rest: Vec<Held> = before.iter().filter(missing).map(old).collect();
        held.extend(rest);
    }
    FileState { content: content.clone(), held, findings }
}

fn whole_file(path: &str, severity: Severity, problem: String) -> Finding {
    Finding { place: Place::whole_file(path), severity, object: String::new(), field: String::new(), problem }
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/') || directory.ends_with('/'))
}

#[cfg(test)]
mod tests;
