//! Memory for write data on its way, shared by all sessions of a target: what is not there yet is asked for only when
//! there is room for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[derive(Debug)]
pub struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    held_back: AtomicUsize,
}

/// Bytes of a budget; given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

/// A session that waits for room, counted while it does.
#[derive(Debug)]
pub struct HeldBack(Arc<Budget>);

impl Budget {
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit_bytes, used_bytes: AtomicU64::new(0), held_back: AtomicUsize::new(0) })
    }

    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Does anybody wait for what others hold?
    pub fn contended(&self) -> bool {
        self.held_back.load(Ordering::Relaxed) > 0
    }

    fn add(&self, bytes: u64, limit_bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit_bytes);
        bytes == 0 || self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// For data that comes without being asked for: from the first half. Shares of the second half are grown to all that
    /// their command needs, so these commands can end, and make room: no two of them wait for each other.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        self.add(bytes, self.limit_bytes / 2).then(|| Share { budget: self.clone(), bytes })
    }

    /// For what is only kept because it may be useful: from the first quarter, so that it is never in anybody's way.
    pub fn take_spare(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        self.add(bytes, self.limit_bytes / 4).then(|| Share { budget: self.clone(), bytes })
    }

    pub fn hold_back(self: &Arc<Self>) -> HeldBack {
        self.held_back.fetch_add(1, Ordering::Relaxed);
        HeldBack(self.clone())
    }
}

impl Share {
    /// True once it has `bytes`, or more.
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        let grown = self.budget.add(bytes.saturating_sub(self.bytes), self.budget.limit_bytes);
        if grown {
            self.bytes = self.bytes.max(bytes);
        }
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        self.0.held_back.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_end_at_the_limit_and_come_back() {
        let budget = Budget::new(100);
        let mut first = budget.take(10).unwrap();
        let mut second = budget.take(40).unwrap();
        assert!(budget.take(1).is_none(), "the second half is for what has been asked for");
        assert!(budget.take(u64::MAX).is_none(), "no overflow");
        assert!(first.grow_to(10) && first.grow_to(0), "it has that already");
        assert!(first.grow_to(60));
        assert!(!second.grow_to(41));
        assert_eq!(budget.used_bytes(), 100);
        drop(first);
        assert!(second.grow_to(100) && !second.grow_to(101));
        drop(second);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn what_is_kept_for_speed_takes_a_quarter_at_most() {
        let budget = Budget::new(100);
        let kept = budget.take_spare(25).unwrap();
        assert!(budget.take_spare(1).is_none());
        assert!(budget.take(25).is_some());
        drop(kept);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn it_knows_whether_anybody_waits() {
        let budget = Budget::new(1);
        assert!(!budget.contended());
        let waiting = budget.hold_back();
        assert!(budget.contended());
        drop(waiting);
        assert!(!budget.contended());
    }
}
