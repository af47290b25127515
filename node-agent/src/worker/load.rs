//! How busy each worker is, and which one is given a tunnel.
//!
//! The kernel shares accepted connections out by a hash of their addresses. A node has few tunnels, each of which may carry
//! hundreds of streams for minutes: with two tunnels and two workers, both land on the same one half of the time
//! (`datapath.md` section 5, question 2). So each accepted tunnel goes to the least busy worker, once.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A tunnel counts as much as this many connections even when it carries none: what comes next will come through it.
const TUNNEL: usize = 4;

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

/// Which of the workers is to take a tunnel that `own` has accepted: itself, unless another one is less busy by more than the
/// tunnel would change.
#[must_use]
pub fn least_busy(loads: &[Load], own: usize) -> usize {
    let now: Vec<usize> = loads.iter().map(Load::now).collect();
    choose(&now, own)
}

fn choose(now: &[usize], own: usize) -> usize {
    let least = (0..now.len()).min_by_key(|worker| now[*worker]).unwrap_or(own);
    let mine = now.get(own).copied().unwrap_or_default();
    if now.get(least).is_some_and(|load| load + TUNNEL <= mine) { least } else { own }
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

    /// The worker that should take a tunnel instead of this one, and its load.
    #[must_use]
    pub fn less_busy(&self) -> Option<(&T, &Load)> {
        let least = least_busy(&self.loads, self.own);
        if least == self.own {
            return None;
        }
        Some((self.workers.get(least)?, &self.loads[least]))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Load, Peers, choose};

    #[rstest]
    #[case::alone(&[9], 0, 0)]
    #[case::idle(&[0, 0], 1, 1)]
    #[case::one_tunnel_here(&[4, 0], 0, 1)]
    #[case::one_connection_is_no_reason(&[1, 0], 0, 0)]
    #[case::the_other_has_it(&[0, 4], 0, 0)]
    #[case::the_least_of_many(&[50, 40, 7, 30], 0, 2)]
    fn a_tunnel_goes_where_least_is_done(#[case] now: &[usize], #[case] own: usize, #[case] expected: usize) {
        assert_eq!(choose(now, own), expected);
    }

    #[test]
    fn two_tunnels_that_one_worker_accepts_are_shared() {
        let loads = [Load::default(), Load::default()];
        let peers = Peers::new(0, &loads, vec!["first", "second"]);
        assert!(peers.less_busy().is_none());
        let _first = peers.own().tunnel();
        let (other, load) = peers.less_busy().unwrap();
        assert_eq!(*other, "second");
        let second = load.tunnel();
        assert!(peers.less_busy().is_none(), "now both have one");
        drop(second);
        assert!(peers.less_busy().is_some());
    }
}
