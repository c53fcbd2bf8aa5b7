//! A store that is as simple as it can be and keeps every promise but economy: all volumes in memory, each change a record
//! of one log. It has mistakes to be switched on, one at a time, and the model must notice each of them.

mod log;
mod volumes;

use crate::subject::{Need, Options, Running, Subject};
use gespann_store::disk::{Disk, SimDisk};
use gespann_store::{
    BlockError, Differences, Share, Shared, Space, Store, StoreError, Usage, Volume, VolumeId, VolumeInfo, check_size,
};
use log::{Log, Record};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use volumes::{ToyContent, Volumes};

/// Mistakes as real stores have made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    FlushWithoutSync,
    RequestsAnsweredBeforeSync,
    WritesKeptInMemoryUntilFlush,
    OldRecordsComeBack,
    RecordsWithoutChecksum,
    CheckpointRenamedBeforeSync,
    CheckpointNameNotSynced,
    FailedFlushForgotten,
    LogOfBeforeTheFailureIsTrusted,
    RollBackInTwoRecords,
    SnapshotsOneByOne,
    SnapshotMissesTheLatestWrite,
    SnapshotIsWrittenToByItsSource,
    ShrinkKeepsTheTail,
    CompareComparesNothing,
    DifferencesMissTheLast,
    DeletedVolumesAreKept,
    FailedWriteZeroesItsNeighbour,
    AtomicWritesInTwoRecords,
    DeletedVolumesAreCounted,
}

impl Mistake {
    pub const ALL: [Self; 20] = [
        Self::FlushWithoutSync,
        Self::RequestsAnsweredBeforeSync,
        Self::WritesKeptInMemoryUntilFlush,
        Self::OldRecordsComeBack,
        Self::RecordsWithoutChecksum,
        Self::CheckpointRenamedBeforeSync,
        Self::CheckpointNameNotSynced,
        Self::FailedFlushForgotten,
        Self::LogOfBeforeTheFailureIsTrusted,
        Self::RollBackInTwoRecords,
        Self::SnapshotsOneByOne,
        Self::SnapshotMissesTheLatestWrite,
        Self::SnapshotIsWrittenToByItsSource,
        Self::ShrinkKeepsTheTail,
        Self::CompareComparesNothing,
        Self::DifferencesMissTheLast,
        Self::DeletedVolumesAreKept,
        Self::FailedWriteZeroesItsNeighbour,
        Self::AtomicWritesInTwoRecords,
        Self::DeletedVolumesAreCounted,
    ];
}

/// The kind of store, right or with one mistake.
pub struct Toy(pub Option<Mistake>);

impl Subject for Toy {
    fn open(&self, disk: &SimDisk, options: Options) -> Result<Box<dyn Running>, StoreError> {
        let failed = |error: std::io::Error| StoreError::from_io("open", &error);
        let (log, volumes) = Log::open(Arc::new(disk.clone()), self.0).map_err(failed)?;
        let state = State { log, volumes, failed: false, mistake: self.0, log_bytes: options.log_bytes, garbage: false };
        Ok(Box::new(ToyStore(Arc::new(Mutex::new(state)))))
    }

    fn check(&self, disk: &SimDisk) -> Vec<String> {
        let names = disk.list("").unwrap_or_default();
        names.into_iter().filter(|name| name != "log").map(|name| format!("{name} is left over")).collect()
    }

    fn occupied(&self, disk: &SimDisk) -> Result<u64, String> {
        Ok(disk.allocated_bytes())
    }

    fn allowance(&self, need: Need, options: Options) -> u64 {
        need.separate_bytes * 2 + options.log_bytes + (64 << 10)
    }

    fn deletes_when_full(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct State {
    log: Log,
    volumes: Volumes,
    failed: bool,
    mistake: Option<Mistake>,
    log_bytes: u64,
    /// Something in the log is of no use any more.
    garbage: bool,
}

#[derive(Debug, Clone)]
struct ToyStore(Arc<Mutex<State>>);

impl State {
    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn change(&mut self, record: Record) -> std::io::Result<()> {
        self.refuse_after_failure()?;
        self.log.append(&record)?;
        self.volumes.apply(&record);
        self.garbage = true;
        Ok(())
    }

    /// For requests: durable before they are answered.
    fn request(&mut self, record: Record) -> Result<(), StoreError> {
        let done =
            self.change(record).and_then(|()| if self.has(Mistake::RequestsAnsweredBeforeSync) { Ok(()) } else { self.sync() });
        done.map_err(|error| StoreError::from_io("the log", &error))
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.refuse_after_failure()?;
        let done = self.log.sync();
        self.failed |= done.is_err() && !self.has(Mistake::FailedFlushForgotten);
        done
    }

    fn refuse_after_failure(&self) -> std::io::Result<()> {
        if self.failed { Err(std::io::Error::other("a sync failed earlier")) } else { Ok(()) }
    }

    fn checkpoint(&mut self) -> std::io::Result<()> {
        self.refuse_after_failure()?;
        let kept = if self.has(Mistake::DeletedVolumesAreKept) { self.volumes.gone.clone() } else { Default::default() };
        let done = self.log.rewrite(&self.volumes, &kept);
        self.failed |= done.is_err();
        self.garbage = false;
        done
    }
}

impl ToyStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn describe(&self, id: VolumeId) -> Result<VolumeInfo, StoreError> {
        self.state().volumes.info(id).ok_or(StoreError::NotFound(id))
    }
}

impl Running for ToyStore {
    fn store(&self) -> &dyn Store {
        self
    }

