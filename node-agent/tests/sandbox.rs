//! What is behind the walls of `sandbox`: each test encloses one thread of its own by the same code as the proxy half, and
//! tries what it must not be able to do. Run as root, the attempts are made with every capability, and refused all the same.
//! That the real proxy works behind them is shown by every test that starts one; that they stand there, by `mesh`.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::ptrace;
use nix::sys::signal::kill;
use nix::unistd::{Pid, chroot, getppid};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use weft_node_agent::sandbox::{Enclosure, Mode, Readable, enclose};

/// Runs in an enclosed thread; walls end with it.
fn enclosed<T: Send + 'static>(
    mode: Mode,
    readable: Readable,
    test: impl FnOnce(&Enclosure) -> T + Send + 'static,
) -> T {
    let thread = std::thread::spawn(move || test(&enclose(mode, &readable).unwrap()));
    thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

/// False, with a line that says so, where this kernel has not the wall that is asked about: then there is nothing to try.
fn stands(wall: fn(&Enclosure) -> bool) -> bool {
    let (there, what) = enclosed(Mode::BestEffort, Readable::default(), move |walls| (wall(walls), walls.to_string()));
    if !there {
        eprintln!("SKIPPED: {what}");
    }
    there
}

fn denied(outcome: io::Result<File>) -> bool {
    outcome.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[test]
fn files_outside_the_list_cannot_be_opened() {
    if !stands(Enclosure::is_whole) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (secrets, others) = (directory.path().join("secrets"), directory.path().join("others"));
    for path in [&secrets, &others] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("token"), "old").unwrap();
    }
    let (token, other) = (secrets.join("token"), others.join("token"));
    let (asks, asked) = std::sync::mpsc::channel::<()>();
    let (replaced, wait) = std::sync::mpsc::channel::<()>();
    let (mine, foreign) = (token.clone(), other.clone());
    let thread = std::thread::spawn(move || {
        enclose(Mode::Required, &Readable::new([mine.clone()])).unwrap();
        assert_eq!(fs::read_to_string(&mine).unwrap(), "old");
        for path in [&foreign, Path::new("/etc/shadow"), Path::new("/etc/passwd"), Path::new("/proc/1/environ")] {
            assert!(denied(File::open(path)), "{}", path.display());
        }
        assert!(denied(File::create(&mine)), "nothing is writable");
        assert!(denied(File::create(mine.with_file_name("new"))), "nothing can be created");
        fs::remove_file(&mine).unwrap_err();
        fs::rename(&mine, mine.with_file_name("new")).unwrap_err();
        fs::hard_link(&foreign, mine.with_file_name("link")).unwrap_err();
        assert!(fs::read_dir("/").is_err());
        asks.send(()).unwrap();
        wait.recv().unwrap();
        assert_eq!(fs::read_to_string(&mine).unwrap(), "new", "read again after it was replaced");
        fs::read_to_string(mine.with_file_name("token")).unwrap();
    });
    if asked.recv().is_ok() {
        fs::write(secrets.join("next"), "new").unwrap();
        fs::rename(secrets.join("next"), &token).unwrap();
        replaced.send(()).unwrap();
    }
    thread.join().unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "old");
}

#[test]
fn namespaces_programs_and_other_processes_are_out_of_reach() {
    if !stands(Enclosure::has_calls) {
        return;
    }
    let own_namespace = File::open("/proc/self/ns/net").unwrap();
    enclosed(Mode::BestEffort, Readable::default(), move |_| {
        assert_eq!(setns(&own_namespace, CloneFlags::CLONE_NEWNET), Err(Errno::EPERM));
        for namespace in [CloneFlags::CLONE_NEWUSER, CloneFlags::CLONE_NEWNET, CloneFlags::CLONE_NEWNS] {
            assert_eq!(unshare(namespace), Err(Errno::EPERM), "{namespace:?}");
        }
        assert_eq!(chroot("/proc/self"), Err(Errno::EPERM));
        let bind = mount(Some("/proc/self"), "/proc/self", None::<&str>, MsFlags::MS_BIND, None::<&str>);
        assert_eq!(bind, Err(Errno::EPERM));
        assert_eq!(ptrace::attach(getppid()), Err(Errno::EPERM));
        assert_eq!(kill(Pid::this(), None), Err(Errno::EPERM));
        let started = Command::new("/bin/true").spawn().map(drop).map_err(|error| error.raw_os_error());
        assert_eq!(started, Err(Some(Errno::EPERM as i32)));
    });
}

#[test]
fn only_sockets_of_tcp_udp_and_unix() {
    if !stands(Enclosure::has_calls) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("handover.sock");
    let listener = UnixListener::bind(&path).unwrap();
    enclosed(Mode::BestEffort, Readable::default(), move |_| {
        let open = |family, kind| socket_with(family, kind, SocketFlags::CLOEXEC, None).map(drop);
        for family in [AddressFamily::PACKET, AddressFamily::NETLINK, AddressFamily::VSOCK] {
            assert_eq!(open(family, SocketType::RAW), Err(rustix::io::Errno::PERM), "{family:?}");
            assert_eq!(open(family, SocketType::DGRAM), Err(rustix::io::Errno::PERM), "{family:?}");
        }
        assert_eq!(open(AddressFamily::INET, SocketType::RAW), Err(rustix::io::Errno::PERM));
        // What a proxy does, still done: TCP, UDP, the socket between the halves, threads, randomness, its own figures.
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        near.write_all(b"x").unwrap();
        tcp.accept().unwrap().0.read_exact(&mut [0]).unwrap();
        UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        assert!(fs::read_to_string("/proc/thread-self/status").unwrap().contains("Seccomp:\t2"));
        assert!(fs::read_dir("/proc/self/fd").unwrap().count() > 0);
        assert!(std::thread::available_parallelism().is_ok());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::sleep(std::time::Duration::from_millis(1)).await });
    });
}

#[test]
fn off_is_off_and_says_so() {
    let said = enclosed(Mode::Off, Readable::default(), |walls| {
        assert!(!walls.is_whole());
        File::open("/etc/passwd").unwrap();
        walls.to_string()
    });
    assert!(said.contains("--sandbox off"), "{said}");
}
