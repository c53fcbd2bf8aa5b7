//! SIGTERM and SIGINT, waited for by the main thread; blocked in all others, which inherit the mask.

use std::mem::MaybeUninit;

pub struct Signals(libc::sigset_t);

/// Call before any thread is started.
pub fn block() -> Signals {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the set; the calls only fail for bad signal numbers.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        Signals(set.assume_init())
    }
}

pub fn wait(signals: &Signals) -> &'static str {
    let mut signal = 0;
    // SAFETY: both pointers are valid; EINTR is not returned by sigwait.
    unsafe { libc::sigwait(&signals.0, &mut signal) };
    if signal == libc::SIGINT { "SIGINT" } else { "SIGTERM" }
}
