//! The watch against a real directory: every way in which people and tools change files. Waits for conditions, never for
//! time.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::{Watch, WatchError};
use crate::store::Outcome;

/// Far above what the watch needs, so that a busy machine fails no test.
const DEADLINE: Duration = Duration::from_secs(20);

struct Watched {
    directory: tempfile::TempDir,
    outcomes: Receiver<Arc<Outcome>>,
    seen: Vec<String>,
    _watch: Watch,
}

impl Watched {
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("mesh");
        fs::create_dir(&root).unwrap();
        prepare(&root);
        let (sender, outcomes) = channel();
        let watch = Watch::start(&root, move |outcome| drop(sender.send(outcome))).unwrap();
        Self { directory, outcomes, seen: Vec::new(), _watch: watch }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("mesh").join(name)
    }

    /// Waits for an outcome with these services (`name:port`), and remembers all that came before.
    fn wait_for(&mut self, services: &str) -> Arc<Outcome> {
        self.wait_until(services, |_, shown| shown == services)
    }

    fn wait_until(&mut self, what: &str, accept: impl Fn(&Outcome, &str) -> bool) -> Arc<Outcome> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.outcomes.recv_timeout(left) {
                Ok(outcome) => {
                    let shown = services(&outcome);
                    self.seen.push(shown.clone());
                    if accept(&outcome, &shown) {
                        return outcome;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("waited for {what}, saw {:?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => panic!("the watch ended; saw {:?}", self.seen),
            }
        }
    }
}

fn services(outcome: &Outcome) -> String {
    let one = |((_, name), service): (&(String, String), &Arc<crate::objects::Service>)| {
        format!("{name}:{}", service.ports[0].port)
    };
    outcome.objects.services.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn service(name: &str, port: u16) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n")
}

#[test]
fn writes_renames_removals_and_new_folders_are_seen() {
    let mut watched = Watched::start(|root| fs::write(root.join("a.yaml"), service("a", 1)).unwrap());
    watched.wait_for("a:1");
    fs::write(watched.path("a.yaml"), service("a", 2)).unwrap();
    watched.wait_for("a:2");
    fs::create_dir_all(watched.path("x/y")).unwrap();
    fs::write(watched.path("x/y/b.yml"), service("b", 1)).unwrap();
    watched.wait_for("a:2 b:1");
    fs::write(watched.path(".a.yaml.new"), service("a", 3)).unwrap();
    fs::rename(watched.path(".a.yaml.new"), watched.path("a.yaml")).unwrap();
    watched.wait_for("a:3 b:1");
    fs::remove_dir_all(watched.path("x")).unwrap();
    watched.wait_for("a:3");
    fs::write(watched.path("empty.yaml"), "# nothing is meant to be here\n").unwrap();
    fs::remove_file(watched.path("a.yaml")).unwrap();
    watched.wait_for("");
}

#[test]
fn a_directory_that_is_emptied_empties_nothing_until_somebody_says_so() {
    let mut watched = Watched::start(|root| fs::write(root.join("a.yaml"), service("a", 1)).unwrap());
    watched.wait_for("a:1");
    fs::remove_file(watched.path("a.yaml")).unwrap();
    let outcome = watched.wait_until("a finding", |outcome, _| !outcome.findings.is_empty());
    assert_eq!(services(&outcome), "a:1");
    assert!(outcome.findings[0].problem.contains("be it a YAML file"), "{:?}", outcome.findings);
    fs::write(watched.path("b.yaml"), service("b", 1)).unwrap();
    assert_eq!(watched.wait_for("b:1").findings, []);
    fs::write(watched.path("empty.yaml"), "# on purpose\n").unwrap();
    fs::remove_file(watched.path("b.yaml")).unwrap();
    assert_eq!(watched.wait_for("").findings, []);
}