    fn settle(&self, _id: VolumeId) -> Result<(), BlockError> {
        Ok(())
    }

    fn background(&self) -> bool {
        let mut state = self.state();
        if state.failed || !(state.garbage || state.log.length() > state.log_bytes) {
            return false;
        }
        state.log_bytes = state.log_bytes.max(state.log.length() * 2);
        state.checkpoint().is_ok()
    }

    fn copy_range(&self, source: (VolumeId, u64), target: (VolumeId, u64), length: u64) -> Result<(), BlockError> {
        let open = |id| self.open(id).map_err(|error| BlockError::Io(std::io::Error::other(error.to_string())));
        let mut data = vec![0; length as usize];
        open(source.0)?.read_at(&mut data, source.1)?;
        open(target.0)?.write_at(&data, target.1)
    }
}

impl Store for ToyStore {
    fn create(&self, id: VolumeId, size_bytes: u64, thick: bool) -> Result<VolumeInfo, StoreError> {
        check_size(size_bytes)?;
        self.state().request(Record::Create { id: id.0, size_bytes, thick })?;
        self.describe(id)
    }

    fn delete(&self, id: VolumeId) -> Result<(), StoreError> {
        self.state().request(Record::Delete { id: id.0 })
    }

    fn resize(&self, id: VolumeId, size_bytes: u64) -> Result<VolumeInfo, StoreError> {
        let keep_tail = self.state().has(Mistake::ShrinkKeepsTheTail);
        self.state().request(Record::Resize { id: id.0, size_bytes, keep_tail })?;
        self.describe(id)
    }

    fn clone_volume(&self, source: VolumeId, id: VolumeId, thick: bool) -> Result<VolumeInfo, StoreError> {
        self.state().request(Record::Share { pairs: vec![(source.0, id.0, thick)] })?;
        self.describe(id)
    }

    fn set_thick(&self, id: VolumeId, thick: bool) -> Result<VolumeInfo, StoreError> {
        self.state().request(Record::SetThick { id: id.0, thick })?;
        self.describe(id)
    }

    fn list(&self) -> Result<Vec<VolumeInfo>, StoreError> {
        Ok(self.state().volumes.list())
    }

    fn info(&self, id: VolumeId) -> Result<VolumeInfo, StoreError> {
        self.describe(id)
    }

    /// Nothing is shared, and the log does not count.
    fn space(&self) -> Result<Space, StoreError> {
        let state = self.state();
        let counted = state.has(Mistake::DeletedVolumesAreCounted);
        let gone = state.volumes.gone.iter().filter(|_| counted);
        let used_bytes = state.volumes.all.values().chain(gone).map(ToyContent::mapped_bytes).sum();
        Ok(Space { total_bytes: 1 << 50, free_bytes: 1 << 50, used_bytes, limit_bytes: None, reclaiming_bytes: 0 })
    }

    fn usage(&self, id: VolumeId) -> Result<Usage, StoreError> {
        let mapped_bytes = self.describe(id)?.allocated_bytes;
        Ok(Usage { mapped_bytes, exclusive_bytes: mapped_bytes })
    }

    fn open(&self, id: VolumeId) -> Result<Arc<dyn Volume>, StoreError> {
        self.describe(id)?;
        Ok(Arc::new(ToyVolume { store: self.clone(), id }))
    }

