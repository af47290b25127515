//! A header list as a value.

use bytes::Bytes;

/// What each field costs besides its bytes (RFC 7541 section 4.1, RFC 9113 section 6.5.2).
const OVERHEAD: usize = 32;

/// One name and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// In lower case; begins with a colon if it is a pseudo-header.
    pub name: Bytes,
    /// Any bytes.
    pub value: Bytes,
}

impl Field {
    /// A field of texts that live for ever.
    #[must_use]
    pub const fn from_static(name: &'static str, value: &'static str) -> Self {
        Self { name: Bytes::from_static(name.as_bytes()), value: Bytes::from_static(value.as_bytes()) }
    }

    /// A field with a value of its own.
    #[must_use]
    pub fn new(name: &'static str, value: impl Into<Bytes>) -> Self {
        Self { name: Bytes::from_static(name.as_bytes()), value: value.into() }
    }

    /// What it counts in a table and in a list.
    #[must_use]
    pub fn size(&self) -> usize {
        self.name.len() + self.value.len() + OVERHEAD
    }

    /// Whether it is one of HTTP/2's own.
    #[must_use]
    pub fn is_pseudo(&self) -> bool {
        self.name.first() == Some(&b':')
    }
}

/// A decoded header block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderList {
    /// In the order of the block.
    pub fields: Vec<Field>,
    /// The list was larger than what was announced; the fields beyond that are not here.
    pub cut: bool,
}

impl HeaderList {
    /// The first value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| field.name == name.as_bytes()).map(|field| &*field.value)
    }
}

impl From<Vec<Field>> for HeaderList {
    fn from(fields: Vec<Field>) -> Self {
        Self { fields, cut: false }
    }
}
