//! Watches a directory tree and delivers what is in force, whole and only when it changed.
//!
//! A plain thread and a callback: no runtime is needed, so every program can use it. The kernel's notices (inotify) say when
//! to look and which files are still open for writing; a look every few seconds makes up for notices that were lost, for
//! file systems without notices and for a directory that was away.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecursiveMode, Watcher};

use crate::files::{Files, QUIET, ScanError, Scanner, is_passing, name};
use crate::finding::{Finding, Place, Severity};
use crate::memory::{Memory, MemoryError};
use crate::store::{Outcome, Store};

/// How often the tree is looked through without any notice. One `stat` per file: 1,000 files cost about 2 ms.
pub const RESCAN: Duration = Duration::from_secs(5);
/// The same where the system gives no notices (fs.inotify.max_user_instances is 128 on many systems, for all programs of a user).
const BLIND: Duration = Duration::from_millis(500);
/// A file that somebody opened and wrote to, and did not close, is read as it is after this long without a further write:
/// the notice of closing may have been lost.
const ABANDONED: Duration = Duration::from_secs(10);
/// A tree that never settles (a log that ends in `.yaml`) is taken as it is after this long.
const RESTLESS: Duration = Duration::from_secs(2);

/// A running watch. Dropping it ends the watch without waiting; [`Watch::stop`] waits.
#[derive(Debug)]
pub struct Watch {
    control: Sender<Notice>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A watch that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The directory cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// It is a file.
    #[error("'{}' is not a directory; expected a directory with Kubernetes YAML", .0.display())]
    NotADirectory(PathBuf),
    /// The last good versions cannot be kept.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The system has no thread to give.
    #[error("cannot start the thread that watches '{}': {source}", path.display())]
    Thread {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

enum Notice {
    Event(notify::Event),
    /// Notices were lost or cannot be had.
    Trouble(String),
    Stop,
}

impl Watch {
    /// Starts to watch. The first delivery is what the directory holds now; it comes from the watch's own thread, soon.
    ///
    /// # Errors
    /// The directory is missing, cannot be read or is none, or there is no thread to be had. If it goes away *later*,
    /// everything stays in force and a finding says so.
    pub fn start(root: &Path, deliver: impl FnMut(Arc<Outcome>) + Send + 'static) -> Result<Self, WatchError> {
        Self::begin(root, None, deliver)
    }

    /// As [`start`](Self::start), and remembers the last good versions in a directory of its own, so that what is broken
    /// stays in force over a restart, too.
    ///
    /// # Errors
    /// As [`start`](Self::start), or when `memory` cannot be made or read.
    pub fn start_remembering(
        root: &Path,
        memory: &Path,
        deliver: impl FnMut(Arc<Outcome>) + Send + 'static,
    ) -> Result<Self, WatchError> {
        Self::begin(root, Some(Memory::open(memory)?), deliver)
    }

    fn begin(
        root: &Path,
        memory: Option<Memory>,
        deliver: impl FnMut(Arc<Outcome>) + Send + 'static,
    ) -> Result<Self, WatchError> {
        let mut scanner = Scanner::new(root);
        scanner.scan()?;
        if !root.is_dir() {
            return Err(WatchError::NotADirectory(root.to_owned()));
        }
        let mut store = Store::default();
        let remembered = memory.as_ref().map(|memory| store.apply(&memory.load())).unwrap_or_default();
        store.take_changes(); // they come from there
        let (control, notices) = channel();
        let run = Run {
            scanner,
            store,
            memory,
            open: BTreeMap::new(),
            last: None,
            remembered,
            away: false,
            blind: false,
            deliver,
            sender: control.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("manifest-watch".to_owned())
            .spawn(move || run.run(&notices))
            .map_err(|source| WatchError::Thread { path: root.to_owned(), source })?;
        Ok(Self { control, thread: Some(thread) })
    }

    /// Ends the watch; after this nothing is delivered.
    pub fn stop(mut self) {
        drop(self.control.send(Notice::Stop));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watched the directory had panicked");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A thread that has ended already needs no telling.
        let _ = self.control.send(Notice::Stop);
    }
}

struct Run<D> {
    scanner: Scanner,
    store: Store,
    memory: Option<Memory>,
    /// Files that somebody writes to just now, with the time of the last write.
    open: BTreeMap<PathBuf, Instant>,
    last: Option<(Files, Arc<Outcome>)>,
    /// What was in force when the program ended, until the directory was read.
    remembered: Outcome,
    /// The directory could not be read last time.
    away: bool,
    /// There were no notices last time, and it was said.
    blind: bool,
    deliver: D,
    sender: Sender<Notice>,
}

impl<D: FnMut(Arc<Outcome>)> Run<D> {
    fn run(mut self, notices: &Receiver<Notice>) {
        let mut watcher = self.watch_tree(None);
        let mut unsettled_since: Option<Instant> = None;
        loop {
            let settled = self.look(unsettled_since.is_some_and(|since| since.elapsed() >= RESTLESS));
            unsettled_since = if settled { None } else { Some(unsettled_since.unwrap_or_else(Instant::now)) };
            let rest = if watcher.is_some() { RESCAN } else { BLIND };
            let wait = if settled && self.open.is_empty() { rest } else { QUIET };
            match notices.recv_timeout(wait) {
                Ok(notice) => {
                    if !self.note(notice) {
                        return;
                    }
                    // Let what belongs together arrive together.
                    while let Ok(notice) = notices.recv_timeout(QUIET) {
                        if !self.note(notice) {
                            return;
                        }
                        if unsettled_since.get_or_insert_with(Instant::now).elapsed() >= RESTLESS {
                            break;
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) if wait == rest => watcher = self.watch_tree(watcher),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Takes in one notice; false when the watch has to end.
    fn note(&mut self, notice: Notice) -> bool {
        match notice {
            Notice::Stop => return false,
            Notice::Trouble(problem) => {
                tracing::warn!(problem, "notices of the directory are incomplete; looking regularly")
            }
            Notice::Event(event) => {
                for path in event.paths.into_iter().filter(|path| !is_passing(path)) {
                    match event.kind {
                        EventKind::Modify(ModifyKind::Data(_)) => drop(self.open.insert(path, Instant::now())),
                        EventKind::Access(AccessKind::Close(AccessMode::Write))
                        | EventKind::Modify(ModifyKind::Name(_))
                        | EventKind::Remove(_) => drop(self.open.remove(&path)),
                        _ => {}
                    }
                }
            }
        }
        true
    }

    /// Looks through the tree and delivers what changed. False: look again soon, somebody is writing.
    fn look(&mut self, impatient: bool) -> bool {
        self.open.retain(|_, written| written.elapsed() < ABANDONED);
        let scan = match self.scanner.scan() {
            Ok(scan) => scan,
            Err(error) => {
                self.keep_all(&error.path, &error.to_string());
                return true;
            }
        };
        if !scan.settled && !impatient {
            return false;
        }
        let mut files = scan.files;
        for path in self.open.keys() {
            let path = name(path);
            let before = self.last.as_ref().and_then(|(files, _)| files.contents.get(&path)).cloned();
            match before {
                Some(before) => drop(files.contents.insert(path, before)),
                None => drop(files.contents.remove(&path)),
            }
        }
        let in_force = self.last.as_ref().map_or(&self.remembered, |(_, outcome)| outcome).objects.len();
        if files.contents.is_empty() && files.unreadable.is_empty() && in_force > 0 {
            let root = self.scanner.root().to_owned();
            self.keep_all(&root, &empty(&root, in_force));
            return true;
        }
        let back = std::mem::take(&mut self.away);
        if !back && self.last.as_ref().is_some_and(|(last, _)| *last == files) {
            return true;
        }
        let outcome = Arc::new(self.store.apply(&files));
        if let Some(memory) = &mut self.memory {
            memory.save(self.store.take_changes());
        }
        self.publish(files, outcome);
        true
    }

    /// The directory itself is away, or what is in it is: nothing is removed.
    fn keep_all(&mut self, path: &Path, why: &str) {
        let before = self.last.as_ref().map_or(&self.remembered, |(_, outcome)| outcome).clone();
        let problem = format!("{why}; everything stays in force");
        let place = Place::whole_file(&path.to_string_lossy());
        let finding =
            Finding { place, severity: Severity::Error, object: String::new(), field: String::new(), problem };
        if !before.findings.contains(&finding) {
            let findings = before.findings.iter().cloned().chain([finding]).collect();
            let files = self.last.take().map(|(files, _)| files).unwrap_or_default();
            self.publish(files, Arc::new(Outcome { findings, ..before }));
        }
        self.away = true;
    }

    fn publish(&mut self, files: Files, outcome: Arc<Outcome>) {
        let changed = self.last.as_ref().is_none_or(|(_, last)| *last != outcome);
        self.last = Some((files, outcome.clone()));
        if changed {
            (self.deliver)(outcome);
        }
    }

    /// (Re)places the watch: directories that are new, or that came back under the same name, are watched from now on.
    fn watch_tree(&mut self, old: Option<notify::RecommendedWatcher>) -> Option<notify::RecommendedWatcher> {
        drop(old);
        let sender = self.sender.clone();
        let tell = move |event: notify::Result<notify::Event>| {
            let notice = match event {
                Ok(event) if matters(&event) => Notice::Event(event),
                Ok(_) => return,
                Err(error) => Notice::Trouble(error.to_string()),
            };
            // The watch may have ended.
            let _ = sender.send(notice);
        };
        let watched = notify::recommended_watcher(tell).and_then(|mut watcher| {
            watcher.watch(self.scanner.root(), RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        match watched {
            Ok(watcher) => {
                self.blind = false;
                Some(watcher)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    tracing::warn!(%error, every = ?BLIND, "the system gives no notices of changes in the directory; looking regularly");
                }
                None
            }
        }
    }
}

/// A file system that is not mounted looks like this, and so does a copy that begins by clearing: nobody empties a mesh by
/// accident. One file is sign enough that somebody means it.
fn empty(root: &Path, in_force: usize) -> String {
    format!(
        "'{}' holds no file any more, and {in_force} objects were in force; expected at least one file, be it a YAML file \
         with nothing but a comment, if all of them shall go",
        root.display()
    )
}

/// Reading a file makes notices, too; those would wake us for ever.
fn matters(event: &notify::Event) -> bool {
    !matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests;
