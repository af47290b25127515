//! How many connections strangers may hold: in all, and from one address. A listener that anybody can reach must not let
//! one of them take every descriptor of the program, or every place at the table.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The places of one listener. Clones share them.
#[derive(Debug, Clone)]
pub struct Places {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    total: usize,
    per_address: usize,
}

/// One place, free again when dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    owner: IpAddr,
}

impl Places {
    /// So many connections in all, and so many from one address.
    #[must_use]
    pub fn new(total: usize, per_address: usize) -> Self {
        Self { taken: Arc::default(), total, per_address }
    }

    /// A place for a connection from this address; none when it, or everybody together, has enough.
    #[must_use]
    pub fn take(&self, from: IpAddr) -> Option<Place> {
        let owner = owner(from);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&owner).copied().unwrap_or_default());
        if all >= self.total || own >= self.per_address {
            return None;
        }
        taken.insert(owner, own + 1);
        Some(Place { places: self.clone(), owner })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.owner) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.owner);
            }
        }
    }
}

/// Who has one IPv6 address has its whole /64 (RFC 7421).
fn owner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    #[test]
    fn nobody_has_more_than_its_share_and_all_no_more_than_there_is() {
        let places = Places::new(3, 2);
        let take = |from: &str| places.take(from.parse().unwrap());
        let first = take("10.0.0.1").unwrap();
        let _second = take("::ffff:10.0.0.1").unwrap();
        assert!(take("10.0.0.1").is_none(), "its share");
        let _third = take("fd00::1").unwrap();
        assert!(take("fd00::2").is_none(), "all");
        drop(first);
        let _fourth = take("fd00::2").unwrap();
        assert!(take("10.0.0.1").is_none());
    }
}
