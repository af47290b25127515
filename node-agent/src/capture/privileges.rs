//! Gives up every capability that the capture half does not need, in this thread and in every program it starts. Must be
//! called before other threads are started: capabilities belong to threads.

use caps::{CapSet, Capability, CapsHashSet};
use thiserror::Error;

/// What is kept, and why.
const NEEDED: [Capability; 4] = [
    Capability::CAP_NET_ADMIN,  // rules, routes, IP_TRANSPARENT, SO_MARK, SOCK_DESTROY
    Capability::CAP_SYS_ADMIN,  // setns
    Capability::CAP_SYS_PTRACE, // /proc/PID/ns/net of pods
    Capability::CAP_NET_RAW,    // the raw socket of iptables-legacy
];

/// Why privileges cannot be reduced.
#[derive(Debug, Error)]
#[error("cannot give up capabilities: {0}")]
pub struct PrivilegeError(#[from] caps::errors::CapsError);

/// Keeps at most the four that are needed, and returns those that are missing of them (NET_RAW only matters for
/// iptables-legacy, SYS_PTRACE only for namespaces given as /proc paths).
///
/// # Errors
/// [`PrivilegeError`] when the kernel refuses to give something up.
pub fn keep_only_needed() -> Result<Vec<Capability>, PrivilegeError> {
    let have = caps::read(None, CapSet::Permitted)?;
    let needed = CapsHashSet::from(NEEDED);
    let keep: CapsHashSet = have.intersection(&needed).copied().collect();
    if have.contains(&Capability::CAP_SETPCAP) {
        // A program that root starts gets what the bounding set allows.
        for capability in caps::read(None, CapSet::Bounding)?.difference(&needed) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    caps::set(None, CapSet::Inheritable, &keep)?;
    // And a program that anybody else starts gets what is ambient.
    caps::set(None, CapSet::Ambient, &keep)?;
    Ok(NEEDED.into_iter().filter(|capability| !keep.contains(capability)).collect())
}
