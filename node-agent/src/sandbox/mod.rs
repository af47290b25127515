//! The walls around the proxy half: which files it may open (Landlock) and what it may ask of the kernel (seccomp).
//!
//! The half that meets the network holds no capability ([`crate::privileges`]). This takes away what any process has: files
//! of its user that it has no business with, other processes, programs to start, user namespaces, and the parts of the
//! kernel where most ways out of a process were found. Nothing here needs a privilege, and nothing can be taken back.
//!
//! ```text
//! give_up_all -> enclose: files (Landlock) -> calls (two seccomp filters) -> threads, sockets, the network
//! ```

mod calls;
mod enclose;
mod files;
mod table;

pub use calls::CallsError;
pub use enclose::{Enclosure, Mode, SandboxError, enclose};
pub use files::{FilesError, Readable};