    fn snapshot(&self, pairs: &[Share]) -> Result<Shared, StoreError> {
        let mut state = self.state();
        let all: Vec<_> = pairs.iter().map(|pair| (pair.source.0, pair.id.0, pair.thick)).collect();
        if state.has(Mistake::SnapshotMissesTheLatestWrite) {
            state.volumes.take_back_latest_write();
        }
        if state.has(Mistake::SnapshotIsWrittenToByItsSource) {
            all.iter().for_each(|(source, id, _)| state.volumes.chain(*source, *id));
        }
        if state.has(Mistake::SnapshotsOneByOne) {
            all.into_iter().try_for_each(|pair| state.request(Record::Share { pairs: vec![pair] }))?;
        } else {
            state.request(Record::Share { pairs: all })?;
        }
        drop(state);
        let volumes = pairs.iter().map(|pair| self.describe(pair.id)).collect::<Result<_, _>>()?;
        Ok(Shared { volumes, pause: Duration::ZERO })
    }

    fn roll_back(&self, id: VolumeId, from: VolumeId) -> Result<VolumeInfo, StoreError> {
        if self.state().has(Mistake::RollBackInTwoRecords) {
            let size_bytes = self.describe(from)?.size_bytes;
            self.state().request(Record::Zero { id: id.0, offset: 0, length: u64::MAX })?;
            self.state().request(Record::Resize { id: id.0, size_bytes, keep_tail: false })?;
        }
        self.state().request(Record::RollBack { id: id.0, from: from.0 })?;
        self.describe(id)
    }

    fn differences(&self, older: VolumeId, newer: VolumeId, offset: u64, most: usize) -> Result<Differences, StoreError> {
        let state = self.state();
        let mut ranges = state.volumes.differences(older, newer, offset);
        if state.has(Mistake::DifferencesMissTheLast) {
            ranges.pop();
        }
        let next = ranges.get(most).map(|(start, _)| *start);
        ranges.truncate(most);
        Ok(Differences { ranges, next })
    }

    fn reservations(&self, _id: VolumeId) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    fn set_reservations(&self, _id: VolumeId, _reservations: Option<String>) -> Result<(), StoreError> {
        Err(StoreError::Io("not asked for by the model".to_owned()))
    }
}

#[derive(Debug)]
struct ToyVolume {
    store: ToyStore,
    id: VolumeId,
}

impl ToyVolume {
    fn info(&self) -> VolumeInfo {
        self.store.describe(self.id).expect("nobody deletes what is open")
    }
}

impl Volume for ToyVolume {
    fn size_bytes(&self) -> u64 {
        self.info().size_bytes
    }

    fn thick(&self) -> bool {
        self.info().thick
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlockError> {
        self.store.state().volumes.read(self.id, buffer, offset);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let mut state = self.store.state();
        let record = Record::Write { id: self.id.0, offset, data: data.to_vec() };
        if state.has(Mistake::WritesKeptInMemoryUntilFlush) {
            state.log.append_later(&record);
            state.volumes.apply(&record);
            return Ok(());
        }
        let done = state.change(record);
        if done.is_err() && state.has(Mistake::FailedWriteZeroesItsNeighbour) {
            let before = offset.saturating_sub(512);
            state.volumes.apply(&Record::Zero { id: self.id.0, offset: before, length: 512 });
        }
        Ok(done?)
    }

    fn atomic_bytes(&self) -> u32 {
        256 << 10
    }

    /// A record is there or not.
    fn write_atomic(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        if self.store.state().has(Mistake::AtomicWritesInTwoRecords) && data.len() > 512 {
            let (one, other) = data.split_at(512);
            self.write_at(one, offset)?;
            return self.write_at(other, offset + 512);
        }
        self.write_at(data, offset)
    }

    fn zero(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        Ok(self.store.state().change(Record::Zero { id: self.id.0, offset, length })?)
    }

    fn flush(&self) -> Result<(), BlockError> {
        let mut state = self.store.state();
        state.refuse_after_failure()?;
        if state.has(Mistake::FlushWithoutSync) {
            return Ok(());
        }
        Ok(state.sync()?)
    }

    fn extent(&self, offset: u64) -> Result<gespann_store::Extent, BlockError> {
        Ok(self.store.state().volumes.extent(self.id, offset))
    }

    fn or_write(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let mut present = vec![0; data.len()];
        self.read_at(&mut present, offset)?;
        present.iter_mut().zip(data).for_each(|(byte, more)| *byte |= more);
        self.write_at(&present, offset)
    }

    fn compare_and_write(&self, offset: u64, expected: &[u8], new: &[u8]) -> Result<Option<usize>, BlockError> {
        let mut present = vec![0; expected.len()];
        self.read_at(&mut present, offset)?;
        let differs = present.iter().zip(expected).position(|(one, other)| one != other);
        if differs.is_some() && !self.store.state().has(Mistake::CompareComparesNothing) {
            return Ok(differs);
        }
        self.write_at(new, offset)?;
        Ok(None)
    }
}
