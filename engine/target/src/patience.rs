//! Writes that no space is left for, while some is on its way back.
//!
//! A host whose write is answered with "no space" pauses its guests until somebody lets them go on. So such a write waits
//! a little for what the background is giving back: no longer than so much in all of a volume's writes within some time, because
//! the commands behind it on its connection wait as well, and hosts give up connections that are silent for five seconds.

use crate::export::Export;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two tries. Limits are looked at more rarely than that.
const STEP: Duration = Duration::from_millis(20);
const MOST: Duration = Duration::from_secs(2);
const WITHIN: Duration = Duration::from_secs(10);

/// How long writes of one volume have waited lately.
#[derive(Debug, Default)]
pub struct Patience(Mutex<Option<(Instant, Duration)>>);

impl Patience {
    /// How long may be waited now, if at all.
    fn take(&self, now: Instant) -> Option<Duration> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, waited) = state.filter(|(since, _)| now.duration_since(*since) < WITHIN).unwrap_or((now, Duration::ZERO));
        if waited >= MOST {
            return None;
        }
        *state = Some((since, waited + STEP));
        Some(STEP)
    }
}

/// After a write was refused for lack of space: true if it should be tried again now.
pub fn wait_for_space(export: &Export) -> bool {
    export.volume.space_is_coming() && export.patience.take(Instant::now()).map(thread::sleep).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_bounded_within_any_while() {
        let (patience, began) = (Patience::default(), Instant::now());
        let all = |mut now: Instant| {
            let mut waited = Duration::ZERO;
            while let Some(step) = patience.take(now) {
                (now, waited) = (now + step, waited + step);
            }
            waited
        };
        assert_eq!(all(began), MOST);
        assert_eq!(all(began + WITHIN - STEP), Duration::ZERO, "all has been waited");
        assert_eq!(all(began + WITHIN), MOST, "some other time");
    }
}