/// The volume is not mounted yet when the program comes back.
#[test]
fn a_directory_that_is_empty_at_a_restart_empties_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let [root, memory] = ["mesh", "memory"].map(|name| directory.path().join(name));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a.yaml"), service("a", 1)).unwrap();
    let start = || {
        let (sender, outcomes) = channel();
        (Watch::start_remembering(&root, &memory, move |outcome| drop(sender.send(outcome))).unwrap(), outcomes)
    };
    let (watch, outcomes) = start();
    assert_eq!(services(&outcomes.recv_timeout(DEADLINE).unwrap()), "a:1");
    watch.stop();
    fs::remove_file(root.join("a.yaml")).unwrap();
    for _ in 0..2 {
        let (watch, outcomes) = start();
        let outcome = outcomes.recv_timeout(DEADLINE).unwrap();
        assert_eq!((services(&outcome).as_str(), outcome.findings.len()), ("a:1", 1), "also the second time");
        watch.stop();
    }
    fs::write(root.join("a.yaml"), service("a", 2)).unwrap();
    let (_watch, outcomes) = start();
    let outcome = outcomes.recv_timeout(DEADLINE).unwrap();
    assert_eq!((services(&outcome).as_str(), outcome.findings.len()), ("a:2", 0));
}

#[test]
fn a_file_that_is_still_open_for_writing_is_not_read() {
    let mut watched =
        Watched::start(|root| fs::write(root.join("a.yaml"), service("a", 1) + &service("b", 1)).unwrap());
    watched.wait_for("a:1 b:1");
    // Half of the new content is a good file by itself: only the open descriptor tells that more is to come.
    let mut file = fs::File::create(watched.path("a.yaml")).unwrap();
    file.write_all(service("a", 2).as_bytes()).unwrap();
    file.flush().unwrap();
    fs::write(watched.path("other.yaml"), service("c", 1)).unwrap();
    watched.wait_for("a:1 b:1 c:1");
    file.write_all(service("b", 2).as_bytes()).unwrap();
    drop(file);
    watched.wait_for("a:2 b:2 c:1");
    assert_eq!(watched.seen, ["a:1 b:1", "a:1 b:1 c:1", "a:2 b:2 c:1"]);
}

#[test]
fn many_renames_never_show_a_mixture() {
    // Both services always have the same port in each file's version.
    let both = |port: u16| service("a", port) + &service("b", port);
    let mut watched = Watched::start(|root| fs::write(root.join("a.yaml"), both(1)).unwrap());
    for port in 2..=40 {
        let staged = watched.directory.path().join("staged");
        fs::write(&staged, both(port)).unwrap();
        fs::rename(staged, watched.path("a.yaml")).unwrap();
    }
    watched.wait_for("a:40 b:40");
    for seen in &watched.seen {
        let ports: Vec<&str> = seen.split(' ').filter_map(|service| service.split(':').nth(1)).collect();
        assert_eq!(ports.len(), 2, "{seen}");
        assert_eq!(ports[0], ports[1], "{seen}");
    }
}

#[test]
fn a_broken_file_is_told_and_repaired_ones_count_again() {
    let mut watched = Watched::start(|root| fs::write(root.join("a.yaml"), service("a", 1)).unwrap());
    watched.wait_for("a:1");
    fs::write(watched.path("a.yaml"), "apiVersion: v1\nkind: [\n").unwrap();
    let outcome = watched.wait_until("a finding", |outcome, _| !outcome.findings.is_empty());
    assert_eq!((services(&outcome).as_str(), outcome.kept.len()), ("a:1", 1));
    fs::write(watched.path("a.yaml"), service("a", 2)).unwrap();
    assert_eq!(watched.wait_for("a:2").findings, []);
}

#[test]
fn a_mounted_config_map_changes_by_its_hidden_link() {
    let version = |root: &Path, name: &str, port: u16| {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("a.yaml"), service("a", port)).unwrap();
        std::os::unix::fs::symlink(name, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    };
    let mut watched = Watched::start(|root| {
        version(root, "..2026_1", 1);
        std::os::unix::fs::symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    });
    watched.wait_for("a:1");
    version(&watched.path(""), "..2026_2", 2);
    watched.wait_for("a:2");
}

