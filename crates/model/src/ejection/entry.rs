//! What is known of one subject that has failed lately.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::report::{EjectionSettings, Fault, Standing};

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Counting,
    Ejected { until: Instant },
    Probing { until: Instant },
}

/// See the [module](super).
#[derive(Debug, Clone)]
pub(super) struct Entry {
    state: State,
    /// Failures in a row.
    streak: u32,
    /// The last one.
    pub(super) fault: Fault,
    /// A node's last silent address.
    silent: Option<SocketAddr>,
    /// Ejections in a row, without an answer between them.
    pub(super) repeats: u32,
    /// When the last ejection began.
    pub(super) since: Instant,
    /// When it was left out for the first time since it was used as usual.
    pub(super) first_out: Instant,
    touched: Instant,
}

impl Entry {
    pub(super) fn new(fault: Fault, now: Instant) -> Self {
        Self {
            state: State::Counting,
            streak: 0,
            fault,
            silent: None,
            repeats: 0,
            since: now,
            first_out: now,
            touched: now,
        }
    }

    pub(super) fn is_out(&self) -> bool {
        self.state != State::Counting
    }

    pub(super) fn until(&self) -> Option<Instant> {
        match self.state {
            State::Ejected { until } => Some(until),
            State::Counting | State::Probing { .. } => None,
        }
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        match self.state {
            State::Counting => Standing::In,
            State::Ejected { until } | State::Probing { until } if until <= now => Standing::Due,
            State::Ejected { .. } | State::Probing { .. } => Standing::Out,
        }
    }

    /// Counts a failure. Says whether the subject shall be ejected now.
    pub(super) fn fails(&mut self, fault: Fault, needed: u32, silent: Option<SocketAddr>, now: Instant) -> bool {
        self.touched = now;
        self.fault = fault;
        let known = silent.is_some() && silent == self.silent;
        self.silent = silent.or(self.silent);
        if !known {
            self.streak = self.streak.saturating_add(1);
        }
        match self.state {
            State::Counting => self.streak >= needed,
            State::Probing { .. } => true,
            // While it is out, somebody tried for want of others: nothing new. Once it is due, that was the probe.
            State::Ejected { until } => until <= now,
        }
    }

    /// Ejects. `spread` (0 to 1) keeps many agents from coming back in the same moment.
    pub(super) fn eject(&mut self, settings: &EjectionSettings, grows: bool, spread: f64, now: Instant) -> Duration {
        if !self.is_out() {
            self.first_out = now;
        }
        let doublings = if grows { self.repeats.min(16) } else { 0 };
        let whole = settings.first.saturating_mul(1 << doublings).min(settings.longest);
        let lasts = whole.mul_f64(0.9 + 0.2 * spread.clamp(0.0, 1.0));
        self.repeats = self.repeats.saturating_add(1);
        self.state = State::Ejected { until: now + lasts };
        self.since = now;
        self.touched = now;
        lasts
    }

    /// It is used as before. What it did is remembered for a while: who fails again soon stays out longer.
    pub(super) fn returns(&mut self, now: Instant) {
        self.state = State::Counting;
        self.streak = 0;
        self.touched = now;
    }

    pub(super) fn answered(&mut self) {
        self.streak = 0;
        self.silent = None;
    }

    pub(super) fn probe(&mut self, settings: &EjectionSettings, now: Instant) {
        if self.standing(now) == Standing::Due {
            self.state = State::Probing { until: now + settings.probe };
            self.touched = now;
        }
    }

    /// Whether nothing has to be remembered any more.
    pub(super) fn is_over(&self, settings: &EjectionSettings, now: Instant) -> bool {
        let quiet = now.saturating_duration_since(self.touched);
        match self.state {
            State::Counting if self.repeats == 0 && self.streak == 0 => true,
            State::Counting => quiet >= settings.longest,
            // Nobody wants it any more: its service or the endpoint itself is gone.
            State::Ejected { .. } | State::Probing { .. } => quiet >= settings.longest * FORGOTTEN,
        }
    }
}

/// What nobody has tried for so many times the longest ejection is forgotten, and gets connections like all others.
const FORGOTTEN: u32 = 5;
