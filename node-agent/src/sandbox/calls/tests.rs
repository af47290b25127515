//! The filters as the kernel reads them: an interpreter of classic BPF answers for every call.

use nix::libc::{self, c_long};
use rstest::rstest;
use seccompiler::{BpfProgram, sock_filter};

use super::super::table::{FORBIDDEN, USED};
use super::{forbidden, used};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0000 | 1;
const ENOSYS: u32 = 0x0005_0000 | 38;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// `struct seccomp_data` (seccomp(2)): number, architecture, instruction pointer, six arguments.
fn data(arch: u32, number: i64, arguments: &[u64]) -> [u8; 64] {
    let mut data = [0; 64];
    data[..4].copy_from_slice(&u32::try_from(number).unwrap().to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    for (at, argument) in arguments.iter().enumerate() {
        data[16 + 8 * at..24 + 8 * at].copy_from_slice(&argument.to_ne_bytes());
    }
    data
}

/// Runs one program (Documentation/networking/filter.rst; only what seccompiler writes).
fn run(program: &[sock_filter], data: &[u8; 64]) -> u32 {
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let step = &program[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
        match step.code {
            0x20 => {
                let offset = step.k as usize;
                accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            0x05 => at += step.k as usize,
            0x15 => at += jump(accumulator == step.k),
            0x25 => at += jump(accumulator > step.k),
            0x35 => at += jump(accumulator >= step.k),
            0x54 => accumulator &= step.k,
            0x06 => return step.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What both say: the stricter action; of two errors the filter that was installed last.
fn answer_on(arch: u32, number: i64, arguments: &[u64]) -> u32 {
    let programs: [BpfProgram; 2] = [forbidden().unwrap(), used().unwrap()];
    let data = data(arch, number, arguments);
    let answers: Vec<u32> = programs.iter().map(|program| run(program, &data)).collect();
    [KILL, EPERM, ENOSYS].into_iter().find(|answer| answers.contains(answer)).unwrap_or(ALLOW)
}

fn answer(call: c_long, arguments: &[u64]) -> u32 {
    answer_on(ARCH, call, arguments)
}

#[test]
fn each_call_of_the_lists_is_answered_as_listed() {
    // With these arguments `clone` is a thread, `socket` is TCP, and memory is data.
    let harmless = |call| match call {
        libc::SYS_clone => vec![libc::CLONE_THREAD as u64],
        libc::SYS_socket => vec![libc::AF_INET as u64, libc::SOCK_STREAM as u64],
        _ => Vec::new(),
    };
    for call in USED.iter().filter(|call| **call != libc::SYS_seccomp) {
        assert_eq!(answer(*call, &harmless(*call)), ALLOW, "call {call}");
    }
    for call in FORBIDDEN {
        assert_eq!(answer(*call, &[]), EPERM, "call {call}");
    }
}

#[test]
fn what_is_in_no_list_does_not_exist_and_other_tables_neither() {
    let listed = |call: &i64| USED.contains(call) || FORBIDDEN.contains(call);
    for call in (0..1000).filter(|call| !listed(call)) {
        assert_eq!(answer(call, &[0; 6]), ENOSYS, "call {call}");
    }
    for call in [libc::SYS_clone3, libc::SYS_unlinkat, libc::SYS_mkdirat, libc::SYS_renameat2, libc::SYS_fchmodat] {
        assert_eq!(answer(call, &[]), ENOSYS, "call {call}");
    }
    // x32 (x86-64): the same numbers with bit 30, under the same architecture. Not one may pass.
    for call in 0..1000 {
        assert_ne!(answer(call + (1 << 30), &[0; 6]), ALLOW, "x32 call {call}");
    }
    // A program of 32 bits, or of another processor: the process ends.
    assert_eq!(answer_on(0x4000_0003, libc::SYS_read, &[]), KILL);
}

#[rstest]
#[case::tcp(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, ALLOW)]
#[case::tcp6(libc::AF_INET6, libc::SOCK_STREAM, ALLOW)]
#[case::dns(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, ALLOW)]
#[case::handover(libc::AF_UNIX, libc::SOCK_SEQPACKET, ALLOW)]
#[case::raw(libc::AF_INET, libc::SOCK_RAW, EPERM)]
#[case::raw_with_flags(libc::AF_INET6, libc::SOCK_RAW | libc::SOCK_CLOEXEC, EPERM)]
#[case::packet(libc::AF_PACKET, libc::SOCK_RAW, EPERM)]
#[case::packet_as_datagram(libc::AF_PACKET, libc::SOCK_DGRAM, EPERM)]
#[case::obsolete_packet(libc::AF_INET, 10, EPERM)]
#[case::netlink(libc::AF_NETLINK, libc::SOCK_DGRAM, EPERM)]
#[case::vsock(libc::AF_VSOCK, libc::SOCK_STREAM, EPERM)]
#[case::kernel_crypto(libc::AF_ALG, libc::SOCK_SEQPACKET, EPERM)]
fn sockets(#[case] family: i32, #[case] kind: i32, #[case] expected: u32) {
    assert_eq!(answer(libc::SYS_socket, &[family as u64, kind as u64]), expected);
    // What stands above the lower half of an argument is nothing to the kernel, and must not hide anything.
    assert_eq!(answer(libc::SYS_socket, &[family as u64 | 1 << 40, kind as u64 | 1 << 33]), expected);
}

#[rstest]
#[case::a_thread(libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND, ALLOW)]
#[case::fork(libc::SIGCHLD, EPERM)]
#[case::vfork(libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, EPERM)]
#[case::a_user_namespace(libc::CLONE_NEWUSER | libc::SIGCHLD, EPERM)]
fn new_tasks(#[case] flags: i32, #[case] expected: u32) {
    assert_eq!(answer(libc::SYS_clone, &[flags as u64]), expected);
}

#[test]
fn memory_is_never_executable() {
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        for (protection, expected) in [
            (libc::PROT_READ | libc::PROT_WRITE, ALLOW),
            (libc::PROT_EXEC, EPERM),
            (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, EPERM),
        ] {
            assert_eq!(answer(call, &[0, 4096, protection as u64]), expected, "{protection}");
        }
    }
}
