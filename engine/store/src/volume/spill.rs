//! Which of a volume's files gets what is new. The file system lets a write to a file wait for what a sync of the same file
//! holds locked, tens of milliseconds at times. So what a snapshot shares is left alone while it is made durable: the volume
//! has two spill files, and from the instant of the snapshot on new slots are taken from the other one.

use super::{MappedVolume, VolumeMap};
use crate::data_files::Resting;
use crate::journal::record::FileKind;

const SPILLS: usize = 2;

impl VolumeMap {
    /// The one that will be turned to: clean, and not the one that is written now.
    fn next_spill(&self) -> Option<usize> {
        (0..self.spills.len().saturating_sub(1)).find(|index| self.spills[*index].is_clean())
    }

    /// All that is in the volume's files now is shared, and what of it is not yet durable rests.
    pub fn rest(&mut self) -> Vec<Resting> {
        if self.spills.last().is_some_and(|spill| !spill.is_clean()) {
            if let Some(index) = self.next_spill() {
                let spill = self.spills.remove(index);
                self.spills.push(spill);
            }
        }
        self.files().filter(|file| !file.is_clean()).map(|file| file.rest()).collect()
    }
}

impl MappedVolume {
    /// Before a snapshot: makes the file that is written after it, if there will be writers to wait.
    pub fn prepare_next_spill(&self) {
        {
            let map = self.map();
            let written = map.files().any(|file| !file.is_clean());
            let ready = map.spills.last().is_some_and(|spill| spill.is_clean()) || map.next_spill().is_some();
            if !written || ready || map.spills.len() >= SPILLS {
                return;
            }
        }
        // Without it the snapshot succeeds as well, and writers may have to wait.
        let made = self.shared.make_file(self.number, self.id, FileKind::Spill, |_| Ok(()));
        let _changing = self.shared.changing();
        if let (Ok(()), Ok(file)) = (self.shared.journal.make_room(), made) {
            let mut map = self.map_alone();
            self.shared.add_file(&file);
            // In front of the one in use, if there is one.
            let at = map.spills.len().saturating_sub(1);
            map.spills.insert(at, file);
        }
    }
}
