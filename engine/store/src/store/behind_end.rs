//! Space that is reserved behind the end of a thick volume which shares chunks: it is about to become longer.
//!
//! The space is there before the log says that the volume is longer. Where that ends half-way nothing needs to have been
//! written down: the next start sees a file that is longer than its volume, and which parts of that somebody refers to.

use super::MappedStore;
use crate::data_files::DataFile;
use crate::journal::record::FileKind;
use crate::map::walk;
use crate::volume::{MappedVolume, VolumeMap};
use std::io;
use std::ops::Range;

impl MappedStore {
    /// A thick volume that is about to be longer has the space for it, durably; or it fails, and all is as it was. The length of
    /// its base file before.
    pub(super) fn reserve_more(&self, volume: &MappedVolume, map: &mut VolumeMap, size_bytes: u64) -> io::Result<u64> {
        let base = volume.own_file(map, FileKind::Base)?;
        let before = base.len()?;
        let reserved = base.reserve(size_bytes).and_then(|()| base.sync());
        reserved.map(|()| before).inspect_err(|_| {
            let _ = base.set_len(before); // else at the next start
        })
    }

    pub(super) fn reserve_for(&self, volume: &MappedVolume, size_bytes: u64) -> io::Result<u64> {
        let _changing = self.shared.changing();
        self.shared.journal.make_room()?;
        self.reserve_more(volume, &mut volume.map_alone(), size_bytes)
    }

    /// At a start, before anybody reads or writes: gives back what is reserved behind the end of a thick volume and what nobody
    /// refers to.
    pub(super) fn dig_behind_end(&self, volume: &MappedVolume) -> io::Result<()> {
        let map = volume.map();
        let Some(base) = map.base.as_ref().filter(|_| volume.is_thick() && !map.raw) else { return Ok(()) };
        let end = volume.chunks();
        if base.len()? <= base.offset(end) {
            return Ok(());
        }
        let mut unused = end;
        for slots in self.referred_from(base, end) {
            if unused < slots.start {
                base.punch(unused..slots.start)?;
            }
            unused = unused.max(slots.end);
        }
        if base.len()? > base.offset(unused) { base.set_len(base.offset(unused)) } else { Ok(()) }
    }

    /// Slots of the file from `first` on that are in a volume, in order. The counts do not tell: they are of whole nodes, also
    /// of what lies behind the end of whose they are.
    fn referred_from(&self, file: &DataFile, first: u64) -> Vec<Range<u64>> {
        let mut found: Vec<Range<u64>> = Vec::new();
        for volume in self.all_volumes() {
            walk::for_each_run(&volume.map().top, volume.chunks(), &mut |number, slots| {
                if number == file.number && slots.end > first {
                    found.push(slots.start.max(first)..slots.end);
                }
            });
        }
        found.sort_unstable_by_key(|slots| slots.start);
        found
    }
}

/// The volume does not become longer after all: nothing of it is behind what its base file was long before.
pub(super) fn cut_back(volume: &MappedVolume, length_before: u64) {
    let map = volume.map_alone();
    if let Some(base) = &map.base {
        let _ = base.set_len(length_before); // else at the next start
    }
}
