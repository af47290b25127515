//! The way into a private world: own network, mount and process namespaces, with root's rights there and nowhere else.
//!
//! A test or program calls `enter_*` first. Outside, it starts itself again through `unshare` (as root: `-nmp`; as an
//! ordinary user: `-Urnmp`); inside, it goes on. When the inner process ends, however it ends, the kernel takes away
//! every process, namespace, rule and mount that it made: a crashed test leaves nothing behind.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;
use std::{env, thread};

use nix::unistd::Uid;

/// Set inside: `root` or `user`.
const INSIDE: &str = "WEFT_LAB_INSIDE";
/// Set by `enter_program`: the process id outside, of `unshare`.
const OUTER: &str = "WEFT_LAB_OUTER_PID";
/// Chosen by people and the Makefile: `auto` (default: whatever works, else skip), `root`, `user` (must work).
const CHOICE: &str = "WEFT_NETNS";
/// The ordinary user that root becomes for `WEFT_NETNS=user`: nobody on every distribution that we know.
const NOBODY: &str = "65534";
/// A test that runs longer hangs: the slowest one of the repository takes some 20 s on two busy cores.
const TEST_LIMIT: Duration = Duration::from_secs(240);

/// Prepares the inside, then runs "$@". /run must be ours, because `ip netns` and the xtables lock live there.
/// Ordinary users often lack the sbin directories in their PATH. "watched": standard input is a pipe from the outer
/// process; when that one dies, this shell ends, and as process 1 of its namespace it takes all others with it. Otherwise
/// Ctrl-C is the program's to answer, and its exit code counts.
const INIT: &str = r#"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/netns /run/lock && ip link set lo up || exit 125
mode=$1; shift
if [ "$mode" = watched ]; then
  exec 3<&0 </dev/null
  "$@" 3<&- & main=$!
  trap 'kill -9 $main; exit 143' TERM
  (read -r _ <&3; kill -TERM $$) >/dev/null 2>&1 &
  wait $main; exit $?
fi
trap : INT
"$@"; exit $?
"#;

/// Everything that the laboratory needs, tried before anything depends on it.
const PROBE: &str = "ip netns add probe && ip netns delete probe && iptables -t mangle -S >/dev/null";

/// How the private namespaces are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// By real root.
    Root,
    /// By an ordinary user, through a user namespace.
    User,
    /// Root turns into user nobody first, then as `User`.
    Nobody,
    /// Root gives up all capabilities first, then as `User`: where nobody cannot reach the program's file.
    Powerless,
}

/// What the inner process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// Real root.
    Root,
    /// Root of a user namespace; an ordinary user of the machine.
    User,
}

/// Neither root nor user namespaces work; the text says what was tried and what to do.
#[derive(Clone, Debug)]
pub struct Impossible(String);

impl fmt::Display for Impossible {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Impossible {}

impl Inside {
    /// Inside or outside? `None`: outside.
    fn current() -> Option<Self> {
        match env::var_os(INSIDE)?.to_str()? {
            "root" => Some(Self::Root),
            "user" => Some(Self::User),
            _ => None,
        }
    }
}

impl Door {
    /// The doors to try, in order.
    fn candidates(choice: &str, root: bool) -> &'static [Self] {
        match (choice, root) {
            ("root", _) => &[Self::Root],
            ("user", true) => &[Self::Nobody, Self::Powerless],
            (_, true) => &[Self::Root, Self::User],
            (_, false) => &[Self::User],
        }
    }

    /// The command line in front of the program. Without a process namespace where a container forbids a new /proc.
    fn arguments(self, own_processes: bool) -> Vec<&'static str> {
        let mut words: Vec<&str> = match self {
            Self::Root | Self::User => vec![],
            Self::Nobody => vec!["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"],
            Self::Powerless => vec!["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
        };
        words.extend(["unshare", "--net", "--mount", "--fork", "--kill-child"]);
        if self != Self::Root {
            words.extend(["--user", "--map-root-user"]);
        }
        if own_processes {
            words.extend(["--pid", "--mount-proc"]);
        }
        words
    }

