//! Changes an input at random: what libFuzzer does to its own, in the same few ways.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

/// Bytes at which counters, lengths and signs turn over.
const EDGES: [u8; 12] = [0, 1, 2, 9, 0x0a, 0x20, 0x7e, 0x7f, 0x80, 0xc3, 0xfe, 0xff];
/// Changes of one input at most. Most get few, so that what is valid stays nearly so.
const MOST_CHANGES: u32 = 6;

/// A changed copy of one of `pool`, at most `longest` bytes.
pub fn mutate(random: &mut StdRng, pool: &[Vec<u8>], words: &[&[u8]], longest: usize) -> Vec<u8> {
    let mut input = pool.choose(random).cloned().unwrap_or_default();
    // 1 in half of the cases, 2 in a quarter, and so on.
    let changes = 1 + random.random::<u32>().trailing_zeros().min(MOST_CHANGES - 1);
    for _ in 0..changes {
        change(random, &mut input, pool, words);
        input.truncate(longest);
    }
    input
}

fn change(random: &mut StdRng, input: &mut Vec<u8>, pool: &[Vec<u8>], words: &[&[u8]]) {
    if input.is_empty() {
        input.push(random.random());
        return;
    }
    let at = random.random_range(0..input.len());
    let length = random.random_range(1..=(input.len() - at).min(32));
    match random.random_range(0..12) {
        0 => input[at] ^= 1 << random.random_range(0..8),
        1 => input[at] = random.random(),
        2 => input[at] = EDGES[random.random_range(0..EDGES.len())],
        3 => input[at] = input[at].wrapping_add(if random.random() { 1 } else { 0xff }),
        4 => drop(input.drain(at..at + length)),
        5 => {
            let copy = input[at..at + length].to_vec();
            insert(input, at, &copy);
        }
        6 => {
            let copy = input[at..at + length].to_vec();
            let times = random.random_range(2..40);
            insert(input, at, &copy.repeat(times));
        }
        7 | 8 => insert(input, at, words.choose(random).copied().unwrap_or(b"\0")),
        9 => input.truncate(at),
        10 => {
            let mut noise = vec![0; length];
            random.fill_bytes(&mut noise);
            insert(input, at, &noise);
        }
        _ => {
            let other = pool.choose(random).map_or(&[][..], Vec::as_slice);
            let from = random.random_range(0..=other.len());
            let until = (from + random.random_range(0..256)).min(other.len());
            insert(input, at, &other[from..until]);
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_within_their_limit() {
        let pool = vec![b"hello".to_vec(), Vec::new(), vec![7; 100]];
        let inputs = |seed| -> Vec<Vec<u8>> {
            let mut random = StdRng::seed_from_u64(seed);
            (0..2000).map(|_| mutate(&mut random, &pool, &[b"word"], 120)).collect()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
        assert!(inputs(7).iter().all(|input| input.len() <= 120));
    }
}
