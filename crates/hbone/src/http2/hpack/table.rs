//! The static table (RFC 7541 appendix A) and the dynamic one (section 2.3.2).

use std::collections::VecDeque;

use super::field::Field;

/// The dynamic table of a peer's encoder, at most. 4,096 bytes: what every peer may use before it has read our SETTINGS
/// (RFC 9113 section 6.5.2), so we announce nothing else.
pub(super) const CAPACITY: usize = 4096;

const fn field(name: &'static str, value: &'static str) -> Field {
    Field::from_static(name, value)
}

/// Index 1 is the first.
pub(super) static STATIC: [Field; 61] = [
    field(":authority", ""),
    field(":method", "GET"),
    field(":method", "POST"),
    field(":path", "/"),
    field(":path", "/index.html"),
    field(":scheme", "http"),
    field(":scheme", "https"),
    field(":status", "200"),
    field(":status", "204"),
    field(":status", "206"),
    field(":status", "304"),
    field(":status", "400"),
    field(":status", "404"),
    field(":status", "500"),
    field("accept-charset", ""),
    field("accept-encoding", "gzip, deflate"),
    field("accept-language", ""),
    field("accept-ranges", ""),
    field("accept", ""),
    field("access-control-allow-origin", ""),
    field("age", ""),
    field("allow", ""),
    field("authorization", ""),
    field("cache-control", ""),
    field("content-disposition", ""),
    field("content-encoding", ""),
    field("content-language", ""),
    field("content-length", ""),
    field("content-location", ""),
    field("content-range", ""),
    field("content-type", ""),
    field("cookie", ""),
    field("date", ""),
    field("etag", ""),
    field("expect", ""),
    field("expires", ""),
    field("from", ""),
    field("host", ""),
    field("if-match", ""),
    field("if-modified-since", ""),
    field("if-none-match", ""),
    field("if-range", ""),
    field("if-unmodified-since", ""),
    field("last-modified", ""),
    field("link", ""),
    field("location", ""),
    field("max-forwards", ""),
    field("proxy-authenticate", ""),
    field("proxy-authorization", ""),
    field("range", ""),
    field("referer", ""),
    field("refresh", ""),
    field("retry-after", ""),
    field("server", ""),
    field("set-cookie", ""),
    field("strict-transport-security", ""),
    field("transfer-encoding", ""),
    field("user-agent", ""),
    field("vary", ""),
    field("via", ""),
    field("www-authenticate", ""),
];

/// What the peer's encoder has asked us to remember: newest first.
#[derive(Debug)]
pub(super) struct Dynamic {
    entries: VecDeque<Field>,
    size: usize,
    most: usize,
}

impl Default for Dynamic {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, most: CAPACITY }
    }
}

impl Dynamic {
    /// The entry behind an index of a block, static or dynamic.
    pub(super) fn get(&self, index: usize) -> Option<&Field> {
        let index = index.checked_sub(1)?;
        STATIC.get(index).or_else(|| self.entries.get(index.checked_sub(STATIC.len())?))
    }

    /// Remembers a field and forgets the oldest ones that no longer fit; all of them if it is larger than the table.
    pub(super) fn insert(&mut self, field: Field) {
        let size = field.size();
        self.shrink(self.most.saturating_sub(size));
        if size <= self.most {
            self.size += size;
            self.entries.push_front(field);
        }
    }

    /// The encoder uses `most` bytes from now on; `false` if that is more than it may.
    pub(super) fn resize(&mut self, most: usize) -> bool {
        if most > CAPACITY {
            return false;
        }
        self.most = most;
        self.shrink(most);
        true
    }

    fn shrink(&mut self, most: usize) {
        while self.size > most
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }
}
