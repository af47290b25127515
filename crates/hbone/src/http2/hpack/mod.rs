//! HPACK (RFC 7541): header lists as bytes.
//!
//! The decoder is complete (Huffman, static and dynamic table), since stock peers use all of it; what a peer can make it hold is bounded.
//! The encoder writes static entries and literals only: a tunnel has one small head, and no state means nothing to get wrong.

mod decoder;
mod encoder;
mod field;
mod huffman;
mod integer;
mod table;
#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use encoder::Encoder;
pub use field::{Field, HeaderList};
