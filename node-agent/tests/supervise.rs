//! The supervisor of `weft-node-agent run` with halves that are shell scripts: what ends is started again, and a signal
//! ends both, the proxy first.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use weft_node_agent::supervise::{Plan, run};
use weft_runtime::signals::Signals;
use weft_testkit::wait;

const DEADLINE: Duration = Duration::from_secs(10);

/// Called as `sh -c SCRIPT --only HALF`, so HALF is $1.
const HALF: &str = r#"trap 'echo "$1 ended" >> FILE; exit 0' TERM; echo "$1 $$" >> FILE; while :; do sleep 0.02; done"#;

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn pids(file: &Path, half: &str) -> Vec<i32> {
    lines(file).iter().filter_map(|line| line.strip_prefix(half)?.trim().parse().ok()).collect()
}

#[test]
fn a_killed_half_comes_back_and_a_signal_ends_the_proxy_before_the_capture_half() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lives");
    let plan = Plan {
        program: "sh".into(),
        arguments: vec!["-c".into(), HALF.replace("FILE", &file.display().to_string()).into()],
        drain_deadline: DEADLINE,
    };
    let supervisor = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { run(plan, Signals::new().unwrap()).await })
    });
    for half in ["proxy ", "capture "] {
        wait::until(DEADLINE, "the first life", || pids(&file, half).len() == 1).unwrap();
        kill(Pid::from_raw(pids(&file, half)[0]), Signal::SIGKILL).unwrap();
        wait::until(DEADLINE, "the second life", || pids(&file, half).len() == 2).unwrap();
    }
    raise(Signal::SIGTERM).unwrap();
    supervisor.join().unwrap().unwrap();
    assert_eq!(lines(&file)[4..], ["proxy ended", "capture ended"]);
    let all = [pids(&file, "proxy "), pids(&file, "capture ")].concat();
    assert!(all.into_iter().all(|pid| kill(Pid::from_raw(pid), None).is_err()), "nothing is left");
}
