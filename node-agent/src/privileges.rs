//! Giving up privileges: what the proxy half does before it meets the network.
//!
//! Must run before any other thread exists: capabilities belong to threads (capabilities(7)).

use caps::CapSet;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};
use thiserror::Error;

/// What is left after [`give_up_all`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The effective user.
    pub uid: u32,
    /// Whether the user changed. Not in a user namespace that knows only one user.
    pub changed_user: bool,
}

/// The process would keep privileges, so it does not start.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// A system call failed.
    #[error("cannot give up privileges: {what}: {source}")]
    Call {
        /// Which.
        what: &'static str,
        /// Why.
        source: Errno,
    },
    /// A capability set could not be changed or read.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// Something is left.
    #[error("capabilities are left in the {0} set after giving up all")]
    Left(&'static str),
}

/// Becomes `uid` when started as root, and gives up every capability in every set for ever (`no_new_privs` keeps setuid
/// programs from bringing them back).
///
/// # Errors
/// When anything is left.
pub fn give_up_all(uid: u32) -> Result<Standing, PrivilegeError> {
    // The bounding set can be emptied only while CAP_SETPCAP is there; whoever starts without it has nothing to lose.
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    let changed_user = geteuid().is_root() && uid != 0 && become_user(uid)?;
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set)?;
    }
    rustix::thread::set_no_new_privs(true).map_err(|error| PrivilegeError::Call {
        what: "no_new_privs",
        source: Errno::from_raw(error.raw_os_error()),
    })?;
    for (set, name) in [(CapSet::Effective, "effective"), (CapSet::Permitted, "permitted")] {
        if !caps::read(None, set)?.is_empty() {
            return Err(PrivilegeError::Left(name));
        }
    }
    Ok(Standing { uid: geteuid().as_raw(), changed_user })
}

/// False where the user does not exist: in a user namespace that maps one user only (EINVAL, user_namespaces(7)).
fn become_user(uid: u32) -> Result<bool, PrivilegeError> {
    let call = |what| move |source| PrivilegeError::Call { what, source };
    match setgid(Gid::from_raw(uid)) {
        Err(Errno::EINVAL) => return Ok(false),
        outcome => outcome.map_err(call("setgid"))?,
    }
    match setgroups(&[]) {
        // Forbidden in a user namespace whose group map an ordinary user wrote; there it has no groups to lose.
        Err(Errno::EPERM) => {}
        outcome => outcome.map_err(call("setgroups"))?,
    }
    match setuid(Uid::from_raw(uid)) {
        Err(Errno::EINVAL) => Ok(false),
        outcome => outcome.map(|()| true).map_err(call("setuid")),
    }
}
