//! Windows (RFC 9113 section 5.2): what we may still send, what the peer may, and when it gets more.

use super::frame::LARGEST_31;

/// What we may still send on a stream or a connection. Below zero after the peer made its streams' first window smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SendWindow(i32);

impl SendWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self(size.min(LARGEST_31) as i32)
    }

    /// Bytes that may go now.
    pub(crate) fn room(self) -> usize {
        self.0.max(0) as usize
    }

    /// Counts bytes that go; never more than [`Self::room`].
    pub(crate) fn take(&mut self, count: usize) {
        debug_assert!(count <= self.room(), "{count} of {}", self.0);
        self.0 -= count as i32;
    }

    /// WINDOW_UPDATE, or a change of the first window. `false` beyond 2^31 - 1.
    #[must_use]
    pub(crate) fn shift(&mut self, by: i64) -> bool {
        match i32::try_from(i64::from(self.0) + by) {
            Ok(window) => {
                self.0 = window;
                true
            }
            Err(_) => false,
        }
    }
}

/// What the peer may still send, and what it has sent and nobody has passed on yet.
///
/// ```text
/// size = credit (may still come) + held (came, not released) + owed (released, not yet told to the peer)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceiveWindow {
    credit: u32,
    held: u32,
}

impl ReceiveWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self { credit: size, held: 0 }
    }

    /// Bytes that the peer may still send.
    pub(crate) fn credit(self) -> u32 {
        self.credit
    }

    /// Bytes that came and were not released.
    #[cfg(test)]
    pub(crate) fn held(self) -> u32 {
        self.held
    }

    /// Counts bytes that came; `false` if they are more than the peer had.
    #[must_use]
    pub(crate) fn receive(&mut self, count: u32) -> bool {
        let Some(credit) = self.credit.checked_sub(count) else { return false };
        self.credit = credit;
        self.held += count;
        true
    }

    /// Counts bytes that were passed on.
    pub(crate) fn release(&mut self, count: u32) {
        debug_assert!(count <= self.held, "{count} of {}", self.held);
        self.held = self.held.saturating_sub(count);
    }

    /// The peer is told that it may send `more`, whatever it has.
    pub(crate) fn grant(&mut self, more: u32) {
        self.credit += more;
    }

    /// What to tell the peer so that held bytes and credit make up `size`; `None` while that is less than half of it, since
    /// each word costs a frame. A size smaller than before just gives nothing back for a while.
    pub(crate) fn update(&mut self, size: u32) -> Option<u32> {
        let increment = size.saturating_sub(self.held).saturating_sub(self.credit);
        if increment == 0 || increment < size / 2 {
            return None;
        }
        self.credit += increment;
        Some(increment)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ReceiveWindow, SendWindow};

    #[test]
    fn a_send_window_may_fall_below_zero_and_never_overflow() {
        let mut window = SendWindow::new(100);
        window.take(80);
        assert!(window.shift(-50));
        assert_eq!(window.room(), 0);
        assert!(window.shift(40));
        assert_eq!(window.room(), 10);
        assert!(!window.shift(i64::from(i32::MAX)));
    }

    proptest! {
        /// Whatever is received and released, the peer never gets more than the window, and a window that is all released is not stuck.
        #[test]
        fn the_window_is_never_exceeded_and_never_stuck(steps in prop::collection::vec((0..2000_u32, 0..2000_u32), 1..100)) {
            const SIZE: u32 = 1000;
            let mut window = ReceiveWindow::new(SIZE);
            for (sent, released) in steps {
                let sent = sent.min(window.credit());
                prop_assert!(window.receive(sent));
                window.release(released.min(window.held()));
                window.update(SIZE);
                prop_assert!(window.credit() + window.held() <= SIZE);
            }
            prop_assert!(!window.receive(window.credit() + 1));
            window.release(window.held());
            window.update(SIZE);
            prop_assert!(window.credit() > SIZE / 2);
        }
    }
}
