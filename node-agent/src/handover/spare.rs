//! Descriptors that the proxy holds only so that it can let go of them: what the capture half sends then has room, although
//! connections have taken all others. Without them a pod that joins while there are none could not be served, and a
//! conversation that had to begin anew could not.

use std::os::unix::net::UnixDatagram;

/// Listeners of one pod for one worker (three roles, two families), and the duplicates of them that are kept.
const FOR_EACH_WORKER: usize = 2 * 6;
/// The conversation's own socket, and what its attempt needs.
const FOR_THE_CONVERSATION: usize = 4;

/// Entries of the descriptor table, not sockets: duplicates of one.
#[derive(Debug)]
pub(super) struct Spare {
    held: Vec<UnixDatagram>,
    enough: usize,
    /// There were none, or too few: what comes is received with these let go. Otherwise that would be dozens of system calls for
    /// each record, for nothing.
    short: bool,
}

impl Spare {
    /// For one record of a proxy with so many workers.
    pub(super) fn new(workers: usize) -> Self {
        let mut spare =
            Self { held: Vec::new(), enough: workers * FOR_EACH_WORKER + FOR_THE_CONVERSATION, short: false };
        spare.short = !spare.fill(spare.enough);
        spare
    }

    /// Lets go of them if descriptors are short: to be called right before they are needed.
    pub(super) fn lend(&mut self) {
        if self.short {
            self.held.clear();
        }
    }

    /// Something failed because there was none.
    pub(super) fn missed(&mut self) {
        self.short = true;
    }

    /// Takes them back; says whether all of them could be had. The shortage is over when as many again could be.
    pub(super) fn renew(&mut self) -> bool {
        if self.short {
            self.short = !self.fill(2 * self.enough);
            self.held.truncate(self.enough);
        }
        self.held.len() == self.enough
    }

    fn fill(&mut self, count: usize) -> bool {
        while self.held.len() < count {
            let one = self.held.first().map_or_else(UnixDatagram::unbound, UnixDatagram::try_clone);
            let Ok(one) = one else { return false };
            self.held.push(one);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Spare;

    #[test]
    fn they_are_let_go_only_in_need_and_taken_back() {
        let mut spare = Spare::new(2);
        let all = spare.held.len();
        assert_eq!(all, 28);
        spare.lend();
        assert_eq!(spare.held.len(), all, "nobody needs them");
        spare.missed();
        spare.lend();
        assert_eq!(spare.held.len(), 0);
        assert!(spare.renew());
        assert_eq!((spare.held.len(), spare.short), (all, false));
    }
}
