//! Why a resource cannot be read.

/// One resource is refused; the others of the same response are not touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not the message.
    #[error("not a {message} message: {cause}")]
    Malformed {
        /// Which message was expected.
        message: &'static str,
        /// What the decoder says.
        cause: String,
    },
    /// Nothing is set where one thing must be.
    #[error("{field}: must be set")]
    Unset {
        /// The field.
        field: &'static str,
    },
    /// A number that names nothing we know.
    #[error("{field}: {value} is not a known value")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The number.
        value: i32,
    },
    /// A value that is known and not supported.
    #[error("{field}: {value} is not supported")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// Its name.
        value: &'static str,
    },
    /// An address that has neither 4 nor 16 bytes.
    #[error("{field}: an address has 4 or 16 bytes, not {length}")]
    AddressLength {
        /// The field.
        field: &'static str,
        /// How many there are.
        length: usize,
    },
    /// A prefix longer than its address.
    #[error("{field}: a prefix of {length} bits is longer than the address")]
    PrefixLength {
        /// The field.
        field: &'static str,
        /// How long.
        length: u32,
    },
    /// A port beyond 65535.
    #[error("{field}: {value} is not a port")]
    Port {
        /// The field.
        field: &'static str,
        /// The number.
        value: u32,
    },
    /// A text of the wrong form.
    #[error("{field}: {problem}")]
    Text {
        /// The field.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The resource is named otherwise than its content says.
    #[error("the resource is named '{name}' but is '{key}'")]
    Name {
        /// The name in the response.
        name: String,
        /// The key of its content.
        key: String,
    },
}
