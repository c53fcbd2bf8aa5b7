//! Space that is reserved and no longer needed, or not yet: behind the end of a thick volume that has become shorter, or is about
//! to become longer, and in the file of one that is gone.
//!
//! A volume that becomes longer has its space before, durably. One that becomes shorter, or is deleted, is so durably before its
//! space is given back, little by little in the background; what others refer to in the file stays, but for what was never
//! written. Where any of this ends half-way nothing needs to have been written down: the next start sees a file that is longer
//! than its volume, or has none, and gives back what it finds.

use super::MappedStore;
use crate::data_files::DataFile;
use crate::journal::record::FileKind;
use crate::lock;
use crate::volume::{MappedVolume, VolumeMap};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// What one step looks through: writers of the volume wait for it.
const STEP_SLOTS: u64 = 256;

/// A base file as it was before more space was reserved in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    length: u64,
    reserved_slots: u64,
}

/// A base file in which something is to be given back.
#[derive(Debug, Clone)]
pub(super) struct Reserve {
    file: Arc<DataFile>,
    /// Whose file it is, and behind whose end; none: nobody's, and all of it.
    volume: Option<Weak<MappedVolume>>,
    /// All slots before this one have been looked at.
    next: u64,
}

impl Reserve {
    pub fn of_nobody(file: &Arc<DataFile>) -> Self {
        Self { file: file.clone(), volume: None, next: 0 }
    }

    pub fn is_in(&self, file: &DataFile) -> bool {
        self.file.number == file.number
    }

    /// Gives back a piece. False: that was all.
    fn give_back_some(&mut self) -> io::Result<bool> {
        let Some(volume) = &self.volume else { return self.dig_some() };
        let Some(volume) = volume.upgrade() else { return Ok(false) };
        // Who writes to the file in place, and who reserves more of it, does so under this lock.
        let map = volume.map_alone();
        let is_its_own = map.base.as_ref().is_some_and(|base| self.is_in(base));
        if !is_its_own || map.raw || self.file.reserved_slots() == 0 {
            return Ok(false); // it was deleted meanwhile, or has become thin
        }
        self.next = self.next.max(self.file.reserved_slots());
        if self.dig_some()? {
            return Ok(true);
        }
        // What nobody refers to is a hole by now, up to the end.
        let end = self.file.offset(self.file.end().max(self.file.reserved_slots()));
        if self.file.len()? > end { self.file.set_len(end).map(|()| false) } else { Ok(false) }
    }

    fn dig_some(&mut self) -> io::Result<bool> {
        let slots = self.file.len()?.div_ceil(self.file.chunk_bytes);
        if self.next >= slots {
            return Ok(false);
        }
        let end = slots.min(self.next + STEP_SLOTS);
        self.file.dig_some(self.next..end)?;
        self.next = end;
        Ok(true)
    }
}

impl MappedStore {
    /// A thick volume that is about to be longer has the space for it, durably; or it fails, and all is as it was.
    pub(super) fn reserve_more(&self, volume: &MappedVolume, map: &mut VolumeMap, size_bytes: u64) -> io::Result<Before> {
        let base = volume.own_file(map, FileKind::Base)?;
        let length = base.len()?;
        let reserved_slots = base.keep_reserved(size_bytes.div_ceil(self.shared.chunk_bytes));
        let before = Before { length, reserved_slots };
        let reserved = base.reserve(size_bytes).and_then(|()| base.sync());
        reserved.map(|()| before).inspect_err(|_| cut_back(map, before))
    }

    pub(super) fn reserve_for(&self, volume: &MappedVolume, size_bytes: u64) -> io::Result<Before> {
        let _changing = self.shared.changing();
        self.shared.journal.make_room()?;
        self.reserve_more(volume, &mut volume.map_alone(), size_bytes)
    }

    /// What is reserved behind the end of a thick volume is given back in the background. That its end is there is durable.
    pub(super) fn give_back_behind_end(&self, volume: &Arc<MappedVolume>) {
        let map = volume.map();
        let Some(base) = map.base.as_ref().filter(|_| volume.is_thick()) else { return };
        base.keep_reserved(volume.chunks());
        if !map.raw {
            let reserve = Reserve { file: base.clone(), volume: Some(Arc::downgrade(volume)), next: 0 };
            lock(&self.background.reserves).push_back(reserve);
            self.shared.will_give_back();
        }
    }

    /// Gives back a piece of what is reserved and no longer needed.
    pub(super) fn reserve_step(&self) -> io::Result<bool> {
        let Some(mut reserve) = lock(&self.background.reserves).pop_front() else { return Ok(false) };
        let more = reserve.give_back_some();
        match more {
            Ok(false) if reserve.volume.is_none() => reserve.file.holds_reserve.store(false, Ordering::Release),
            Ok(false) => {}
            _ => lock(&self.background.reserves).push_front(reserve),
        }
        more.map(|_| true)
    }
}

/// The volume does not become longer after all: nothing of it is behind what its base file was long before.
pub(super) fn cut_back(map: &VolumeMap, before: Before) {
    if let Some(base) = &map.base {
        base.keep_reserved(before.reserved_slots);
        let _ = base.set_len(before.length); // else in the background, or at the next start
    }
}
