//! What a scan reads, leaves out, and says about the rest.

use std::fs;
use std::os::unix::fs::symlink;

use super::{QUIET, Scanner};

#[test]
fn reads_yaml_in_all_folders_and_says_what_it_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("b/.git")).unwrap();
    for name in ["a.yaml", "b/c.yml", "b/d.json", "b/.git/x.yaml", ".hidden.yaml", "a.yaml~", "e.yaml.tmp", "README.md"]
    {
        fs::write(root.join(name), name).unwrap();
    }
    symlink("nowhere.yaml", root.join("dangling.yaml")).unwrap();
    symlink("..", root.join("b/loop")).unwrap();
    let files = Scanner::new(root).scan().unwrap().files;
    let short = |name: &str| name.strip_prefix(&format!("{}/", root.display())).unwrap().to_owned();
    let direct = |name: &String| !name.contains("loop");
    let read: Vec<String> = files.contents.keys().map(|name| short(name)).filter(direct).collect();
    assert_eq!(read, ["a.yaml", "b/c.yml", "b/d.json"]);
    assert_eq!(files.ignored.iter().map(|name| short(name)).filter(direct).collect::<Vec<_>>(), ["README.md"]);
    assert!(!files.unreadable.is_empty(), "the circle of links is told");
}

#[test]
fn a_single_file_may_have_any_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policies.txt");
    fs::write(&file, "n: 1").unwrap();
    let files = Scanner::new(&file).scan().unwrap().files;
    assert_eq!(files.contents.values().next().unwrap().as_deref().unwrap(), b"n: 1");
}

#[test]
fn a_file_that_was_just_written_is_not_settled_and_becomes_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    fs::write(&file, "n: 1").unwrap();
    let mut scanner = Scanner::new(directory.path());
    assert!(!scanner.scan().unwrap().settled);
    let old = std::time::SystemTime::now() - 2 * QUIET;
    fs::File::options().append(true).open(&file).unwrap().set_modified(old).unwrap();
    assert!(scanner.scan().unwrap().settled);
}

#[test]
fn a_missing_root_is_an_error_with_the_next_step() {
    let error = Scanner::new("/nonexistent/mesh").scan().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read '/nonexistent/mesh': No such file or directory (os error 2); expected a directory with Kubernetes \
         YAML that this user may read"
    );
}