    fn inside(self) -> &'static str {
        if self == Self::Root { "root" } else { "user" }
    }

    fn command(self, own_processes: bool, mode: &str, program: &OsStr) -> Command {
        let words = self.arguments(own_processes);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["--", "sh", "-c", INIT, "weft-lab", mode]).arg(program);
        command.env(INSIDE, self.inside());
        command
    }

    fn probe(self, own_processes: bool, program: &Path) -> Result<(), String> {
        // `test -x` also finds out whether user nobody may execute the program where it lies.
        let script = format!("test -x {:?} && {PROBE}", program.display().to_string());
        let mut command = self.command(own_processes, "plain", OsStr::new("sh"));
        let output = command.args(["-c", &script]).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Finds the way in, once per process.
///
/// # Errors
/// [`Impossible`] with the reason of each attempt and the next step.
pub fn way_in() -> Result<(Door, bool), Impossible> {
    static FOUND: OnceLock<Result<(Door, bool), Impossible>> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

fn find() -> Result<(Door, bool), Impossible> {
    let program = own_program().map_err(|error| Impossible(error.to_string()))?;
    let mut refusals = String::new();
    for door in Door::candidates(&choice(), Uid::effective().is_root()) {
        for own_processes in [true, false] {
            match door.probe(own_processes, &program) {
                Ok(()) => return Ok((*door, own_processes)),
                Err(refusal) => {
                    refusals.push_str(&format!("\n  {}: {refusal}", door.arguments(own_processes).join(" ")));
                }
            }
        }
    }
    Err(Impossible(format!(
        "no network namespaces here: the laboratory needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN) or unprivileged user \
         namespaces, and iproute2, iptables and util-linux (`make setup` installs them). Tried:{refusals}\n  \
         Next: run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
         kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces>0)"
    )))
}

fn choice() -> String {
    env::var_os(CHOICE).and_then(|value| value.into_string().ok()).unwrap_or_else(|| "auto".to_owned())
}

fn own_program() -> std::io::Result<std::path::PathBuf> {
    env::current_exe()
}

/// For programs: inside, says what we are; outside, replaces this process by itself inside (same arguments, same
/// terminal) and does not return.
///
/// # Errors
/// [`Impossible`], also when the replacement fails.
pub fn enter_program() -> Result<Inside, Impossible> {
    if let Some(inside) = Inside::current() {
        return Ok(inside);
    }
    let (door, own_processes) = way_in()?;
    let program = own_program().map_err(|error| Impossible(error.to_string()))?;
    let mut command = door.command(own_processes, "plain", program.as_os_str());
    // exec keeps the number: it becomes that of `unshare`, whose only child is process 1 inside.
    command.env(OUTER, std::process::id().to_string());
    let failure = command.args(env::args_os().skip(1).collect::<Vec<OsString>>()).exec();
    Err(Impossible(format!("cannot start {command:?}: {failure}")))
}

/// The process outside whose only child is process 1 in here: how a person of the machine finds the way in.
#[must_use]
pub fn outer_pid() -> Option<u32> {
    env::var_os(OUTER)?.to_str()?.parse().ok()
}

/// For tests, through the macro [`crate::enter_or_skip!`]: `Some` inside (go on), `None` outside (the test `path`
/// has been run inside a process of its own and has passed, or the machine allows no laboratory and says so).
///
/// # Panics
/// When the test fails inside; or when there is no way in and `WEFT_NETNS` demands one.
pub fn enter_test(path: &str) -> Option<Inside> {
    if let Some(inside) = Inside::current() {
        return Some(inside);
    }
    match way_in() {
        Ok((door, own_processes)) => run_inside(path, door, own_processes),
        Err(impossible) if choice() == "auto" => {
            // Written past libtest's capture: a skipped test must be seen.
            let _ = writeln!(std::io::stderr(), "SKIPPED {path}: {impossible}");
        }
        Err(impossible) => panic!("{path}: {impossible}"),
    }
    None
}

fn run_inside(path: &str, door: Door, own_processes: bool) {
    let program = own_program().expect("a running test knows its file");
    let mut command = door.command(own_processes, "watched", program.as_os_str());
    command.args(["--exact", path, "--nocapture", "--include-ignored", "--test-threads=1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the way in was tried before");
    // The inner world ends when this pipe closes: when this thread lets go after the limit, or when this process dies.
    let lifeline = child.stdin.take();
    let (finished, running) = mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        let late = matches!(running.recv_timeout(TEST_LIMIT), Err(mpsc::RecvTimeoutError::Timeout));
        drop(lifeline);
        late
    });
    let output = child.wait_with_output().expect("the output of the inner process can be read");
    drop(finished);
    let late = guard.join().unwrap_or(false);
    let words = String::from_utf8_lossy(&output.stdout);
    // A wrong path runs no test and "passes": the count must be there.
    let passed = output.status.success() && words.contains("1 passed");
    assert!(
        passed,
        "{path} failed inside ({door:?}, {}{}):\n{words}{}",
        output.status,
        if late { ", over its time limit" } else { "" },
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The first line of a namespace test: inside a laboratory's private namespaces it evaluates to how they were made
/// ([`Inside`]); outside it runs this very test in there and returns from the function.
///
/// ```no_run
/// #[test]
/// fn pods_talk() {
///     weft_testkit::enter_or_skip!();
///     let lab = weft_testkit::netns::Lab::builder().nodes(2).build().unwrap();
/// }
/// ```
#[macro_export]
macro_rules! enter_or_skip {
    () => {{
        fn here() {}
        // crate::module::test_name::here, as libtest names it without the crate and without the last word.
        let path = ::std::any::type_name_of_val(&here);
        let path = path.strip_suffix("::here").unwrap_or(path);
        let path = path.strip_suffix("::{{closure}}").unwrap_or(path); // an async test's body
        let path = path.split_once("::").map_or(path, |(_, inner)| inner);
        match $crate::netns::enter_test(path) {
            Some(inside) => inside,
            None => return,
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_by_choice() {
        for (choice, root, expected) in [
            ("auto", true, &[Door::Root, Door::User][..]),
            ("auto", false, &[Door::User]),
            ("root", false, &[Door::Root]),
            ("user", true, &[Door::Nobody, Door::Powerless]),
            ("user", false, &[Door::User]),
        ] {
            assert_eq!(Door::candidates(choice, root), expected, "{choice} {root}");
        }
    }
}
