//! The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and the lengths alone define it. So
//! the table here is the lengths, and decoding needs for each length only where its codes begin and end.

use super::super::violation::Violation;

/// The longest code.
const LONGEST: usize = 30;

/// How many bits each byte's code has (appendix B). The end symbol has 30 and the last code; it must never occur.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// For each length: one more than its last code, left-aligned to 32 bits, and how a code leads to its place in `SYMBOLS`.
#[derive(Clone, Copy)]
struct Level {
    end: u64,
    first: u32,
    place: u32,
}

struct Code {
    levels: [Level; LONGEST + 1],
    /// Bytes in the order of their codes.
    symbols: [u8; 256],
}

static CODE: Code = build();

const fn build() -> Code {
    let mut code = Code { levels: [Level { end: 0, first: 0, place: 0 }; LONGEST + 1], symbols: [0; 256] };
    let (mut length, mut next, mut place) = (1, 0_u32, 0_usize);
    while length <= LONGEST {
        next <<= 1;
        code.levels[length].first = next;
        code.levels[length].place = place as u32;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.symbols[place] = symbol as u8;
                place += 1;
                next += 1;
            }
            symbol += 1;
        }
        code.levels[length].end = (next as u64) << (32 - length);
        length += 1;
    }
    code
}

/// Decodes `bytes` behind what `out` holds.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
    let (mut window, mut bits) = (0_u64, 0_usize);
    let mut rest = bytes.iter();
    loop {
        while bits <= 56 {
            let Some(&byte) = rest.next() else { break };
            window |= u64::from(byte) << (56 - bits);
            bits += 8;
        }
        let head = window >> 32;
        // Five bits are the shortest code.
        let found = (5..=LONGEST.min(bits)).find(|&length| head < CODE.levels[length].end);
        let Some(length) = found else { break };
        let level = CODE.levels[length];
        let place = (head >> (32 - length)) as u32 - level.first + level.place;
        out.push(CODE.symbols[place as usize]);
        window <<= length;
        bits -= length;
    }
    // What is left must be the beginning of the end symbol: fewer than eight ones.
    let padding = if bits == 0 { 0 } else { u64::MAX << (64 - bits) };
    if bits >= 8 || window != padding { Err(Violation::HEADER_BLOCK) } else { Ok(()) }
}

/// The other way, for tests: our encoder sends plain literals.
#[cfg(test)]
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let (mut window, mut bits) = (0_u64, 0);
    for &byte in bytes {
        let length = usize::from(LENGTHS[usize::from(byte)]);
        let place = CODE.symbols.iter().position(|symbol| *symbol == byte).expect("every byte has a code") as u32;
        let code = CODE.levels[length].first + place - CODE.levels[length].place;
        window = (window << length) | u64::from(code);
        bits += length;
        while bits >= 8 {
            bits -= 8;
            out.push((window >> bits) as u8);
        }
    }
    if bits > 0 {
        out.push(((window << (8 - bits)) as u8) | (0xff >> bits));
    }
}
