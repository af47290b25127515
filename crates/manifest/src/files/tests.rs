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

/// With two links in each directory every step doubles the ways.
#[test]
fn links_that_multiply_end_the_walk_and_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let circle = directory.path().join("circle");
    fs::create_dir(&circle).unwrap();
    for name in ["a", "b"] {
        symlink(".", circle.join(name)).unwrap();
    }
    fs::write(circle.join("policy.yaml"), "n: 1").unwrap();
    let chain = directory.path().join("chain");
    for step in 0..30 {
        fs::create_dir_all(chain.join(step.to_string())).unwrap();
        for name in ["a", "b"] {
            symlink(format!("../{}", step + 1), chain.join(format!("{step}/{name}"))).unwrap();
        }
    }
    let (answer, answered) = std::sync::mpsc::channel();
    let scan = |root| Scanner::new(root).scan().unwrap().files;
    std::thread::spawn(move || answer.send(Box::new([scan(circle), scan(chain)])));
    let [circle, chain] = *answered.recv_timeout(std::time::Duration::from_secs(20)).expect("the walk ends");
    assert_eq!((circle.contents.len(), circle.unreadable.len()), (1, 2));
    assert!(chain.unreadable.values().any(|why| why.contains("4096")));
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
