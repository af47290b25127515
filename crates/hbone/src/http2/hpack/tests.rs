//! HPACK against the examples of the RFC, against itself, and against noise.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::violation::Violation;
use super::table::{CAPACITY, Dynamic};
use super::{Decoder, Encoder, Field, huffman, integer};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn decoded(decoder: &mut Decoder, block: &str) -> Vec<(String, String)> {
    let list = decoder.decode(&hex(block), 1 << 16).unwrap();
    assert!(!list.cut);
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    list.fields.iter().map(|field| (text(&field.name), text(&field.value))).collect()
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const FIRST: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];

/// RFC 7541 appendix C.3 and C.4: three requests on one connection, plain and with Huffman.
#[test]
fn the_requests_of_the_rfc() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::default();
        assert_eq!(decoded(&mut decoder, blocks[0]), owned(FIRST));
        let second = [FIRST, &[("cache-control", "no-cache")]].concat();
        assert_eq!(decoded(&mut decoder, blocks[1]), owned(&second));
        let third = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        assert_eq!(decoded(&mut decoder, blocks[2]), owned(&third));
    }
}

#[test]
fn integers_of_the_rfc() {
    for (value, prefix, bytes) in [(10, 5, &[10][..]), (1337, 5, &[31, 154, 10]), (42, 8, &[42])] {
        let mut out = Vec::new();
        integer::encode(value, prefix, 0, &mut out);
        assert_eq!(out, bytes);
        assert_eq!(integer::decode(bytes, prefix), Ok((value, &[][..])));
    }
    assert_eq!(integer::decode(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], 7), Err(Violation::HEADER_BLOCK));
}

#[test]
fn what_is_no_block_is_refused() {
    // Index 0, an index beyond both tables, a literal that ends too early, a table larger than allowed, a size change after a field.
    for block in ["80", "be", "0005 6162", "3fe2 1f", "82 20", "20 20 20", "ff"] {
        assert_eq!(Decoder::default().decode(&hex(block), 1 << 16), Err(Violation::HEADER_BLOCK), "{block}");
    }
    // Huffman: eight ones as padding, the end symbol, padding of zeros.
    for text in ["ff", "3fff ffff", "1f ff", "00 00 00"] {
        let _ = huffman::decode(&hex(text), &mut Vec::new());
    }
    assert!(huffman::decode(&[0xff], &mut Vec::new()).is_err());
    assert!(huffman::decode(&[0xff, 0xff, 0xff, 0xff], &mut Vec::new()).is_err());
    assert!(huffman::decode(&[0b0000_0000], &mut Vec::new()).is_err());
}

/// One byte of a block that stands for 4 KB of list: the list is cut, the connection's table stays whole.
#[test]
fn a_bomb_costs_what_its_block_costs() {
    let mut decoder = Decoder::default();
    let mut block = vec![0x40, 1, b'a'];
    integer::encode(4000, 7, 0, &mut block);
    block.extend(std::iter::repeat_n(b'x', 4000));
    block.extend(std::iter::repeat_n(0x80 | 62, 10_000));
    let list = decoder.decode(&block, 1 << 16).unwrap();
    assert!(list.cut);
    assert_eq!(list.fields.len(), (1 << 16) / (4000 + 1 + 32));
    assert_eq!(decoder.decode(&[0x80 | 62], 1 << 16).unwrap().fields.len(), 1);
}

fn any_field() -> impl Strategy<Value = Field> {
    let known = prop::sample::select(vec![":authority", ":method", ":status", "baggage", "forwarded", "x-weft-reason"]);
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::sample::select(vec![b"200".to_vec(), b"CONNECT".to_vec(), b"".to_vec()]),
    ];
    (known, value).prop_map(|(name, value)| Field::new(name, value))
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(lists in prop::collection::vec(prop::collection::vec(any_field(), 0..8), 1..4)) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for fields in lists {
            let mut block = Vec::new();
            encoder.encode(&fields, &mut block);
            prop_assert_eq!(decoder.decode(&block, 1 << 16).unwrap().fields, fields);
        }
    }

    #[test]
    fn huffman_both_ways(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut coded, mut back) = (Vec::new(), Vec::new());
        huffman::encode(&text, &mut coded);
        huffman::decode(&coded, &mut back).unwrap();
        prop_assert_eq!(back, text);
    }

    #[test]
    fn integers_both_ways(value in 0..1_usize << 28, prefix in 4_u32..=7) {
        let mut out = Vec::new();
        integer::encode(value, prefix, 0, &mut out);
        prop_assert_eq!(integer::decode(&out, prefix), Ok((value, &[][..])));
    }

    #[test]
    fn noise_never_panics(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..4)) {
        let mut decoder = Decoder::default();
        for block in blocks {
            let _ = decoder.decode(&block, 1000);
            let _ = huffman::decode(&block, &mut Vec::new());
        }
    }

    #[test]
    fn the_table_keeps_to_its_size(steps in prop::collection::vec((any::<bool>(), 0..5000_usize), 0..60)) {
        let (mut table, mut most) = (Dynamic::default(), CAPACITY);
        for (insert, number) in steps {
            if insert {
                table.insert(Field::new("name", vec![0; number]));
            } else if table.resize(number) {
                most = number;
            }
            prop_assert!(table.size() <= most);
        }
    }
}
