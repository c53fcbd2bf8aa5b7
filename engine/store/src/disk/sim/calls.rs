//! What the store calls: the two traits of a disk.

use super::image::PAGE;
use super::names::{FOLDER, FileNumber, folder_of, place};
use super::{Call, Content, Operation, SimDisk, Verdict, error};
use crate::disk::{Disk, DiskFile, DiskSpace};
use fastrand::Rng;
use std::io;
use std::ops::Range;
use std::sync::Arc;

impl Disk for SimDisk {
    fn make_folder(&self, path: &str) -> io::Result<()> {
        self.change(Call::new(Operation::Names, "make_folder", path), |state| {
            let place = place(path);
            match state.names.now.get(&place) {
                Some(&FOLDER) => Ok(()),
                Some(_) => Err(error(libc::EEXIST)),
                None if !place.0.is_empty() => Err(io::Error::other("one level of folders only")),
                None if place.1.is_empty() || place.1 == "." => Ok(()),
                None => {
                    let time = state.tick();
                    state.names.set(vec![(place, Some(FOLDER))], time);
                    Ok(())
                }
            }
        })
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.look(Call::new(Operation::Look, "list", folder), |state| {
            let folder = folder_of(folder);
            if !state.names.has_folder(&folder) {
                return Err(error(libc::ENOENT));
            }
            let mut names = state.names.in_folder(&folder);
            Rng::with_seed(state.calls).shuffle(&mut names);
            Ok(names)
        })
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.look(Call::new(Operation::Look, "open", path), |state| state.find(path))?;
        Ok(Arc::new(SimFile { disk: self.clone(), file, path: path.to_owned() }))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.change(Call::new(Operation::Names, "create", path), |state| {
            let place = place(path);
            if !state.names.has_folder(&place.0) {
                return Err(error(libc::ENOENT));
            }
            let time = state.tick();
            match state.find(path) {
                Ok(file) => {
                    state.files.get_mut(&file).expect("files stay").set_length(0, time);
                    Ok(file)
                }
                Err(error) if error.raw_os_error() == Some(libc::EISDIR) => Err(error),
                Err(_) => {
                    let file = state.next_file;
                    state.next_file += 1;
                    state.files.insert(file, Content::default());
                    state.names.set(vec![(place, Some(file))], time);
                    Ok(file)
                }
            }
        })?;
        Ok(Arc::new(SimFile { disk: self.clone(), file, path: path.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(Call::new(Operation::Names, "rename", &format!("{from} -> {to}")), |state| {
            let file = state.find(from)?;
            let (from, to) = (place(from), place(to));
            if !state.names.has_folder(&to.0) {
                return Err(error(libc::ENOENT));
            }
            if from != to {
                let time = state.tick();
                state.names.set(vec![(from, None), (to, Some(file))], time);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change(Call::new(Operation::Names, "remove", path), |state| {
            state.find(path)?;
            let time = state.tick();
            state.names.set(vec![(place(path), None)], time);
            Ok(())
        })
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        self.change(Call::new(Operation::Names, "sync_folder", path), |state| {
            let folder = folder_of(path);
            if !state.names.has_folder(&folder) {
                return Err(error(libc::ENOENT));
            }
            state.names.sync_folder(&folder);
            Ok(())
        })
    }

    fn sync_everything(&self) -> io::Result<()> {
        let mut state = self.state();
        let files: Vec<FileNumber> = state.files.keys().copied().collect();
        match state.begin(&Call::new(Operation::Sync, "sync_everything", ""))? {
            Verdict::Go => {
                state.files.values_mut().for_each(Content::sync);
                state.names.sync_all();
                Ok(())
            }
            Verdict::Fail(error) => {
                state.fail_sync(&files);
                Err(error)
            }
            Verdict::Die(error) => {
                state.sync_on_the_way(&files);
                Err(error)
            }
        }
    }

    fn incarnation(&self) -> io::Result<String> {
        self.look(Call::new(Operation::Look, "incarnation", ""), |state| Ok(format!("power on {}", state.incarnation)))
    }

    fn space(&self) -> io::Result<DiskSpace> {
        self.look(Call::new(Operation::Look, "space", ""), |state| {
            let free = state.capacity_blocks.saturating_sub(state.used_blocks());
            Ok(DiskSpace { total_bytes: state.capacity_blocks * PAGE, free_bytes: free * PAGE })
        })
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: FileNumber,
    path: String,
}

impl SimFile {
    fn look<T>(&self, verb: &str, act: impl FnOnce(&Content) -> T) -> io::Result<T> {
        self.disk.look(Call::new(Operation::Look, verb, &self.path), |state| Ok(act(&state.files[&self.file])))
    }

    fn change(&self, call: Call, act: impl FnOnce(&mut Content, u64)) -> io::Result<()> {
        self.disk.change(call, |state| {
            let time = state.tick();
            act(state.files.get_mut(&self.file).expect("files stay"), time);
            Ok(())
        })
    }

    /// Allocates what `missing` says, or says that there is no room.
    fn reserve_with(&self, call: Call, range: (u64, u64), act: impl FnOnce(&mut Content, u64)) -> io::Result<()> {
        self.disk.change(call, |state| {
            let free = state.capacity_blocks.saturating_sub(state.used_blocks());
            let time = state.tick();
            let content = state.files.get_mut(&self.file).expect("files stay");
            if content.now.missing_blocks(range.0, range.1) > free {
                return Err(error(libc::ENOSPC));
            }
            act(content, time);
            Ok(())
        })
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.look("len", |content| content.now.length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let call = Call::at(Operation::Length, "set_len", &self.path, length, 0);
        self.change(call, |content, time| content.set_length(length, time))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let call = Call::at(Operation::Read, "read", &self.path, offset, buffer.len() as u64);
        self.disk.look(call, |state| {
            state.files[&self.file].now.read(buffer, offset);
            Ok(())
        })
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        match state.begin(&Call::at(Operation::Write, "write", &self.path, offset, data.len() as u64))? {
            Verdict::Go if data.is_empty() => Ok(()),
            Verdict::Go => state.write(self.file, data, offset),
            Verdict::Fail(error) | Verdict::Die(error) => {
                state.write_in_part(self.file, data, offset);
                Err(error)
            }
        }
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let call = Call::at(Operation::Free, "punch", &self.path, offset, length);
        self.change(call, |content, time| content.zero(offset, length, false, time))
    }

    fn zero_reserved(&self, offset: u64, length: u64) -> io::Result<()> {
        let call = Call::at(Operation::Reserve, "zero_reserved", &self.path, offset, length);
        let range = (offset, offset.saturating_add(length));
        self.reserve_with(call, range, |content, time| content.zero(offset, length, true, time))
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        let call = Call::at(Operation::Reserve, "reserve", &self.path, 0, length);
        self.reserve_with(call, (0, length), |content, time| content.reserve(length, time))
    }

    fn dig_holes(&self, range: Range<u64>) -> io::Result<()> {
        let call = Call::at(Operation::Free, "dig_holes", &self.path, range.start, range.end - range.start);
        self.change(call, |content, _| content.dig_holes(range))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        match state.begin(&Call::new(Operation::Sync, "sync", &self.path))? {
            Verdict::Go => {
                state.files.get_mut(&self.file).expect("files stay").sync();
                Ok(())
            }
            Verdict::Fail(error) => {
                state.fail_sync(&[self.file]);
                Err(error)
            }
            Verdict::Die(error) => {
                state.sync_on_the_way(&[self.file]);
                Err(error)
            }
        }
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.look("allocated_bytes", |content| content.now.blocks() * PAGE)
    }

    fn next_data(&self, offset: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
        let call = Call::at(Operation::Look, "next_data", &self.path, offset, end.saturating_sub(offset));
        self.disk.look(call, |state| Ok(state.files[&self.file].now.next_data(offset, end)))
    }
}
