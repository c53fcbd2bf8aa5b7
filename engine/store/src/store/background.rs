//! Work that nobody waits for: giving back what is no longer referred to, making changes durable so that it may be given
//! back, checkpoints. In small steps, each of which may be the last before the process dies.

use super::MappedStore;
use super::behind_end::Reserve;
use super::emptying::Emptying;
use super::open::{SPARE, SPARE_BYTES};
use crate::data_files::{self, DataFile};
use crate::journal::Journal;
use crate::journal::record::FileKind;
use crate::map::nodes::Found;
use crate::map::walk::Dropped;
use crate::map::{LEAF_SLOTS, Slot};
use crate::shared::Shared;
use crate::state::State;
use crate::volume::MappedVolume;
use crate::volume::read::chunk_in;
use crate::{BlockError, StoreError, checkpoint, lock};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Slots that one step empties at most.
const STEP_SLOTS: u64 = 256;
/// Slots whose references one step looks at.
const COUNTED_SLOTS: u64 = 16 << 10;
/// Before it looks for more, the background empties what it has found when that is so many runs of slots.
const MOST_RUNS: usize = 100_000;
/// What one step cuts off a file that is being removed.
const STEP_BYTES: u64 = 1 << 30;
/// Rounds for which a volume that is being written is left alone.
const PATIENT_ROUNDS: u32 = 50;
/// Chunks that one step puts together.
const STEP_CHUNKS: usize = 4;

#[derive(Debug)]
pub struct Background {
    /// Of the present checkpoint and log.
    number: AtomicU64,
    checkpoint_bytes: AtomicU64,
    /// A checkpoint that failed is tried again only after more has been logged.
    not_before_bytes: AtomicU64,
    /// What is set aside for the next start.
    spare_bytes: AtomicU64,
    /// Files whose free slots may still hold something, and how far they have been looked through.
    unswept: Mutex<VecDeque<(Arc<DataFile>, u64)>>,
    /// Slots that are to be emptied, and only then let go of.
    pub letting_go: Mutex<Emptying>,
    /// Parts of ownerless files that nobody refers to any more.
    unused: Mutex<Emptying>,
    /// What is reserved in files and no longer needed.
    pub reserves: Mutex<VecDeque<Reserve>>,
    /// Ownerless files that perhaps nobody refers to, and those of which that is certain.
    doubtful: Mutex<Vec<Arc<DataFile>>>,
    doomed: Mutex<VecDeque<Arc<DataFile>>>,
    /// Volumes whose chunks in several slots may be put together, and where to go on.
    scattered: Mutex<VecDeque<(Weak<MappedVolume>, u64)>>,
    /// Once a round: the commits that let go of what waits for them.
    commit_due: AtomicBool,
    /// What the latest failure was, so that it is told once.
    pub failure: Mutex<Option<String>>,
}

impl Background {
    pub fn new(number: u64, checkpoint_bytes: u64, shared: &Shared, state: &State) -> Self {
        // Not its other files: an atomic write that does not count may have left something there.
        let raw =
            |file: &DataFile| file.kind == FileKind::Base && state.volumes.get(&file.volume).is_some_and(|volume| volume.raw);
        let files = shared.files.all();
        for file in files.iter().filter(|file| raw(file)) {
            file.swept.store(true, Ordering::Release); // every slot is the volume's own
        }
        let (ownerless, owned): (Vec<_>, Vec<_>) =
            files.into_iter().filter(|file| !raw(file)).partition(|file| file.ownerless.load(Ordering::Acquire));
        let reserves =
            ownerless.iter().filter(|file| file.holds_reserve.load(Ordering::Acquire)).map(Reserve::of_nobody).collect();
        Self {
            number: AtomicU64::new(number),
            checkpoint_bytes: AtomicU64::new(checkpoint_bytes),
            not_before_bytes: AtomicU64::new(0),
            spare_bytes: AtomicU64::new(0),
            unswept: Mutex::new(owned.into_iter().chain(ownerless.clone()).map(|file| (file, 0)).collect()),
            letting_go: Mutex::default(),
            unused: Mutex::default(),
            reserves: Mutex::new(reserves),
            doubtful: Mutex::new(ownerless),
            doomed: Mutex::default(),
            scattered: Mutex::default(),
            commit_due: AtomicBool::new(true),
            failure: Mutex::default(),
        }
    }

    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }
}

