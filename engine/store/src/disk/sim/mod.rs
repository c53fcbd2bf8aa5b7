//! A disk in memory that may crash at any call, and loses then what a real one may lose.
//!
//! What was synced stays. Of what was not, after a loss of power each change was applied, lost or torn, independently of the
//! others (`fates`), as far as a real file system may do that: a sector of 512 bytes is never torn and never goes back in
//! time, a rename is whole, a name is not changed twice with the first change missing, a file that was shortened does not
//! have its old tail. A name is durable when its folder was synced, whatever was done to the file.
//!
//! Everything is decided by the seed and by the order of calls. One lock: threads may use it, but not to be fast.

mod calls;
mod content;
mod fates;
mod faults;
mod image;
mod names;
mod runs;
#[cfg(test)]
mod tests;

pub use fates::{Fate, Fates};
pub use faults::{Fault, Operation};

use content::Content;
use fastrand::Rng;
use faults::Faults;
use image::PAGE;
use names::{FOLDER, FileNumber, Names, place};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A clone is another handle to the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Clone)]
struct State {
    chance: Rng,
    names: Names,
    files: BTreeMap<FileNumber, Content>,
    next_file: FileNumber,
    capacity_blocks: u64,
    /// How many times the power was lost.
    incarnation: u64,
    calls: u64,
    /// Counts the changes, over all lives of the disk.
    time: u64,
    crash_at: Option<u64>,
    dead: bool,
    faults: Faults,
    trace: Option<Vec<String>>,
}

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            chance: Rng::with_seed(seed),
            names: Names::default(),
            files: BTreeMap::new(),
            next_file: FOLDER + 1,
            capacity_blocks: 1 << 40,
            incarnation: 0,
            calls: 0,
            time: 0,
            crash_at: None,
            dead: false,
            faults: Faults::default(),
            trace: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls of the disk and of its files so far, of every kind.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The call after `calls` others dies on its way, done or not (a write: in part); all later ones fail.
    pub fn crash_after(&self, calls: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.calls + calls);
    }

    /// Takes back `crash_after`, unless it has happened.
    pub fn stay_alive(&self) {
        self.state().crash_at = None;
    }

    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The disk as the next process finds it. This one, and every file opened from it, is dead.
    pub fn after_process_death(&self) -> Self {
        let mut old = self.state();
        old.dead = true;
        let mut state = old.clone();
        state.revive();
        Self(Arc::new(Mutex::new(state)))
    }

    /// The disk as the machine finds it when the power is back. This one, and every file opened from it, is dead.
    pub fn after_power_loss(&self, seed: u64) -> Self {
        let mut old = self.state();
        old.dead = true;
        let oldest =
            old.names.oldest_unsynced().into_iter().chain(old.files.values().filter_map(Content::oldest_unsynced)).min();
        let mut fates = Fates::new(seed, oldest.unwrap_or(old.time)..old.time + 1);
        let mut state = State { names: old.names.after_power_loss(&mut fates), ..old.clone() };
        state.files = old.files.iter().map(|(number, file)| (*number, file.after_power_loss(&mut fates))).collect();
        state.incarnation += 1;
        state.revive();
        Self(Arc::new(Mutex::new(state)))
    }

    /// How much data the disk takes; whole blocks of 4 KiB count.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_blocks = bytes / PAGE;
    }

    /// What all files occupy. Bytes.
    pub fn allocated_bytes(&self) -> u64 {
        self.state().used_blocks() * PAGE
    }

    /// Each file with its length and what it occupies, in bytes.
    pub fn files(&self) -> Vec<(String, u64, u64)> {
        let state = self.state();
        let named = state.names.now.iter().filter(|(_, file)| **file != FOLDER);
        named
            .map(|((folder, name), file)| {
                let content = &state.files[file];
                (format!("{folder}/{name}"), content.now.length, content.now.blocks() * PAGE)
            })
            .collect()
    }

    pub fn plan(&self, fault: Fault) {
        self.state().faults.plan(fault);
    }

    /// From now on so many in a thousand calls of the kind fail.
    pub fn chance(&self, operation: Operation, per_thousand: u32, errno: i32) {
        self.state().faults.chance(operation, per_thousand, errno);
    }

    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// The faults that have struck so far: what failed, and with which errno.
    pub fn fired(&self) -> Vec<(Operation, i32)> {
        self.state().faults.fired.clone()
    }

    /// From now on every call is written down.
    pub fn start_trace(&self) {
        self.state().trace = Some(Vec::new());
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.state().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Does one call that changes something. A process that dies in it has done it or not.
    fn change<T>(&self, call: Call, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        match state.begin(&call)? {
            Verdict::Go => act(&mut state),
            Verdict::Fail(error) => Err(error),
            Verdict::Die(error) => {
                if state.chance.bool() {
                    let _ = act(&mut state);
                }
                Err(error)
            }
        }
    }

    fn look<T>(&self, call: Call, act: impl FnOnce(&State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        match state.begin(&call)? {
            Verdict::Go => act(&state),
            Verdict::Fail(error) | Verdict::Die(error) => Err(error),
        }
    }
}

enum Verdict {
    Go,
    Fail(io::Error),
    Die(io::Error),
}

/// One call, for the counters and the trace.
struct Call<'a> {
    operation: Operation,
    verb: &'a str,
    path: &'a str,
    place: Option<(u64, u64)>,
}

