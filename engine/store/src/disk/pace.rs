//! Long work in the kernel, in short bursts. A kernel that is not preempted while it works for one thread lets all others
//! of that processor wait until its next tick, 4 to 10 ms. A thread that sleeps after each burst is overtaken.

use std::mem;
use std::thread;
use std::time::Duration;

/// So much of the processor at a time.
const BURST: Duration = Duration::from_micros(200);
/// No rest is longer.
const LONGEST_REST: Duration = Duration::from_millis(2);

/// How much of the processor this thread has had since it last rested.
#[derive(Debug)]
pub struct Pace {
    rested_at: Duration,
}

impl Pace {
    pub fn begin() -> Self {
        Self { rested_at: processor_time() }
    }

    /// After a burst, for as long as that took of the processor (not of the disk: who waits for that has let others work).
    pub fn rest_if_due(&mut self) {
        let used = processor_time().saturating_sub(self.rested_at);
        if used >= BURST {
            thread::sleep(used.min(LONGEST_REST));
            self.rested_at = processor_time();
        }
    }
}

/// Of this thread.
fn processor_time() -> Duration {
    // SAFETY: all zeroes are a value of this structure, and the call fills it.
    let time = unsafe {
        let mut time: libc::timespec = mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time);
        time
    };
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
