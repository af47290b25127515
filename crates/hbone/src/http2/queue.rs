//! The received bytes of one stream that wait to be passed on.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use super::lent::{self, BLOCK};

/// Memory of a first block. 512 bytes: most messages of interactive protocols fit.
const FIRST_BLOCK: usize = 512;

/// Entries that an empty queue may keep its memory for.
const KEPT_ENTRIES: usize = 4;

/// Bytes in order, in few blocks: a peer that sends them one by one costs what they are, not what its frames are.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Empty when nothing waits. In place, since most streams never have a second one.
    first: Vec<u8>,
    rest: VecDeque<Vec<u8>>,
    /// Bytes of the first block that are gone already.
    taken: usize,
    length: usize,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn push(&mut self, mut data: &[u8]) {
        self.length += data.len();
        while !data.is_empty() {
            let last = self.rest.back_mut().unwrap_or(&mut self.first);
            let (now, later) = data.split_at(data.len().min(last.capacity() - last.len()));
            last.extend_from_slice(now);
            data = later;
            if !data.is_empty() {
                let block = next_block(last.capacity(), data.len());
                if self.first.is_empty() { self.first = block } else { self.rest.push_back(block) }
            }
        }
    }

    /// The waiting bytes, as many pieces as there is place for; says how many pieces.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.taken;
        let mut count = 0;
        let blocks = [&self.first].into_iter().filter(|first| !first.is_empty()).chain(&self.rest);
        for (slice, block) in slices.iter_mut().zip(blocks) {
            *slice = IoSlice::new(&block[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }

    /// The first piece.
    pub(crate) fn first(&self) -> &[u8] {
        &self.first[self.taken..]
    }

    /// The first `count` bytes, no more than there are, are passed on.
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.length, "{count} of {}", self.length);
        self.length = self.length.saturating_sub(count);
        self.taken += count;
        while !self.first.is_empty() && self.taken >= self.first.len() {
            self.taken -= self.first.len();
            let next = self.rest.pop_front().unwrap_or_default();
            lent::return_block(mem::replace(&mut self.first, next));
        }
        if self.first.is_empty() {
            self.taken = 0;
            if self.rest.capacity() > KEPT_ENTRIES {
                self.rest = VecDeque::new();
            }
        }
    }
}

/// A first small piece gets a small block; what goes on coming gets larger ones.
fn next_block(last: usize, wanted: usize) -> Vec<u8> {
    let size = wanted.max(last * 2).max(FIRST_BLOCK);
    if size >= BLOCK / 8 { lent::block() } else { Vec::with_capacity(size) }
}

impl Drop for Queue {
    fn drop(&mut self) {
        lent::return_block(mem::take(&mut self.first));
        self.rest.drain(..).for_each(lent::return_block);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::IoSlice;

    use proptest::prelude::*;

    use super::Queue;

    proptest! {
        #[test]
        fn what_comes_in_goes_out(steps in prop::collection::vec((0..20_000_usize, 0..20_000_usize), 1..60)) {
            let (mut queue, mut model, mut next) = (Queue::default(), VecDeque::new(), 0_u8);
            for (pushed, consumed) in steps {
                let data: Vec<u8> = (0..pushed).map(|_| { next = next.wrapping_add(1); next }).collect();
                queue.push(&data);
                model.extend(data);
                let mut slices = [IoSlice::new(&[]); 8];
                let count = queue.slices(&mut slices);
                let seen: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
                prop_assert!(seen.iter().eq(model.iter().take(seen.len())));
                prop_assert!(!seen.is_empty() || model.is_empty());
                let consumed = consumed.min(seen.len());
                queue.consume(consumed);
                model.drain(..consumed);
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }

    #[test]
    fn single_bytes_cost_little_and_an_empty_queue_nothing() {
        let mut queue = Queue::default();
        (0..100_000).for_each(|_| queue.push(b"x"));
        let memory: usize = queue.first.capacity() + queue.rest.iter().map(Vec::capacity).sum::<usize>();
        assert!(memory < 200_000, "{memory}");
        queue.consume(100_000);
        assert_eq!((queue.first.capacity(), queue.rest.capacity()), (0, 0));
    }
}
