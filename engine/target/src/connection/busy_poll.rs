//! Busy polling: a session whose next command follows at once stays awake for it, for a few microseconds.
//!
//! Waking a thread on an idle processor takes longer than serving a short command: on a virtual machine the processor
//! has been given back, and an interrupt must fetch it. At depth 1 each command would pay for that. So a session whose
//! sleeps were of the length of such a waking, several in a row, looks for itself before it sleeps, as Linux does for guests
//! (halt polling). When nothing comes it sleeps, and tries again only after twice as many. On a busy machine it never
//! begins: there a sleeping thread is woken by a processor that is awake, in a fraction of the time, and polling would only
//! be in the way; one sleep in a hundred and twenty-eight sees to it that this is noticed. The processor is offered to
//! others between two looks, and no more than half of the processors are ever kept awake: with one, nobody polls.
//! `docs/decisions/busy-polling.md` has the measurements.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Costly sleeps in a row before a session polls: at first, and at most, however often nothing came.
const FIRST_NEEDED: u32 = 4;
const MOST_NEEDED: u32 = 4096;
/// A sleep of such a length was for the most part the waking: a shorter one was none that polling could spare, as
/// nobody wakes so quickly from an idle processor, and after a longer one nothing would have come in time.
const COSTLY: std::ops::Range<Duration> = Duration::from_micros(30)..Duration::from_micros(200);
/// So often something is found before one sleep has to show that it is still costly.
const FOUND_BEFORE_SLEEP: u32 = 128;

/// Of all sessions, those that poll at this moment.
#[derive(Debug)]
pub struct Pollers {
    free: AtomicUsize,
}

impl Default for Pollers {
    fn default() -> Self {
        Self::new(thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Pollers {
    pub fn new(processors: usize) -> Self {
        Self { free: AtomicUsize::new(processors / 2) }
    }

    fn enter(&self) -> bool {
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
    }
}

/// What one session knows of its waits.
#[derive(Debug)]
pub struct BusyPoll<'a> {
    pollers: &'a Pollers,
    limit: Duration,
    costly: u32,
    needed: u32,
    found: u32,
}

impl<'a> BusyPoll<'a> {
    /// `limit`: for how long at a time; zero is never.
    pub fn new(pollers: &'a Pollers, limit: Duration) -> Self {
        Self { pollers, limit, costly: 0, needed: FIRST_NEEDED, found: 0 }
    }

    /// If it is worth it now, and there is a processor for it.
    pub fn turn(&self) -> Option<Turn<'a>> {
        let worth = self.costly >= self.needed && !self.limit.is_zero();
        (worth && self.pollers.enter()).then(|| Turn { pollers: self.pollers, ends: Instant::now() + self.limit })
    }

    pub fn found(&mut self) {
        (self.needed, self.found) = (FIRST_NEEDED, self.found + 1);
        if self.found == FOUND_BEFORE_SLEEP {
            (self.costly, self.found) = (FIRST_NEEDED - 1, 0);
        }
    }

    pub fn missed(&mut self) {
        self.costly = 0;
        self.needed = (self.needed * 2).min(MOST_NEEDED);
    }

    pub fn slept(&mut self, time: Duration) {
        self.costly = if COSTLY.contains(&time) { self.costly.saturating_add(1) } else { 0 };
    }
}

/// One wait, awake.
#[derive(Debug)]
pub struct Turn<'a> {
    pollers: &'a Pollers,
    ends: Instant,
}

impl Turn<'_> {
    /// Lets others have the processor; whether to look again.
    pub fn goes_on(&self) -> bool {
        thread::yield_now();
        Instant::now() < self.ends
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pollers.free.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);
    const COSTLY_SLEEP: Duration = Duration::from_micros(70);

    fn slept(poll: &mut BusyPoll<'_>, time: Duration, times: u32) {
        (0..times).for_each(|_| poll.slept(time));
    }

    fn ready(pollers: &Pollers) -> BusyPoll<'_> {
        let mut poll = BusyPoll::new(pollers, LIMIT);
        slept(&mut poll, COSTLY_SLEEP, FIRST_NEEDED);
        poll
    }

    #[test]
    fn only_a_session_that_is_woken_at_a_cost_again_and_again_polls() {
        let pollers = Pollers::new(2);
        assert!(ready(&pollers).turn().is_some());
        for other in [Duration::from_micros(9), Duration::from_millis(1)] {
            let mut poll = BusyPoll::new(&pollers, LIMIT);
            slept(&mut poll, other, 100);
            slept(&mut poll, COSTLY_SLEEP, FIRST_NEEDED - 1);
            assert!(poll.turn().is_none());
            slept(&mut poll, other, 1);
            slept(&mut poll, COSTLY_SLEEP, FIRST_NEEDED - 1);
            assert!(poll.turn().is_none(), "not in a row");
            slept(&mut poll, COSTLY_SLEEP, 1);
            assert!(poll.turn().is_some());
        }
        let mut never = BusyPoll::new(&pollers, Duration::ZERO);
        slept(&mut never, COSTLY_SLEEP, 100);
        assert!(never.turn().is_none());
    }

    #[test]
    fn whoever_polls_in_vain_tries_ever_more_rarely_until_something_comes() {
        let pollers = Pollers::new(2);
        let mut poll = BusyPoll::new(&pollers, LIMIT);
        let mut sleeps = Vec::new();
        for _ in 0..14 {
            let mut count = 0;
            while poll.turn().is_none() {
                slept(&mut poll, COSTLY_SLEEP, 1);
                count += 1;
            }
            sleeps.push(count);
            poll.missed();
        }
        assert_eq!(sleeps[..4], [4, 8, 16, 32]);
        assert_eq!(sleeps[12..], [MOST_NEEDED; 2]);
        slept(&mut poll, COSTLY_SLEEP, MOST_NEEDED);
        poll.found();
        assert!(poll.turn().is_some(), "and it goes on as long as something comes");
        poll.missed();
        slept(&mut poll, COSTLY_SLEEP, 2 * FIRST_NEEDED);
        assert!(poll.turn().is_some());
    }

    #[test]
    fn a_sleep_now_and_then_shows_whether_it_is_still_worth_it() {
        let pollers = Pollers::new(2);
        let mut poll = ready(&pollers);
        for _ in 1..FOUND_BEFORE_SLEEP {
            poll.found();
            assert!(poll.turn().is_some());
        }
        poll.found();
        assert!(poll.turn().is_none());
        poll.slept(COSTLY_SLEEP);
        assert!(poll.turn().is_some(), "it is");
        (0..FOUND_BEFORE_SLEEP).for_each(|_| poll.found());
        poll.slept(Duration::from_micros(9));
        slept(&mut poll, COSTLY_SLEEP, FIRST_NEEDED - 1);
        assert!(poll.turn().is_none(), "it was not");
    }

    #[test]
    fn half_of_the_processors_at_most_are_kept_awake() {
        for (processors, most) in [(1, 0), (2, 1), (3, 1), (8, 4)] {
            let pollers = Pollers::new(processors);
            let poll = ready(&pollers);
            let turns: Vec<_> = std::iter::from_fn(|| poll.turn()).take(processors).collect();
            assert_eq!(turns.len(), most, "of {processors}");
            drop(turns);
            assert_eq!(poll.turn().is_some(), most > 0, "a turn that is over leaves room");
        }
    }

    #[test]
    fn a_turn_ends_by_itself() {
        let pollers = Pollers::new(2);
        let turn = ready(&pollers).turn().unwrap();
        let begun = Instant::now();
        while turn.goes_on() {}
        assert!(begun.elapsed() >= LIMIT / 2);
    }
}
