//! What the proxy half may ask of the kernel, by seccomp. Two filters, of which the stricter answer counts:
//!
//! - **everything that is not in [`USED`] does not exist** (ENOSYS): calls that no proxy makes, calls that kernels will get
//!   after this was written, and those of foreign call tables (x32). The list is generous with harmless relatives of what is
//!   in use, so that another C library or allocator finds its calls.
//! - **what gets out of a process is forbidden** (EPERM): named in [`FORBIDDEN`], and by argument in [`conditions`]: new
//!   processes, new namespaces, sockets that are no TCP, UDP or Unix sockets, memory that is executable.
//!
//! Calls that are always allowed cost next to nothing: since Linux 5.11 the kernel keeps their answers in a bitmap.

use nix::libc::{self, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use thiserror::Error;

use super::table::{FORBIDDEN, USED};

/// No filter of calls.
#[derive(Debug, Error)]
pub enum CallsError {
    /// The filter cannot be built: another processor than x86-64 or aarch64.
    #[error("seccomp: cannot build the filter: {0}")]
    Build(#[from] BackendError),
    /// The kernel refused.
    #[error("seccomp: {0}")]
    Refused(#[from] seccompiler::Error),
}

/// Filters the calls of the calling thread. Returns what to say of it.
pub(super) fn restrict() -> Result<String, CallsError> {
    // The one that forbids `seccomp` itself comes last; of two refusals its errno is the one that is seen.
    for program in [used()?, forbidden()?] {
        seccompiler::apply_filter(&program)?;
    }
    Ok(format!("seccomp, {} allowed", USED.len()))
}

/// All but [`USED`] is ENOSYS: libraries then fall back to older calls, as on an older kernel.
fn used() -> Result<BpfProgram, BackendError> {
    let rules = USED.iter().map(|call| (*call, Vec::new())).collect();
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    SeccompFilter::new(rules, missing, SeccompAction::Allow, here()?)?.try_into()
}

/// [`FORBIDDEN`] and [`conditions`] are EPERM.
fn forbidden() -> Result<BpfProgram, BackendError> {
    let mut rules: std::collections::BTreeMap<c_long, Vec<SeccompRule>> =
        FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    rules.extend(conditions()?);
    let forbidden = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, forbidden, here()?)?.try_into()
}

fn here() -> Result<TargetArch, BackendError> {
    std::env::consts::ARCH.try_into()
}

/// Calls that are forbidden with some arguments.
fn conditions() -> Result<Vec<(c_long, Vec<SeccompRule>)>, BackendError> {
    let family = |wanted: i32| condition(0, SeccompCmpOp::Ne, wanted);
    let of_kind = |kind: i32| condition(1, SeccompCmpOp::MaskedEq(SOCKET_KIND), kind);
    let foreign_family = [family(libc::AF_INET)?, family(libc::AF_INET6)?, family(libc::AF_UNIX)?];
    let mut sockets = vec![SeccompRule::new(foreign_family.into())?];
    for kind in [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_DCCP, OBSOLETE_SOCK_PACKET] {
        sockets.push(SeccompRule::new(vec![of_kind(kind)?])?);
    }
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    // No thread, so a process; a thread cannot have namespaces of its own (clone(2)).
    let processes = vec![SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(thread), 0)?])?];
    let execute = u64::from(libc::PROT_EXEC.unsigned_abs());
    let executable = || -> Result<Vec<SeccompRule>, BackendError> {
        Ok(vec![SeccompRule::new(vec![condition(2, SeccompCmpOp::MaskedEq(execute), libc::PROT_EXEC)?])?])
    };
    Ok(vec![
        (libc::SYS_socket, sockets),
        (libc::SYS_clone, processes),
        (libc::SYS_mmap, executable()?),
        (libc::SYS_mprotect, executable()?),
    ])
}

/// The kind of a socket in the second argument of `socket`; above are SOCK_NONBLOCK and SOCK_CLOEXEC (include/linux/net.h, SOCK_TYPE_MASK).
const SOCKET_KIND: u64 = 0xf;

/// A packet socket under its old name, which the C library has deprecated and the kernel still knows (packet(7)).
const OBSOLETE_SOCK_PACKET: i32 = 10;

/// The kernel takes these arguments as 32-bit numbers, so only their lower half is compared.
fn condition(argument: u8, operator: SeccompCmpOp, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value.unsigned_abs()))
}

#[cfg(test)]
mod tests;
