//! Integers with a prefix (RFC 7541 section 5.1).

use super::super::violation::Violation;

/// Bytes that may follow a full prefix. 4: 28 bits, more than any length or index that we take.
const MOST_BYTES: usize = 4;

/// Reads an integer whose first byte keeps `prefix` low bits for it; returns it and what follows.
pub(super) fn decode(bytes: &[u8], prefix: u32) -> Result<(usize, &[u8]), Violation> {
    let (&first, mut rest) = bytes.split_first().ok_or(Violation::HEADER_BLOCK)?;
    let full = (1_usize << prefix) - 1;
    let mut value = usize::from(first) & full;
    if value < full {
        return Ok((value, rest));
    }
    for place in 0..MOST_BYTES {
        let (&byte, after) = rest.split_first().ok_or(Violation::HEADER_BLOCK)?;
        rest = after;
        value += usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok((value, rest));
        }
    }
    Err(Violation::HEADER_BLOCK)
}

/// Writes one; `pattern` are the first byte's high bits.
pub(super) fn encode(value: usize, prefix: u32, pattern: u8, out: &mut Vec<u8>) {
    let full = (1_usize << prefix) - 1;
    if value < full {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | full as u8);
    let mut rest = value - full;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}
