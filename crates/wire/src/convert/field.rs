//! Fields that several messages share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::error::DecodeError;

/// 4 or 16 octets in network order.
pub(super) fn address(field: &'static str, bytes: &[u8]) -> Result<IpAddr, DecodeError> {
    let wrong = || DecodeError::AddressLength { field, length: bytes.len() };
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).map(|octets| Ipv4Addr::from(octets).into()).map_err(|_| wrong()),
        16 => <[u8; 16]>::try_from(bytes).map(|octets| Ipv6Addr::from(octets).into()).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An address and a prefix length; no length is a single address.
pub(super) fn prefix(field: &'static str, bytes: &[u8], length: Option<u32>) -> Result<IpNet, DecodeError> {
    let address = address(field, bytes)?;
    let Some(length) = length else { return Ok(IpNet::from(address)) };
    let wrong = DecodeError::PrefixLength { field, length };
    let Ok(short) = u8::try_from(length) else { return Err(wrong) };
    IpNet::new(address, short).map_err(|_| wrong)
}

pub(super) fn port(field: &'static str, value: u32) -> Result<u16, DecodeError> {
    u16::try_from(value).map_err(|_| DecodeError::Port { field, value })
}

/// An enum's number as its value.
pub(super) fn known<T: TryFrom<i32>>(field: &'static str, value: i32) -> Result<T, DecodeError> {
    T::try_from(value).map_err(|_| DecodeError::UnknownValue { field, value })
}

/// Text that stands for `default` when it is empty.
pub(super) fn text_or(text: String, default: &str) -> Arc<str> {
    if text.is_empty() { default.into() } else { text.into() }
}

/// The reverse of [`text_or`].
pub(super) fn elide(text: &str, default: &str) -> String {
    if text == default { String::new() } else { text.to_owned() }
}

/// Part of a key: not empty, and without the separator.
pub(super) fn key_part(field: &'static str, text: &str) -> Result<(), DecodeError> {
    if text.is_empty() {
        return Err(DecodeError::Unset { field });
    }
    if text.contains('/') {
        return Err(DecodeError::Text { field, problem: format!("'{text}' must not contain '/'") });
    }
    Ok(())
}
