//! Distributions and medians. Pure.

/// Buckets per power of two: a value is known to 1/64, far below the spread between two runs.
const FINE: u32 = 6;
/// All powers of two of a `u64`.
const BUCKETS: usize = 64 << FINE;

/// Counts of durations in nanoseconds; takes 32 KiB whatever comes in.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    largest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, largest: 0 }
    }
}

impl Histogram {
    /// Adds one value.
    pub fn add(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
        self.largest = self.largest.max(nanoseconds);
    }

    /// Adds all values of another one.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.largest = self.largest.max(other.largest);
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The value that `share` (0 to 1) of all values do not exceed, in nanoseconds, within 1/64; `None` when empty.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        // The rank of the value that is asked for: at least the first, at most the last.
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(upper_end(place).min(self.largest))
    }
}

fn bucket(value: u64) -> usize {
    let top = u64::BITS - (value | 1).leading_zeros() - 1;
    // Below 64 every value has a bucket of its own; above, the six bits behind the highest one tell them apart.
    if top < FINE {
        return value as usize;
    }
    let shift = top - FINE;
    (((shift + 1) as usize) << FINE) + ((value >> shift) as usize & ((1 << FINE) - 1))
}

fn upper_end(bucket: usize) -> u64 {
    if bucket < 1 << FINE {
        return bucket as u64;
    }
    let shift = (bucket >> FINE) as u32 - 1;
    let low = ((1 << FINE) | (bucket as u64 & ((1 << FINE) - 1))) << shift;
    low + ((1 << shift) - 1)
}

/// The middle value, or the mean of the two in the middle; `None` when there is none.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in
            [(&[][..], None), (&[4.0], Some(4.0)), (&[9.0, 1.0], Some(5.0)), (&[9.0, 1.0, 2.0], Some(2.0))]
        {
            assert_eq!(median(values), expected);
        }
    }

    #[test]
    fn quantiles_of_few_values_are_exact() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for value in 1..=60 {
            histogram.add(value);
        }
        assert_eq!(
            (histogram.quantile(0.5), histogram.quantile(0.99), histogram.quantile(1.0)),
            (Some(30), Some(60), Some(60))
        );
        let mut other = Histogram::default();
        other.add(1_000_000);
        histogram.merge(&other);
        assert_eq!((histogram.count(), histogram.quantile(1.0)), (61, Some(1_000_000)));
    }

    proptest! {
        #[test]
        fn a_value_is_known_within_a_sixty_fourth(value in 0_u64..1 << 60) {
            let end = upper_end(bucket(value));
            prop_assert!(end >= value && end - value <= value >> FINE, "{value} became {end}");
        }
    }
}
