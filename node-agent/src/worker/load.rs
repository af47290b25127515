//! How busy each worker is, and which one is given what another has accepted.
//!
//! The kernel shares accepted connections out by a hash of their addresses. A node has few tunnels, each of which may carry
//! hundreds of streams for minutes: with two tunnels and two workers, both land on the same one half of the time
//! (measured). So each accepted tunnel goes to the least busy worker, once. The same holds for
//! a pod's calls where there are few of them: four bulk streams fall evenly on two workers in three of eight cases.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A tunnel counts as much as this many connections even when it carries none: what comes next will come through it.
const TUNNEL: usize = 4;

/// With more connections than this the hash shares out well enough, and giving one away costs some 4 us.
const FEW: usize = 4;

/// What is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// A tunnel, with whatever will come through it.
    Tunnel,
    /// One connection.
    Connection,
}

/// How busy one worker is: its connections and its tunnels. All workers see it.
#[derive(Debug, Clone, Default)]
pub struct Load(Arc<AtomicUsize>);

impl Load {
    /// One more connection, until the guard is dropped.
    #[must_use]
    pub fn connection(&self) -> Busy {
        self.take(1)
    }

    /// One more tunnel, until the guard is dropped.
    #[must_use]
    pub fn tunnel(&self) -> Busy {
        self.take(TUNNEL)
    }

    fn take(&self, weight: usize) -> Busy {
        self.0.fetch_add(weight, Ordering::Relaxed);
        Busy { load: self.clone(), weight }
    }

    fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts something as a worker's for as long as it lives.
#[derive(Debug)]
pub struct Busy {
    load: Load,
    weight: usize,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.load.0.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

/// Which of the workers is to take what `own` has accepted: itself, unless another one is less busy by more than it would
/// change; of many connections only where the other has not even half as many.
fn choose(loads: impl Iterator<Item = usize> + Clone, own: usize, what: Accepted) -> usize {
    let mine = loads.clone().nth(own).unwrap_or_default();
    let Some((least, load)) = loads.enumerate().min_by_key(|(_, load)| *load) else { return own };
    let is_better = match what {
        Accepted::Tunnel => load + TUNNEL <= mine,
        Accepted::Connection => load < mine && (mine <= FEW || load * 2 < mine),
    };
    if is_better { least } else { own }
}

/// The other workers as one of them sees them; generic, since what it tells them is not this file's concern.
#[derive(Debug)]
pub struct Peers<T> {
    own: usize,
    loads: Rc<[Load]>,
    workers: Vec<T>,
}

impl<T> Peers<T> {
    /// The worker with number `own`; `workers` and `loads` are in the order of the numbers, this one included.
    #[must_use]
    pub fn new(own: usize, loads: &[Load], workers: Vec<T>) -> Self {
        Self { own, loads: loads.into(), workers }
    }

    /// A worker without others.
    #[must_use]
    pub fn none() -> Self {
        Self::new(0, &[Load::default()], Vec::new())
    }

    /// This worker's load.
    #[must_use]
    pub fn own(&self) -> &Load {
        &self.loads[self.own]
    }

    /// The worker that should take it instead of this one, and its load.
    #[must_use]
    pub fn less_busy(&self, what: Accepted) -> Option<(&T, &Load)> {
        let least = choose(self.loads.iter().map(Load::now), self.own, what);
        if least == self.own {
            return None;
        }
        Some((self.workers.get(least)?, &self.loads[least]))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Accepted, Load, Peers, choose};

    #[rstest]
    #[case::alone(&[9], 0, 0)]
    #[case::idle(&[0, 0], 1, 1)]
    #[case::one_tunnel_here(&[4, 0], 0, 1)]
    #[case::one_connection_is_no_reason(&[1, 0], 0, 0)]
    #[case::the_other_has_it(&[0, 4], 0, 0)]
    #[case::the_least_of_many(&[50, 40, 7, 30], 0, 2)]
    fn a_tunnel_goes_where_least_is_done(#[case] now: &[usize], #[case] own: usize, #[case] expected: usize) {
        assert_eq!(choose(now.iter().copied(), own, Accepted::Tunnel), expected);
    }

    #[rstest]
    #[case::idle(&[0, 0], 0, 0)]
    #[case::the_second_of_two(&[1, 0], 0, 1)]
    #[case::the_fourth_of_four(&[2, 1], 0, 1)]
    #[case::even(&[2, 2], 0, 0)]
    #[case::of_many_the_hash_is_right(&[9, 7], 0, 0)]
    #[case::unless_it_is_not(&[9, 4], 0, 1)]
    fn a_connection_goes_elsewhere_where_there_are_few(#[case] now: &[usize], #[case] own: usize, #[case] to: usize) {
        assert_eq!(choose(now.iter().copied(), own, Accepted::Connection), to);
    }

    #[test]
    fn two_tunnels_that_one_worker_accepts_are_shared() {
        let loads = [Load::default(), Load::default()];
        let peers = Peers::new(0, &loads, vec!["first", "second"]);
        assert!(peers.less_busy(Accepted::Tunnel).is_none());
        let _first = peers.own().tunnel();
        let (other, load) = peers.less_busy(Accepted::Tunnel).unwrap();
        assert_eq!(*other, "second");
        let second = load.tunnel();
        assert!(peers.less_busy(Accepted::Tunnel).is_none(), "now both have one");
        drop(second);
        assert!(peers.less_busy(Accepted::Tunnel).is_some());
    }
}
