//! The supervisor of `weft-node-agent run` with halves that are shell scripts: what ends is started again, and a signal
//! ends both, the proxy first.

#![expect(clippy::unwrap_used, reason = "test equipment outside of #[test] functions: a failure is the test's")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use weft_node_agent::supervise::{Plan, run};
use weft_runtime::signals::Signals;
use weft_testkit::wait;

const DEADLINE: Duration = Duration::from_secs(10);

/// Called as `SCRIPT --only HALF [--say-ready]`.
const HALF: &str = r#"#!/bin/sh
  [ "$1" = --version ] && exit 0
  trap 'echo "$2 ended" >> FILE; exit 0' TERM; echo "$2 $$" >> FILE
  if [ "$3" ]; then [ -e FILE.broken ] && exit 1; until [ -e FILE.ready ]; do sleep 0.02; done; echo >&0; fi
  while :; do sleep 0.02; done
"#;

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A supervisor on a thread of its own, with halves that write into `file`.
fn start(file: &Path) -> std::thread::JoinHandle<std::io::Result<()>> {
    let program = file.with_extension("sh");
    fs::write(&program, HALF.replace("FILE", &file.display().to_string())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let plan = Plan { program, arguments: Vec::new(), drain_deadline: DEADLINE };
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { run(plan, Signals::new().unwrap()).await })
    })
}

fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}

fn pids(file: &Path, half: &str) -> Vec<i32> {
    lines(file).iter().filter_map(|line| line.strip_prefix(half)?.trim().parse().ok()).collect()
}

/// Signals go to the whole process, so all of it is one test.
#[test]
fn a_killed_half_comes_back_sighup_upgrades_and_sigterm_ends_the_proxy_before_the_capture_half() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lives");
    let supervisor = start(&file);
    for half in ["proxy ", "capture "] {
        wait::until(DEADLINE, "the first life", || pids(&file, half).len() == 1).unwrap();
        kill(Pid::from_raw(pids(&file, half)[0]), Signal::SIGKILL).unwrap();
        wait::until(DEADLINE, "the second life", || pids(&file, half).len() == 2).unwrap();
    }
    upgrade(&file);
    raise(Signal::SIGTERM).unwrap();
    supervisor.join().unwrap().unwrap();
    let ends: Vec<_> = lines(&file).into_iter().rev().take(2).collect();
    assert_eq!(ends, ["capture ended", "proxy ended"]);
    let all = [pids(&file, "proxy "), pids(&file, "capture ")].concat();
    assert!(!all.into_iter().any(is_alive), "nothing is left");
}

/// The proxy of before lives until its successor is ready, and goes on when the successor is of no use.
fn upgrade(file: &Path) {
    let with = |end: &str| file.with_extension(end);
    let [old, capture] = ["proxy ", "capture "].map(|half| *pids(file, half).last().unwrap());
    fs::write(with("broken"), "").unwrap();
    raise(Signal::SIGHUP).unwrap();
    wait::until(DEADLINE, "a successor that fails", || pids(file, "proxy ").len() == 3).unwrap();
    wait::until(DEADLINE, "another capture half", || pids(file, "capture ").len() == 3).unwrap();
    assert!(!is_alive(capture), "killed, not asked to end");
    wait::until(DEADLINE, "its end", || !is_alive(pids(file, "proxy ")[2])).unwrap();
    fs::remove_file(with("broken")).unwrap();
    raise(Signal::SIGHUP).unwrap();
    wait::until(DEADLINE, "a successor", || pids(file, "proxy ").len() == 4).unwrap();
    wait::pause(Duration::from_millis(200));
    assert!(is_alive(old), "the successor is not ready yet");
    fs::write(with("ready"), "").unwrap();
    wait::until(DEADLINE, "the end of the old one", || !is_alive(old)).unwrap();
    assert!(is_alive(pids(file, "proxy ")[3]));
    let ended = lines(file).iter().filter(|line| *line == "proxy ended").count();
    assert_eq!(ended, 1, "the old one was asked to end");
}