impl MappedStore {
    /// One bounded piece of work; false if there is nothing to do for now.
    pub(super) fn background_step(&self) -> bool {
        let result = self.one_step();
        let more = *result.as_ref().unwrap_or(&false);
        *lock(&self.background.failure) = result.err().map(|error| error.to_string());
        more
    }

    fn one_step(&self) -> io::Result<bool> {
        if lock(&self.background.letting_go).len() < MOST_RUNS {
            if let Some(dropped) = self.shared.next_released() {
                self.give_back(dropped);
                return Ok(true);
            }
        }
        if self.remove_step()?
            || self.empty_step()?
            || self.unused_step()?
            || self.reserve_step()?
            || self.sweep_step()?
            || self.compact_step()?
            || self.checkpoint_step()?
        {
            return Ok(true);
        }
        if self.background.commit_due.swap(false, Ordering::AcqRel) {
            self.commit_waiting()?;
            return Ok(self.shared.anything_released());
        }
        self.background.commit_due.store(true, Ordering::Release);
        self.keep_spare();
        self.watch_limits().map_err(|error| io::Error::other(error.to_string()))?;
        let waits = || self.shared.anything_released() || self.all_volumes().iter().any(|volume| volume.waits_for_commit());
        self.shared.has_given_back(waits);
        Ok(false)
    }

    /// Lets go of one thing. Slots are emptied before their last reference goes: nobody finds one with something in it.
    fn give_back(&self, dropped: Dropped) {
        let Dropped::Slots(number, slots) = dropped else {
            let mut more = Vec::new();
            dropped.release(&mut more);
            self.shared.release_first(more);
            return;
        };
        let Some(file) = self.shared.files.get(number) else { return };
        let rest = slots.end.min(slots.start + COUNTED_SLOTS)..slots.end;
        let slots = slots.start..rest.start;
        if !rest.is_empty() {
            self.shared.release_first(vec![Dropped::Slots(number, rest)]);
        }
        if file.ownerless.load(Ordering::Acquire) {
            file.let_go(slots.clone());
            let free = file.runs(slots).into_iter().filter(|(_, count)| *count == 0);
            let mut unused = lock(&self.background.unused);
            free.for_each(|(run, _)| unused.add(number, run));
            self.doubt(&file);
            return;
        }
        for (run, count) in file.runs(slots) {
            if count == 1 {
                lock(&self.background.letting_go).add(number, run);
            } else {
                file.let_go(run);
            }
        }
    }

    /// Empties some slots to which only what was let go refers, and gives them back.
    fn empty_step(&self) -> io::Result<bool> {
        self.empty_some(&self.background.letting_go, &|file, slots| {
            file.let_go(slots);
            if file.ownerless.load(Ordering::Acquire) {
                self.doubt(file); // its volume was deleted meanwhile
            }
        })
    }

    /// Perhaps nobody refers to the file any more.
    fn doubt(&self, file: &Arc<DataFile>) {
        let mut doubtful = lock(&self.background.doubtful);
        if !doubtful.iter().any(|known| known.number == file.number) {
            doubtful.push(file.clone());
        }
    }

    /// Empties some slots of ownerless files.
    fn unused_step(&self) -> io::Result<bool> {
        self.empty_some(&self.background.unused, &|_, _| {})
    }

    /// Empties some of the first run; what holds nothing is passed over, however long it is.
    fn empty_some(&self, from: &Mutex<Emptying>, done: &dyn Fn(&Arc<DataFile>, Range<u64>)) -> io::Result<bool> {
        let Some((number, slots)) = lock(from).take() else { return Ok(false) };
        let Some(file) = self.shared.files.get(number) else { return Ok(true) };
        let alone = file.ownerless.load(Ordering::Acquire);
        let empty = || -> io::Result<u64> {
            if !alone && slots.end == slots.start + 1 {
                // Looking for its data would wait for the writers twice more.
                return file.empty(file.offset(slots.start), file.chunk_bytes).map(|()| slots.end);
            }
            let (first, run_end) = match file.next_data(file.offset(slots.start), file.offset(slots.end))? {
                Some((start, end)) => (start / file.chunk_bytes, end / file.chunk_bytes),
                None => return Ok(slots.end),
            };
            // The file system keeps writers away from the file meanwhile, and takes its time for each extent, which it may
            // have to discard on the disk below: one run of data, or what is in one slot.
            let upto = if alone { slots.end } else { run_end.max(first + 1) };
            let end = slots.end.min(upto).min(first + STEP_SLOTS);
            file.empty(file.offset(first), (end - first) * file.chunk_bytes)?;
            Ok(end)
        };
        let end = empty().inspect_err(|_| lock(from).add(number, slots.clone()))?;
        done(&file, slots.start..end);
        if end < slots.end {
            lock(from).add(number, end..slots.end);
        }
        Ok(true)
    }

