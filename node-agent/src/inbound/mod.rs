//! Into a captured pod: `serve` (tunnels) and `plaintext` accept, `admit` says whether and where to, `probe` what of the refused is the
//! kubelet's, `deliver` goes there.

mod admit;
#[cfg(test)]
mod admit_tests;
mod check;
mod deliver;
mod plaintext;
mod probe;
mod proxy_header;
mod serve;

pub use admit::{Admission, Announcement, Caller, Denied, admit_local, admit_plaintext, admit_tunnel};
pub use check::check;
pub use deliver::deliver;
pub use plaintext::serve_plaintext;
pub use serve::serve_tunnels;
