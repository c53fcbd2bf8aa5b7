//! Requests that concern one volume: made, deleted, resized. Each is durable when it is answered.

use super::{MappedStore, failed, failed_blocks};
use crate::data_files::DataFile;
use crate::journal::record::{FileKind, Record};
use crate::map::change::set_chunks;
use crate::map::nodes::Top;
use crate::map::walk::Dropped;
use crate::map::{MIDDLE_SLOTS, nodes::Counts};
use crate::state::{State, VolumeState};
use crate::volume::{MappedVolume, VolumeMap};
use crate::{BlockError, StoreError, VolumeId, VolumeInfo, check_size, lock};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl MappedStore {
    pub(super) fn create_volume(&self, id: VolumeId, size_bytes: u64, thick: bool) -> Result<VolumeInfo, StoreError> {
        check_size(size_bytes)?;
        let _claim = self.claim([id]);
        if let Ok(volume) = self.find(id) {
            if volume.size() == size_bytes && volume.is_thick() == thick {
                self.settle()?;
                return self.describe(&volume);
            }
            return Err(StoreError::Exists(format!("volume {id} exists with another size or provisioning")));
        }
        let volume = self.make_volume(id, size_bytes, thick).map_err(failed("make", id))?;
        self.settle()?;
        self.describe(&volume)
    }

    fn make_volume(&self, id: VolumeId, size_bytes: u64, thick: bool) -> io::Result<Arc<MappedVolume>> {
        let shared = &self.shared;
        let number = self.new_number();
        let prepare = |file: &DataFile| {
            file.set_len(size_bytes)?;
            if thick { file.reserve(size_bytes) } else { Ok(()) }
        };
        shared.journal.make_room()?;
        let base = shared.make_file(number, id, FileKind::Base, prepare)?;
        let mut state = State::new(shared.chunk_bytes);
        state.add_raw(number, id, size_bytes, thick, &base.added());
        let state: VolumeState = state.volumes.remove(&number).expect("added a moment ago");
        let _changing = shared.changing();
        shared.files.insert(base.clone());
        shared.files.add(base.number, 0..state.top.children.len() as u64 * MIDDLE_SLOTS, 1);
        let record = Record::Create { number, id, size_bytes, thick, base: base.added() };
        let latest = shared.journal.append(&record);
        let volume = Arc::new(MappedVolume::new(shared.clone(), state, latest));
        self.insert(volume.clone());
        Ok(volume)
    }

    pub(super) fn delete_volume(&self, id: VolumeId) -> Result<(), StoreError> {
        let _claim = self.claim([id]);
        let Ok(volume) = self.find(id) else { return self.settle() };
        let files = volume.map().own_files();
        let top = self.forget(&volume).map_err(failed("delete", id))?;
        self.settle()?;
        self.perhaps_unused(files);
        self.shared.release(volume.take_deferred());
        self.shared.release([Dropped::Top(top)]);
        self.compact_soon();
        Ok(())
    }

    /// Takes a volume out of the maps, and tells the log. What it referred to is the caller's to release once that is
    /// durable.
    pub(super) fn forget(&self, volume: &MappedVolume) -> io::Result<Arc<Top>> {
        let _changing = self.shared.changing();
        self.shared.journal.make_spare_room()?;
        let mut map = volume.map_alone();
        self.shared.journal.append(&Record::Delete { volume: volume.number });
        self.remove(volume.id);
        // Whoever still has the volume open finds it without blocks.
        volume.set_size(0);
        for file in map.own_files() {
            let reserved = file.keep_reserved(0) > 0 || (file.kind == FileKind::Base && volume.is_reserving());
            file.holds_reserve.store(reserved, Ordering::Release);
            file.ownerless.store(true, Ordering::Release);
        }
        (map.raw, map.base) = (false, None);
        map.spills.clear();
        Ok(std::mem::replace(&mut map.top, Arc::new(Top::new(Vec::new()))))
    }

    pub(super) fn resize_volume(&self, id: VolumeId, size_bytes: u64) -> Result<VolumeInfo, StoreError> {
        check_size(size_bytes)?;
        let _claim = self.claim([id]);
        let volume = self.find(id)?;
        let before = volume.size();
        if size_bytes > before {
            self.clear_behind_end(&volume).map_err(failed_blocks("grow", id))?;
        }
        if size_bytes != before {
            let changed = self.change_size(&volume, before, size_bytes);
            changed.inspect_err(|_| self.give_back_behind_end(&volume))?;
        }
        self.settle()?;
        if size_bytes <= before {
            self.give_back_behind_end(&volume);
            self.trim(&volume).map_err(failed("give back what lay behind the end of", id))?;
        }
        self.describe(&volume)
    }

    fn change_size(&self, volume: &MappedVolume, before: u64, size_bytes: u64) -> Result<(), StoreError> {
        let (shared, id) = (&self.shared, volume.id);
        let _changing = shared.changing();
        let mut map = volume.map_alone();
        shared.journal.make_room().map_err(failed("resize", id))?;
        if size_bytes > before {
            self.make_longer(volume, &mut map, before, size_bytes)?;
        }
        let raw = map.base.as_ref().filter(|_| map.raw).map(|base| base.number);
        let tenure = map.tenure;
        let dropped = set_chunks(&mut map.top, tenure, &shared.files, size_bytes.div_ceil(shared.chunk_bytes), raw);
        volume.set_size(size_bytes);
        volume.log(&Record::Resize { volume: volume.number, size_bytes }, dropped);
        Ok(())
    }

    /// What a shrink may have left in the last chunk is gone for good before it can come in sight again.
    fn clear_behind_end(&self, volume: &MappedVolume) -> Result<(), BlockError> {
        {
            let _changing = self.shared.changing();
            let mut map = volume.map_alone();
            let end = volume.size();
            let chunk_end = end.next_multiple_of(self.shared.chunk_bytes);
            if map.raw || chunk_end == end {
                return Ok(()); // a raw volume's file is cut at its end
            }
            let mut bytes = vec![0; (chunk_end - end) as usize];
            volume.read_mapped(&map, &mut bytes, end)?;
            if bytes.iter().any(|byte| *byte != 0) {
                volume.zero_mapped(&mut map, end, chunk_end - end)?;
            }
        }
        volume.flush_all()
    }

    /// What comes in sight behind the old end reads as zeroes, and has its space if the volume is thick.
    fn make_longer(&self, volume: &MappedVolume, map: &mut VolumeMap, before: u64, size_bytes: u64) -> Result<(), StoreError> {
        let id = volume.id;
        if map.raw {
            let base = map.base.clone().expect("a raw volume has a base file");
            let lengthen = || {
                base.set_len(before)?; // a shrink before may have left something there
                base.set_len(size_bytes)?;
                if !volume.is_thick() {
                    return Ok(());
                }
                base.keep_reserved(size_bytes.div_ceil(self.shared.chunk_bytes));
                base.reserve(size_bytes)
            };
            let done = lengthen().and_then(|()| base.sync());
            return done.map_err(|error| {
                let _ = base.set_len(before); // what is too long is cut at the next start
                failed("grow", id)(error)
            });
        }
        if volume.is_thick() {
            self.reserve_more(volume, map, size_bytes).map_err(failed("grow", id))?;
        }
        Ok(())
    }

    /// A raw volume's file is as long as the volume.
    fn trim(&self, volume: &MappedVolume) -> io::Result<()> {
        let map = volume.map_alone();
        match &map.base {
            Some(base) if map.raw => base.set_len(volume.size()),
            _ => Ok(()),
        }
    }

    pub(super) fn change_thick(&self, id: VolumeId, thick: bool) -> Result<VolumeInfo, StoreError> {
        let _claim = self.claim([id]);
        let volume = self.find(id)?;
        if volume.is_thick() != thick {
            self.set_reserved(&volume, thick).map_err(failed("change the reservation of", id))?;
        }
        self.settle()?;
        if !thick {
            self.dig(&volume).map_err(failed("give back the reservation of", id))?;
        }
        self.describe(&volume)
    }

    fn set_reserved(&self, volume: &MappedVolume, thick: bool) -> io::Result<()> {
        let journal = &self.shared.journal;
        let _changing = self.shared.changing();
        journal.make_room()?;
        if thick {
            // Should this end half-way, the next start knows what to give back.
            journal.sync(volume.set_reserving(true))?;
        }
        let mut map = volume.map_alone();
        if thick {
            let base = volume.own_file(&mut map, FileKind::Base)?;
            base.keep_reserved(volume.chunks());
            if let Err(error) = base.reserve(volume.size()).and_then(|()| base.sync()) {
                base.keep_reserved(0);
                base.dig_holes()?;
                volume.set_reserving(false);
                return Err(error);
            }
        }
        volume.set_thick(&map, thick);
        volume.log(&Record::Thick { volume: volume.number, thick }, Vec::new());
        Ok(())
    }

    /// Gives back what is reserved for a thin volume.
    pub(super) fn dig(&self, volume: &MappedVolume) -> io::Result<()> {
        let _changing = self.shared.changing();
        let map = volume.map_alone();
        self.shared.journal.make_room()?;
        map.base.as_ref().map_or(Ok(()), |base| base.dig_holes())?;
        if volume.is_reserving() {
            volume.set_reserving(false);
        }
        Ok(())
    }

    pub(super) fn keep_reservations(&self, id: VolumeId, reservations: Option<String>) -> Result<(), StoreError> {
        let volume = self.find(id)?;
        {
            let _changing = self.shared.changing();
            self.shared.journal.make_spare_room().map_err(failed("keep the reservations of", id))?;
            let mut facts = lock(&volume.facts);
            facts.reservations.clone_from(&reservations);
            self.shared.journal.append(&Record::Reservations { volume: volume.number, text: reservations });
        }
        self.settle()
    }
}