    /// The volume of these files is gone, for good: what nobody refers to of them can be removed.
    pub(super) fn perhaps_unused(&self, files: Vec<Arc<DataFile>>) {
        let holding = files.iter().filter(|file| file.holds_reserve.load(Ordering::Acquire));
        lock(&self.background.reserves).extend(holding.map(Reserve::of_nobody));
        lock(&self.background.doubtful).extend(files);
    }

    /// Removes files to which nobody refers, a piece at a time: freeing much at once holds up the file system.
    fn remove_step(&self) -> io::Result<bool> {
        let doubtful = std::mem::take(&mut *lock(&self.background.doubtful));
        lock(&self.background.doomed).extend(doubtful.into_iter().filter(|file| !file.referred_to()));
        let Some(file) = lock(&self.background.doomed).front().cloned() else { return Ok(false) };
        let length = file.len()?;
        if file.allocated_bytes()? > STEP_BYTES && length > STEP_BYTES {
            file.set_len(length - (length / 64).max(STEP_BYTES))?;
            return Ok(true);
        }
        match self.disk().remove(&data_files::path(&file.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.shared.files.remove(file.number);
        lock(&self.background.unused).forget(file.number);
        lock(&self.background.reserves).retain(|reserve| !reserve.is_in(&file));
        lock(&self.background.unswept).retain(|(other, _)| other.number != file.number);
        lock(&self.background.doomed).pop_front();
        Ok(true)
    }

    /// After a start: what was written for changes that do not count, or was to be emptied when the process died.
    fn sweep_step(&self) -> io::Result<bool> {
        let Some((file, offset)) = lock(&self.background.unswept).front().cloned() else { return Ok(false) };
        match file.next_data(offset, file.len()?.max(offset))? {
            Some((start, end)) => {
                let first = start / file.chunk_bytes;
                let slots = first..end.div_ceil(file.chunk_bytes).min(first + STEP_SLOTS);
                file.sweep(slots.clone())?;
                if let Some(front) = lock(&self.background.unswept).front_mut() {
                    front.1 = file.offset(slots.end);
                }
            }
            None => {
                file.swept.store(true, Ordering::Release);
                lock(&self.background.unswept).pop_front();
            }
        }
        Ok(true)
    }

    /// Something was deleted: chunks in several slots may have become the only ones to refer to one.
    pub(super) fn compact_soon(&self) {
        let mut scattered = lock(&self.background.scattered);
        scattered.clear();
        scattered.extend(self.all_volumes().iter().map(|volume| (Arc::downgrade(volume), 0)));
    }

    /// Puts together chunks in several slots of which nobody else refers to one: that gives space back.
    fn compact_step(&self) -> io::Result<bool> {
        let Some((volume, chunk)) = lock(&self.background.scattered).pop_front() else { return Ok(false) };
        let Some(volume) = volume.upgrade() else { return Ok(true) };
        let (found, next) = self.scattered_chunks(&volume, chunk);
        for chunk in found {
            volume.complete(chunk).map_err(|error| match error {
                BlockError::Io(error) => error,
                other => io::Error::other(other.to_string()),
            })?;
        }
        if let Some(next) = next {
            lock(&self.background.scattered).push_front((Arc::downgrade(&volume), next));
        }
        Ok(true)
    }

    /// A few chunks from `chunk` on that are worth putting together, and where to go on.
    fn scattered_chunks(&self, volume: &MappedVolume, mut chunk: u64) -> (Vec<u64>, Option<u64>) {
        let map = volume.map();
        let end = volume.chunks();
        let mut found = Vec::new();
        while chunk < end {
            match map.top.find(chunk) {
                Found::Hole(next) | Found::Identity(_, next) => chunk = next,
                Found::Leaf(leaf, index) => {
                    let alone = |slot: Slot| self.shared.files.is_alone(slot);
                    let in_sole_leaf = map.top.is_alone(chunk);
                    for (at, part) in leaf.parts.iter().filter(|(at, _)| usize::from(*at) >= index) {
                        let chunk = chunk - index as u64 + u64::from(*at);
                        let first = leaf.entries[usize::from(*at)].slot();
                        // What is not its own may become so, see `adopt`.
                        let own = || chunk_in(&map, chunk).own || (in_sole_leaf && first.is_some_and(alone));
                        if part.others.iter().any(|piece| alone(piece.slot())) && own() {
                            found.push(chunk);
                            if found.len() == STEP_CHUNKS {
                                return (found, Some(chunk + 1));
                            }
                        }
                    }
                    chunk = chunk - index as u64 + LEAF_SLOTS;
                }
            }
        }
        (found, None)
    }

    /// Makes changes durable that let go of something, so that it may be given back: when their volume has come to rest,
    /// because syncing random writes all the time costs their writer most of its speed; but not too late.
    fn commit_waiting(&self) -> io::Result<()> {
        let patience = if self.shared.is_wanted() { 0 } else { PATIENT_ROUNDS };
        for volume in self.all_volumes().iter().filter(|volume| volume.waits_for_commit()) {
            {
                let mut looked_at = lock(&volume.looked_at);
                let (before, rounds) = *looked_at;
                let latest = volume.latest();
                *looked_at = (latest, if latest == before { 0 } else { rounds + 1 });
                if latest != before && rounds < patience {
                    continue;
                }
                looked_at.1 = 0;
            }
            volume.flush_gently().map_err(|error| io::Error::other(format!("volume {}: {error}", volume.id)))?;
        }
        Ok(())
    }

    /// Sets space aside for the next start: two checkpoints like the last one, and a log.
    pub(super) fn keep_spare(&self) {
        let wanted = SPARE_BYTES + 2 * self.background.checkpoint_bytes.load(Ordering::Acquire);
        if self.background.spare_bytes.load(Ordering::Acquire) >= wanted {
            return;
        }
        let path = format!("map/{SPARE}");
        let made = self.disk().create(&path).and_then(|file| file.reserve(wanted));
        match made {
            Ok(()) => self.background.spare_bytes.store(wanted, Ordering::Release),
            // The disk is full: what little is left is better used by the log.
            Err(_) => drop(self.disk().remove(&path)),
        }
    }

    fn checkpoint_step(&self) -> io::Result<bool> {
        let (length, background) = (self.shared.journal.length(), &self.background);
        let last = background.checkpoint_bytes.load(Ordering::Acquire);
        let due = length > self.options.log_bytes.max(last / 2);
        if !due || length < background.not_before_bytes.load(Ordering::Acquire) {
            return Ok(false);
        }
        let result = self.write_checkpoint();
        let again = if result.is_ok() { 0 } else { self.shared.journal.length() + self.options.log_bytes };
        background.not_before_bytes.store(again, Ordering::Release);
        result.map(|()| true)
    }

    /// The maps as they are at one instant go into a new checkpoint, while changes go on into a new log.
    fn write_checkpoint(&self) -> io::Result<()> {
        let (shared, background) = (&self.shared, &self.background);
        let number = background.number() + 1;
        let file = Journal::prepare(self.disk(), number)?;
        let (state, latest, volumes) = {
            let _still = shared.stand_still();
            let latest = shared.journal.switch(self.disk(), file)?;
            background.number.store(number, Ordering::Release);
            (self.state_now(), latest, self.all_volumes())
        };
        for volume in volumes {
            // What the maps refer to has to be on the disk before they are.
            if volume.latest() > volume.durable_upto() {
                volume.flush_gently().map_err(|error| io::Error::other(format!("volume {}: {error}", volume.id)))?;
            }
        }
        let length = checkpoint::write(self.disk(), number, &state, latest)?;
        background.checkpoint_bytes.store(length, Ordering::Release);
        self.forget_older(number, true)
    }

    /// As a checkpoint keeps it. Nobody may be changing maps.
    fn state_now(&self) -> State {
        let mut state = State::new(self.shared.chunk_bytes);
        state.next_volume = self.next_volume.load(Ordering::Acquire);
        state.next_file = self.shared.files.next();
        state.files = self.shared.files.all().iter().map(|file| (file.number, file.added())).collect();
        state.volumes = self.all_volumes().iter().map(|volume| (volume.number, volume.state())).collect();
        state
    }

    /// Writes a checkpoint now, however short the log is.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.write_checkpoint().map_err(|error| StoreError::from_io("cannot write a checkpoint", &error))
    }
}
