//! Header blocks to header lists (RFC 7541 section 6).

use bytes::Bytes;

use super::super::violation::Violation;
use super::field::{Field, HeaderList};
use super::table::Dynamic;
use super::{huffman, integer};

/// Changes of the table's size in one block: twice is the most that makes sense (RFC 7541 section 4.2).
const MOST_RESIZES: usize = 2;

/// The decoder of one connection: its table lasts from block to block, so every block must pass through it.
#[derive(Debug, Default)]
pub struct Decoder {
    table: Dynamic,
}

impl Decoder {
    /// Decodes a whole block. A list beyond `limit` bytes (RFC 9113 section 6.5.2) is cut, and costs no more than its block.
    ///
    /// # Errors
    /// What is no HPACK; the connection cannot go on after that.
    pub fn decode(&mut self, block: &[u8], limit: usize) -> Result<HeaderList, Violation> {
        let mut list = HeaderList::default();
        let (mut rest, mut size, mut resizes) = (block, 0, 0);
        while let Some(&first) = rest.first() {
            let field = match first {
                0x80.. => {
                    let (index, after) = integer::decode(rest, 7)?;
                    rest = after;
                    self.table.get(index).cloned().ok_or(Violation::HEADER_BLOCK)?
                }
                0x40..0x80 => {
                    let field = self.literal(&mut rest, 6)?;
                    self.table.insert(field.clone());
                    field
                }
                0x20..0x40 => {
                    let (most, after) = integer::decode(rest, 5)?;
                    resizes += 1;
                    // Only before the first field.
                    if size > 0 || resizes > MOST_RESIZES || !self.table.resize(most) {
                        return Err(Violation::HEADER_BLOCK);
                    }
                    rest = after;
                    continue;
                }
                0x00..0x20 => self.literal(&mut rest, 4)?,
            };
            size += field.size();
            if size > limit {
                list.cut = true;
            } else {
                list.fields.push(field);
            }
        }
        Ok(list)
    }

    /// A literal whose name is an index of `prefix` bits, or a literal too.
    fn literal(&self, rest: &mut &[u8], prefix: u32) -> Result<Field, Violation> {
        let (index, after) = integer::decode(rest, prefix)?;
        *rest = after;
        let name = match index {
            0 => text(rest)?,
            _ => self.table.get(index).map(|field| field.name.clone()).ok_or(Violation::HEADER_BLOCK)?,
        };
        Ok(Field { name, value: text(rest)? })
    }
}

/// A string literal (RFC 7541 section 5.2).
fn text(rest: &mut &[u8]) -> Result<Bytes, Violation> {
    let is_huffman = rest.first().is_some_and(|first| first & 0x80 != 0);
    let (length, after) = integer::decode(rest, 7)?;
    let (text, after) = after.split_at_checked(length).ok_or(Violation::HEADER_BLOCK)?;
    *rest = after;
    if !is_huffman {
        return Ok(Bytes::copy_from_slice(text));
    }
    // Eight bits for five at most.
    let mut decoded = Vec::with_capacity(length * 8 / 5 + 1);
    huffman::decode(text, &mut decoded)?;
    Ok(decoded.into())
}
