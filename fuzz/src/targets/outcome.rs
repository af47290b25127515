//! What came of an input, as a number: inputs with a new one are worth mutating further. It stands for coverage where the
//! toolchain gives none.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

/// See the module. Equal outcomes are equally interesting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outcome {
    shape: u64,
    past: bool,
}

impl Outcome {
    /// Of the shape of a value's debug text: numbers and what stands in quotes do not count, or every input were new.
    pub fn of(value: &impl Debug) -> Self {
        let text = format!("{value:?}");
        let mut hasher = DefaultHasher::new();
        let mut quoted = false;
        let mut before = ' ';
        for character in text.chars().take(LONGEST) {
            let ends = character == '"' && before != '\\';
            if ends {
                quoted = !quoted;
            }
            let counts = !quoted && !character.is_ascii_digit();
            if counts {
                character.hash(&mut hasher);
            }
            before = character;
        }
        Self { shape: hasher.finish(), past: false }
    }

    /// Of the whole debug text: for values of which there are few.
    pub fn exactly(value: &impl Debug) -> Self {
        let mut hasher = DefaultHasher::new();
        format!("{value:?}").hash(&mut hasher);
        Self { shape: hasher.finish(), past: false }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { shape: self.shape.rotate_left(5) ^ other.shape, past: self.past || other.past }
    }

    /// Says whether the input got past the first check: it was believed, decoded or taken, in part at least.
    #[must_use]
    pub fn past(self, past: bool) -> Self {
        Self { past: self.past || past, ..self }
    }

    /// See [`Self::past`].
    #[must_use]
    pub fn is_past(self) -> bool {
        self.past
    }
}

/// Characters of a debug text that count: what comes later says the same again.
const LONGEST: usize = 600;
