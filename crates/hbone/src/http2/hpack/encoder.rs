//! Header lists to header blocks, without a dynamic table and without Huffman.

use super::field::Field;
use super::integer;
use super::table::STATIC;

/// The encoder of one connection.
#[derive(Debug, Default)]
pub struct Encoder {
    /// The first block has said that the table has size 0, so that no later SETTINGS of the peer asks for another word on it.
    announced: bool,
}

impl Encoder {
    /// Writes the block of a list behind what `out` holds.
    pub fn encode(&mut self, fields: &[Field], out: &mut Vec<u8>) {
        if !self.announced {
            integer::encode(0, 5, 0x20, out);
            self.announced = true;
        }
        for field in fields {
            if let Some(place) = STATIC.iter().position(|known| known == field) {
                integer::encode(place + 1, 7, 0x80, out);
                continue;
            }
            // Literal without indexing; the name by index where there is one.
            match STATIC.iter().position(|known| known.name == field.name) {
                Some(place) => integer::encode(place + 1, 4, 0, out),
                None => {
                    out.push(0);
                    integer::encode(field.name.len(), 7, 0, out);
                    out.extend_from_slice(&field.name);
                }
            }
            integer::encode(field.value.len(), 7, 0, out);
            out.extend_from_slice(&field.value);
        }
    }
}
