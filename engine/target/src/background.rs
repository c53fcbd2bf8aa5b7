//! The thread that tends the store: what was deleted is given back, logs are shortened, limits are watched.

use crate::log;
use gespann_store::Store;
use std::thread;
use std::time::{Duration, Instant};

/// Work for so long, then leave the disk and the volumes to others for so long, and no shorter than was worked, if there are
/// any.
const SLICE: Duration = Duration::from_millis(2);
const BREATH: Duration = Duration::from_millis(3);
/// When space is short: the rest is a part of what was worked.
const SHORT_BREATH: Duration = Duration::from_micros(500);
/// Between rounds, when there is nothing to do.
const PAUSE: Duration = Duration::from_millis(200);
const SHORT_PAUSE: Duration = Duration::from_millis(50);
/// After a failure; it is tried again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Between two looks at what volumes occupy together: what can be written meanwhile is what a limit may be passed by.
const LOOK: Duration = Duration::from_millis(50);

/// For ever, beside `tend`: that may be at a long piece of work.
pub fn watch_space(store: &dyn Store) -> ! {
    loop {
        // A failure is told by `tend`, which looks as well.
        let _ = store.watch_space();
        thread::sleep(LOOK);
    }
}

fn rest_after(worked: Duration, short: bool) -> Duration {
    if short { SHORT_BREATH.max(worked / 4) } else { BREATH.max(worked) }
}

pub fn tend(store: &dyn Store) -> ! {
    let mut told = None;
    loop {
        let mut began = Instant::now();
        while store.background() {
            if began.elapsed() >= SLICE {
                if store.was_used() {
                    thread::sleep(rest_after(began.elapsed(), store.space_is_short()));
                }
                began = Instant::now();
            }
        }
        let failure = store.background_failure();
        if failure != told {
            match &failure {
                Some(words) => log!(Error, "background work on the volumes failed and is tried again: {words}"),
                None => log!(Info, "background work on the volumes goes on"),
            }
        }
        thread::sleep(match &failure {
            Some(_) => PAUSE_AFTER_FAILURE,
            None if store.space_is_short() => SHORT_PAUSE,
            None => PAUSE,
        });
        told = failure;
    }
}
