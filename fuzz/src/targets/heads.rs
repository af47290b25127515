//! Texts in a tunnel's head.

use weft_hbone::{Authority, Baggage, Forwarded};

use super::outcome::Outcome;

/// `:authority`: what is accepted is written as it was read, and no address hides in a name.
pub(super) fn authority(bytes: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(bytes) else { return Outcome::of(&"not text") };
    let read = text.parse::<Authority>();
    if let Ok(authority) = &read {
        assert_ne!(authority.port(), 0);
        assert_eq!(authority.to_string().parse().as_ref(), Ok(authority), "written and read again");
        if let Authority::Host { name, .. } = authority {
            assert!(name.len() <= 253 && !name.is_empty());
            assert!(name.parse::<std::net::IpAddr>().is_err(), "{name} is an address");
            assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' '));
        }
    }
    Outcome::of(&read).past(read.is_ok())
}

/// `baggage`: never an error; nothing is read that was not there, and no value writes a second key.
pub(super) fn baggage(bytes: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(bytes);
    let read = Baggage::parse(&text);
    let written = read.to_string();
    // The longest key, for the case that an unknown spelling was shorter: it is not, keys are exact.
    assert!(written.len() <= text.len(), "{written:?} of {text:?}");
    assert!(written.bytes().all(|byte| byte.is_ascii_graphic()));
    let again = Baggage::parse(&written);
    assert_eq!(again.to_string(), written);
    for (one, other) in [(&again.cluster, &read.cluster), (&again.namespace, &read.namespace)] {
        assert!(one.is_none() || one == other, "a value wrote another key: {text:?}");
    }
    Outcome::of(&read).past(!written.is_empty())
}

/// `forwarded`: never an error, and what is written is read back.
pub(super) fn forwarded(bytes: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(bytes);
    let read = Forwarded::parse(&text);
    let written = read.to_string();
    assert!(written.len() <= text.len() + 16, "{written:?} of {text:?}");
    let again = Forwarded::parse(&written);
    assert_eq!(again.client.is_some(), read.client.is_some());
    assert_eq!(again.to_string(), written);
    Outcome::of(&(read.client.is_some(), read.client.map(|address| address.is_ipv6()), read.host.is_some()))
        .past(read.client.is_some())
}
