//! A volume that stalls or fails on demand, around any other.

use crate::{BlockError, Extent, UsePlace, Volume};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The switches; shared by the test and the volume.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stalled: bool,
    /// Counts releases: what stood still before one goes on after it.
    released: u64,
    waiting: usize,
    write_errno: Option<i32>,
    flush_errno: Option<i32>,
    settle_errno: Option<i32>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on every change waits.
    pub fn stall(&self) {
        self.state().stalled = true;
    }

    /// All go on, those that come later as well.
    pub fn release(&self) {
        self.state().stalled = false;
        self.release_stalled();
    }

    /// Those that stand still go on; later ones wait if they did before.
    pub fn release_stalled(&self) {
        self.state().released += 1;
        self.changed.notify_all();
    }

    /// Later ones pass those that stand still.
    pub fn let_pass(&self) {
        self.state().stalled = false;
    }

    pub fn stalled(&self) -> usize {
        self.state().waiting
    }

    /// Returns once `count` changes are standing still.
    pub fn wait_for_stalled(&self, count: usize) {
        let mut state = self.state();
        while state.waiting < count {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn fail_writes(&self, errno: Option<i32>) {
        self.state().write_errno = errno;
    }

    pub fn fail_flushes(&self, errno: Option<i32>) {
        self.state().flush_errno = errno;
    }

    pub fn fail_settling(&self, errno: Option<i32>) {
        self.state().settle_errno = errno;
    }

    fn before_change(&self) -> Result<(), BlockError> {
        let mut state = self.state();
        if state.stalled {
            state.waiting += 1;
            self.changed.notify_all();
            let released = state.released;
            while state.released == released {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.waiting -= 1;
        }
        fail(state.write_errno)
    }
}

fn fail(errno: Option<i32>) -> Result<(), BlockError> {
    errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno).into()))
}

#[derive(Debug)]
pub struct FaultyVolume {
    pub inner: Arc<dyn Volume>,
    pub faults: Arc<Faults>,
}

impl Volume for FaultyVolume {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn thick(&self) -> bool {
        self.inner.thick()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlockError> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        self.faults.before_change()?;
        self.inner.write_at(data, offset)
    }

    fn zero(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        self.faults.before_change()?;
        self.inner.zero(offset, length)
    }

    fn flush(&self) -> Result<(), BlockError> {
        fail(self.faults.state().flush_errno)?;
        self.inner.flush()
    }

    fn extent(&self, offset: u64) -> Result<Extent, BlockError> {
        self.inner.extent(offset)
    }

    fn or_write(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        self.faults.before_change()?;
        self.inner.or_write(data, offset)
    }

    fn atomic_bytes(&self) -> u32 {
        self.inner.atomic_bytes()
    }

    fn write_atomic(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        self.faults.before_change()?;
        self.inner.write_atomic(data, offset)
    }

    fn compare_and_write(&self, offset: u64, expected: &[u8], new: &[u8]) -> Result<Option<usize>, BlockError> {
        self.faults.before_change()?;
        self.inner.compare_and_write(offset, expected, new)
    }

    fn settle(&self) -> Result<(), BlockError> {
        fail(self.faults.state().settle_errno)?;
        self.inner.settle()
    }

    fn with_place(&self, offset: u64, length: u64, use_it: UsePlace<'_>) -> Result<bool, BlockError> {
        self.inner.with_place(offset, length, use_it)
    }
}