impl<'a> Call<'a> {
    fn new(operation: Operation, verb: &'a str, path: &'a str) -> Self {
        Self { operation, verb, path, place: None }
    }

    fn at(operation: Operation, verb: &'a str, path: &'a str, offset: u64, length: u64) -> Self {
        Self { operation, verb, path, place: Some((offset, length)) }
    }
}

impl State {
    fn begin(&mut self, call: &Call) -> io::Result<Verdict> {
        let dead = || io::Error::other("the process is dead");
        if self.dead {
            return Err(dead());
        }
        let number = self.calls;
        self.calls += 1;
        let verdict = if self.crash_at.is_some_and(|at| number >= at) {
            self.dead = true;
            Verdict::Die(dead())
        } else {
            self.faults.strike(call.operation, &mut self.chance).map_or(Verdict::Go, Verdict::Fail)
        };
        if let Some(trace) = &mut self.trace {
            let place = call.place.map(|(offset, length)| format!(" {offset}+{length}")).unwrap_or_default();
            let outcome = match &verdict {
                Verdict::Go => String::new(),
                Verdict::Fail(error) | Verdict::Die(error) => format!(": {error}"),
            };
            trace.push(format!("{number} {} {}{place}{outcome}", call.verb, call.path));
        }
        Ok(verdict)
    }

    fn revive(&mut self) {
        self.dead = false;
        self.crash_at = None;
        self.faults.clear();
    }

    /// A file that has lost its name no longer counts, even if somebody has it open still.
    fn used_blocks(&self) -> u64 {
        self.names.now.values().filter_map(|file| self.files.get(file)).map(|content| content.now.blocks()).sum()
    }

    fn tick(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    fn find(&self, path: &str) -> io::Result<FileNumber> {
        match self.names.now.get(&place(path)) {
            None => Err(error(libc::ENOENT)),
            Some(&FOLDER) => Err(error(libc::EISDIR)),
            Some(&file) => Ok(file),
        }
    }

    fn fail_sync(&mut self, files: &[FileNumber]) {
        let seed = self.chance.u64(..);
        let mut fates = Fates::new(seed, 0..self.time);
        for file in files {
            self.files.get_mut(file).expect("files stay").fail_sync(&mut fates);
        }
    }

    /// The process died in the call: the kernel may have finished it for some of the files.
    fn sync_on_the_way(&mut self, files: &[FileNumber]) {
        for file in files {
            if self.chance.bool() {
                self.files.get_mut(file).expect("files stay").sync();
            }
        }
    }

    /// As many whole pages at the front as there is room for; then the error, if that was not all.
    fn write(&mut self, file: FileNumber, data: &[u8], offset: u64) -> io::Result<()> {
        let free = self.capacity_blocks.saturating_sub(self.used_blocks());
        let time = self.tick();
        let content = self.files.get_mut(&file).expect("files stay");
        let end = offset + data.len() as u64;
        if content.now.missing_blocks(offset, end) <= free {
            content.write(data, offset, time);
            return Ok(());
        }
        let mut fits = offset;
        while content.now.missing_blocks(offset, (fits / PAGE + 1) * PAGE) <= free {
            fits = (fits / PAGE + 1) * PAGE;
        }
        if fits > offset {
            content.write(&data[..(fits - offset) as usize], offset, time);
        }
        Err(error(libc::ENOSPC))
    }

    fn write_in_part(&mut self, file: FileNumber, data: &[u8], offset: u64) {
        let end = offset + data.len() as u64;
        let stop = match self.chance.u32(0..3) {
            0 => offset,
            1 => end,
            _ => self.chance.u64(offset..=end) / PAGE * PAGE,
        };
        if stop > offset {
            let _ = self.write(file, &data[..(stop - offset) as usize], offset);
        }
    }
}
