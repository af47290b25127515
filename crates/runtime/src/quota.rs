//! How often each of many may do something: a token bucket for each, so that one who asks without end takes nothing from the
//! others. Pure but for its lock: the caller says what time it is.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Accounts that are kept before the full ones are thrown away: a full account is as good as none.
const ACCOUNTS: usize = 4096;

/// What each may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// At once, after a rest.
    pub burst: u32,
    /// In the long run.
    pub per_second: f64,
}

/// One account for each.
#[derive(Debug)]
pub struct Quota<K> {
    allowance: Allowance,
    accounts: Mutex<HashMap<K, Account>>,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    left: f64,
    counted_at: Instant,
}

impl Account {
    fn now(self, allowance: Allowance, now: Instant) -> Self {
        let earned = now.saturating_duration_since(self.counted_at).as_secs_f64() * allowance.per_second;
        Self { left: (self.left + earned).min(f64::from(allowance.burst)), counted_at: now.max(self.counted_at) }
    }
}

impl<K: Eq + Hash + Clone> Quota<K> {
    /// The same allowance for everybody.
    #[must_use]
    pub fn new(allowance: Allowance) -> Self {
        Self { allowance, accounts: Mutex::default() }
    }

    /// Whether `who` may do it once more now; then it is booked.
    pub fn take(&self, who: &K, now: Instant) -> bool {
        let allowance = self.allowance;
        // Nothing under the lock panics half-way.
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= ACCOUNTS && !accounts.contains_key(who) {
            accounts.retain(|_, account| account.now(allowance, now).left < f64::from(allowance.burst));
        }
        let full = Account { left: f64::from(allowance.burst), counted_at: now };
        let account = accounts.entry(who.clone()).or_insert(full);
        *account = account.now(allowance, now);
        let may = account.left >= 1.0;
        if may {
            account.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_has_its_own_account_that_fills_again() {
        let quota = Quota::new(Allowance { burst: 3, per_second: 2.0 });
        let start = Instant::now();
        let taken = |who: &str, seconds: f64| {
            let now = start + Duration::from_secs_f64(seconds);
            (0..10).take_while(|_| quota.take(&who.to_owned(), now)).count()
        };
        assert_eq!((taken("greedy", 0.0), taken("greedy", 0.4), taken("modest", 0.4)), (3, 0, 3));
        assert_eq!((taken("greedy", 1.0), taken("greedy", 100.0)), (2, 3));
    }

    #[test]
    fn accounts_do_not_pile_up() {
        let quota = Quota::new(Allowance { burst: 1, per_second: 1.0 });
        let start = Instant::now();
        for number in 0..3 * ACCOUNTS {
            assert!(quota.take(&number, start + Duration::from_millis(number as u64)));
        }
        assert!(quota.accounts.lock().unwrap().len() <= ACCOUNTS);
    }
}