#[test]
fn a_directory_that_goes_away_keeps_everything_and_may_come_back() {
    let mut watched = Watched::start(|root| fs::write(root.join("a.yaml"), service("a", 1)).unwrap());
    watched.wait_for("a:1");
    let away = watched.directory.path().join("away");
    fs::rename(watched.path(""), &away).unwrap();
    let outcome = watched.wait_until("a finding", |outcome, _| !outcome.findings.is_empty());
    assert_eq!(services(&outcome), "a:1");
    assert!(outcome.findings[0].problem.contains("everything stays in force"), "{:?}", outcome.findings);
    fs::write(away.join("b.yaml"), service("b", 1)).unwrap();
    fs::rename(away, watched.path("")).unwrap();
    assert_eq!(watched.wait_for("a:1 b:1").findings, []);
}

#[test]
fn nothing_is_delivered_when_nothing_changes() {
    let mut watched = Watched::start(|root| fs::write(root.join("a.yaml"), service("a", 1)).unwrap());
    watched.wait_for("a:1");
    // Another time and an editor's backup: no news. The next true change is the next delivery.
    fs::write(watched.path("a.yaml"), service("a", 1)).unwrap();
    fs::write(watched.path("a.yaml~"), service("z", 1)).unwrap();
    fs::write(watched.path("b.yaml"), service("b", 1)).unwrap();
    watched.wait_for("a:1 b:1");
    assert_eq!(watched.seen, ["a:1", "a:1 b:1"]);
}

#[test]
fn what_cannot_be_watched_is_said_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Watch::start(&directory.path().join("missing"), |_| {}).unwrap_err();
    assert!(missing.to_string().contains("expected a directory with Kubernetes YAML"), "{missing}");
    let file = directory.path().join("a.yaml");
    fs::write(&file, "").unwrap();
    assert!(matches!(Watch::start(&file, |_| {}), Err(WatchError::NotADirectory(_))));
}

#[test]
fn stopping_ends_the_deliveries() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, outcomes) = channel();
    let watch = Watch::start(directory.path(), move |outcome| drop(sender.send(outcome))).unwrap();
    watch.stop();
    // The callback was dropped with the thread: after at most one delivery the channel is closed, not silent.
    while outcomes.recv_timeout(DEADLINE).map_err(|error| assert_eq!(error, RecvTimeoutError::Disconnected)).is_ok() {}
}

#[test]
fn the_last_good_version_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (root, memory) = (directory.path().join("mesh"), directory.path().join("state/last-good"));
    fs::create_dir(&root).unwrap();
    let next = |what: &str| {
        let (sender, outcomes) = channel();
        let watch = Watch::start_remembering(&root, &memory, move |outcome| drop(sender.send(outcome))).unwrap();
        let outcome = outcomes.recv_timeout(DEADLINE).expect(what);
        watch.stop();
        outcome
    };
    fs::write(root.join("a.yaml"), service("a", 1) + &service("b", 1)).unwrap();
    fs::write(root.join("c.yaml"), service("c", 1)).unwrap();
    assert_eq!(services(&next("good")), "a:1 b:1 c:1");

    // Broken while nobody watched: one document, and one whole file.
    fs::write(root.join("a.yaml"), service("a", 2) + &service("b", 0)).unwrap();
    fs::write(root.join("c.yaml"), "kind: [").unwrap();
    for again in ["broken", "still broken"] {
        let outcome = next(again);
        assert_eq!(services(&outcome), "a:2 b:1 c:1");
        assert_eq!(outcome.kept.len(), 2);
    }
    fs::remove_file(root.join("c.yaml")).unwrap();
    assert_eq!(services(&next("removed")), "a:2 b:1");
    fs::write(root.join("c.yaml"), "kind: [").unwrap();
    assert_eq!(services(&next("not remembered for ever")), "a:2 b:1");
}
