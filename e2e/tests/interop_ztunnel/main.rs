//! A stock ztunnel beside our agent under our control plane: what either side must understand of the other.
//! The stock program is not part of this repository: `WEFT_PEER_ZTUNNEL`
//! names it, and without it every test here says that it was skipped. `docs/interop.md` has the results.

mod bytes;
mod control;
mod ends;
mod policy;
mod stage;

use std::io::Write;
use std::path::PathBuf;

/// The stock program, or a loud word that there is none.
fn peer(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("WEFT_PEER_ZTUNNEL").map(PathBuf::from).filter(|path| path.is_file());
    if path.is_none() {
        // Past libtest's capture: a skipped test must be seen.
        let reason = "WEFT_PEER_ZTUNNEL names no stock ztunnel (docs/interop.md)";
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
    }
    path
}

/// The first lines of a test: a stage with the stock program inside a laboratory, or a return.
macro_rules! stage_or_skip {
    ($test:literal) => {{
        let Some(ztunnel) = $crate::peer($test) else { return };
        weft_testkit::enter_or_skip!();
        $crate::stage::Stage::build(ztunnel).unwrap()
    }};
}
use stage_or_skip;
