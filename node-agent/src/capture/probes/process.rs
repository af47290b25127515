//! Processes of the node, from /proc.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::owner::{Namespaces, Process};

/// What the kernel writes behind the name of a program whose file is not there any more: it was replaced by a newer one.
const DELETED: &str = " (deleted)";

/// A process, by its directory.
///
/// # Errors
/// It is gone, is a thread of the kernel (no program), or may not be looked at (CAP_SYS_PTRACE; AppArmor).
pub(super) fn read(proc: &Path, pid: u32) -> io::Result<Process> {
    let directory = proc.join(pid.to_string());
    let program = fs::read_link(directory.join("exe"))?;
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    let program = program.strip_suffix(DELETED).unwrap_or(&program).to_owned();
    let arguments = fs::read(directory.join("cmdline"))?;
    let arguments = arguments.split(|byte| *byte == 0).filter(|text| !text.is_empty());
    Ok(Process {
        pid,
        started: started(&fs::read_to_string(directory.join("stat"))?).ok_or(io::ErrorKind::InvalidData)?,
        is_root: is_root(&fs::read_to_string(directory.join("status"))?),
        program,
        arguments: arguments.map(|text| String::from_utf8_lossy(text).into_owned()).collect(),
        namespaces: namespaces(&directory)?,
    })
}

/// The namespaces of the process with this directory.
///
/// # Errors
/// As [`read`].
pub(super) fn namespaces(directory: &Path) -> io::Result<Namespaces> {
    let of = |kind: &str| {
        let found = fs::metadata(directory.join("ns").join(kind))?;
        io::Result::Ok((found.dev(), found.ino()))
    };
    Ok(Namespaces { pid: of("pid")?, mnt: of("mnt")?, net: of("net")?, user: of("user")? })
}

/// The ids of all processes.
pub(super) fn all(proc: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process has this socket open.
///
/// # Errors
/// As [`read`].
pub(super) fn holds(proc: &Path, pid: u32, inode: u32) -> io::Result<bool> {
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir(proc.join(pid.to_string()).join("fd"))? {
        // One that was closed meanwhile is not the one: a probe's socket stays open until its answer.
        if fs::read_link(entry?.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Field 22 of /proc/PID/stat; the program's name, field 2, may hold anything but ends with the last parenthesis.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn is_root(status: &str) -> bool {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    users.is_some_and(|users| users.split_whitespace().eq(["0"; 4]))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn fields_of_a_process() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(started(stat), Some(4711));
        assert_eq!(started("12 (a"), None);
        assert!(is_root("Name:\tx\nUid:\t0\t0\t0\t0\nGid:\t1\t1\t1\t1\n"));
        for other in ["Uid:\t0\t0\t0\t1000\n", "Uid:\t0\t0\t0\n", "Uid:\t0 0 0 0 0", "Gid:\t0\t0\t0\t0\n", ""] {
            assert!(!is_root(other), "{other}");
        }
    }

    #[test]
    fn this_process_and_its_socket() {
        let (proc, pid) = (Path::new("/proc"), std::process::id());
        let own = read(proc, pid).unwrap();
        assert_eq!(own, read(proc, pid).unwrap());
        assert_eq!(Some(&*own.program), std::env::current_exe().unwrap().file_name().and_then(|name| name.to_str()));
        assert_eq!(own.namespaces, namespaces(Path::new("/proc/self")).unwrap());
        assert!(all(proc).any(|found| found == pid));
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let inode = link.to_str().unwrap().trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap();
        assert!(holds(proc, pid, inode).unwrap());
        assert!(!holds(proc, pid, u32::MAX).unwrap());
        assert!(read(proc, 0).is_err());
    }
}
