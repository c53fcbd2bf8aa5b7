//! The system's allocator, counting: how much one input takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Bytes of this thread: now, and the most since it was set back. Signed: a thread may free what another has made.
#[derive(Debug, Clone, Copy)]
struct Count {
    now: isize,
    peak: isize,
}

thread_local! {
    static COUNT: Cell<Count> = const { Cell::new(Count { now: 0, peak: 0 }) };
}

fn add(bytes: isize) {
    // Not there while a thread ends: what is freed then is nobody's input.
    let _ = COUNT.try_with(|count| {
        let now = count.get().now + bytes;
        count.set(Count { now, peak: count.get().peak.max(now) });
    });
}

#[derive(Debug)]
pub struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        add(new_size as isize - layout.size() as isize);
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// The most that `work` had allocated at a time.
pub fn peak_of(work: impl FnOnce()) -> usize {
    let before = COUNT.with(|count| {
        let now = count.get().now;
        count.set(Count { now, peak: now });
        now
    });
    work();
    (COUNT.with(Cell::get).peak - before) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_what_was_there_at_a_time() {
        let used = peak_of(|| {
            drop(vec![0_u8; 1 << 20]);
            let mut grown = vec![0_u8; 10];
            grown.resize(1 << 19, 1);
        });
        assert!((1 << 20..3 << 19).contains(&used), "{used}");
    }
}
