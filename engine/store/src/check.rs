//! Looking at a store that no engine runs on: is everything there that its maps refer to, and what can be done if not.

use crate::data_files;
use crate::disk::Disk;
use crate::journal::{self, Journal};
use crate::map::nodes::{Counts, Found, Leaf, MAX_INDEX, Part, Top};
use crate::map::{LEAF_SLOTS, Slot, change, walk};
use crate::state::{State, VolumeState};
use crate::store::{Found as FoundState, read_state, read_state_before};
use crate::volume::read::blocks_of;
use crate::{Options, StoreError, checkpoint};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Mutex;

/// What was found. `errors` empty: every volume can be served as it was left.
#[derive(Debug, Default)]
pub struct Report {
    pub errors: Vec<String>,
    /// Nothing to worry about: what the next start tidies up.
    pub notes: Vec<String>,
    /// What each volume is, a line each.
    pub volumes: Vec<String>,
}

/// Reads all of the maps and looks at every data file's presence; changes nothing.
pub fn check(disk: &dyn Disk) -> Result<Report, StoreError> {
    let mut report = Report::default();
    match read_state(disk, Options::default()) {
        Err(StoreError::Io(words)) => report.errors.push(words),
        Err(other) => return Err(other),
        Ok(found) => {
            look_at(disk, &found.state, &mut report).map_err(|e| StoreError::from_io("cannot look at the data files", &e))?;
        }
    }
    Ok(report)
}

fn look_at(disk: &dyn Disk, state: &State, report: &mut Report) -> io::Result<()> {
    let on_disk: BTreeSet<String> = names(disk, data_files::FOLDER)?;
    let missing = missing_files(state, &on_disk);
    for volume in state.volumes.values() {
        let told = report.errors.len();
        check_volume(state, volume, &missing, &mut report.errors);
        let verdict = if report.errors.len() == told { "sound" } else { "damaged" };
        let thick = if volume.thick { "thick" } else { "thin" };
        report.volumes.push(format!("{} {} bytes, {thick}, {verdict}", volume.id, volume.size_bytes));
    }
    let known: BTreeSet<&str> = state.files.values().map(|file| file.name.as_str()).collect();
    for name in on_disk.iter().filter(|name| !known.contains(name.as_str())) {
        report.notes.push(format!("volumes/{name} belongs to no volume"));
    }
    let unused = unused_bytes(disk, state, &missing)?;
    if unused > 0 {
        report.notes.push(format!("{unused} bytes are no volume's any more; the engine gives them back after its start"));
    }
    Ok(())
}

fn missing_files(state: &State, on_disk: &BTreeSet<String>) -> BTreeSet<u32> {
    state.files.values().filter(|file| !on_disk.contains(&file.name)).map(|file| file.number).collect()
}

fn names(disk: &dyn Disk, folder: &str) -> io::Result<BTreeSet<String>> {
    match disk.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        other => Ok(other?.into_iter().collect()),
    }
}

fn check_volume(state: &State, volume: &VolumeState, missing: &BTreeSet<u32>, errors: &mut Vec<String>) {
    let mut wrong = |words: String| errors.push(format!("volume {}: {words}", volume.id));
    let chunks = volume.size_bytes.div_ceil(state.chunk_bytes);
    let mut told = BTreeSet::new();
    walk::for_each_run(&volume.top, chunks, &mut |file, slots| {
        if !told.insert(file) {
            return;
        }
        match state.files.get(&file) {
            None => wrong(format!("its map refers to a data file number {file} that there never was")),
            Some(file) if missing.contains(&file.number) => wrong(format!("its data file {} is missing", file.name)),
            Some(_) if slots.end > MAX_INDEX => wrong(format!("its map refers to slot {} of a data file", slots.end)),
            Some(_) => {}
        }
    });
    let all = blocks_of(0, state.chunk_bytes);
    for_each_leaf(&volume.top, chunks, &mut |at, leaf| {
        for (index, part) in &leaf.parts {
            if !leaf.entries[usize::from(*index)].is_part() || !each_once(part, all) {
                wrong(format!("chunk {} is in several slots in a way that cannot be", at + u64::from(*index)));
            }
        }
    });
    for number in volume.base.into_iter().chain(volume.spills.iter().copied()) {
        if state.files.get(&number).is_none_or(|file| file.volume != volume.number) {
            wrong(format!("data file number {number} is said to be its own and is not"));
        }
    }
}

/// Is every block of the chunk in one of its pieces, and in one only?
fn each_once(part: &Part, all: u64) -> bool {
    let mut seen = part.blocks;
    let apart = part.others.iter().all(|piece| {
        let fresh = piece.blocks != 0 && seen & piece.blocks == 0;
        seen |= piece.blocks;
        fresh
    });
    apart && part.blocks != 0 && seen == all
}

fn for_each_leaf(top: &Top, chunks: u64, visit: &mut dyn FnMut(u64, &Leaf)) {
    let mut chunk = 0;
    while chunk < chunks {
        match top.find(chunk) {
            Found::Hole(end) | Found::Identity(_, end) => chunk = end,
            Found::Leaf(leaf, _) => {
                visit(chunk, leaf);
                chunk += LEAF_SLOTS;
            }
        }
    }
}

/// References to slots, counted from nothing.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<u32, crate::map::SlotRefs>>);

impl Counts for Tally {
    fn add(&self, file: u32, slots: Range<u64>, delta: i32) {
        crate::lock(&self.0).entry(file).or_default().add(slots, delta);
    }
}

impl Tally {
    pub fn runs(&self, file: u32, slots: Range<u64>) -> Vec<(Range<u64>, u32)> {
        crate::lock(&self.0).entry(file).or_default().runs(slots).collect()
    }
}

fn unused_bytes(disk: &dyn Disk, state: &State, missing: &BTreeSet<u32>) -> io::Result<u64> {
    let tally = Tally::default();
    state.count(&tally);
    let mut bytes = 0;
    for file in state.files.values().filter(|file| !missing.contains(&file.number)) {
        let data = disk.open(&data_files::path(&file.name))?;
        let length = data.len()?;
        let slots = 0..length.div_ceil(state.chunk_bytes);
        for (run, _) in tally.runs(file.number, slots).into_iter().filter(|(_, count)| *count == 0) {
            let (mut at, end) = (run.start * state.chunk_bytes, (run.end * state.chunk_bytes).min(length));
            while let Some((start, stop)) = data.next_data(at, end)? {
                bytes += stop - start.max(at);
                at = stop;
            }
        }
    }
    Ok(bytes)
}

/// Makes the store serve again what can be served. A damaged checkpoint is replaced by the one before it and its logs,
/// which say the same; a damaged log counts up to the damage; what was in a missing file reads as zeroes. Tells what was
/// done, and what is lost. The disk must be nobody else's meanwhile.
pub fn repair(disk: &dyn Disk) -> Result<Vec<String>, StoreError> {
    let mut done = Vec::new();
    let mut found: FoundState = match read_state(disk, Options::default()) {
        Ok(found) => found,
        Err(StoreError::Io(words)) => {
            done.push(words);
            read_state_before(disk, &mut done)?
        }
        Err(other) => return Err(other),
    };
    let failed = |error: io::Error| StoreError::from_io("cannot repair the store", &error);
    let on_disk = names(disk, data_files::FOLDER).map_err(failed)?;
    let state = &mut found.state;
    let missing = missing_files(state, &on_disk);
    for volume in state.volumes.values_mut() {
        let lost = forget_missing(volume, state.chunk_bytes, &missing);
        if lost > 0 {
            let bytes = lost * state.chunk_bytes;
            done.push(format!("volume {}: {bytes} bytes were in files that are missing and read as zeroes now", volume.id));
        }
        volume.base = volume.base.filter(|number| !missing.contains(number));
        volume.spills.retain(|number| !missing.contains(number));
    }
    state.files.retain(|number, _| !missing.contains(number));
    if done.is_empty() {
        return Ok(done);
    }
    disk.sync_everything().map_err(failed)?;
    checkpoint::write(disk, found.next_number, &found.state, found.latest).map_err(failed)?;
    Journal::begin(disk, found.next_number, found.latest).map_err(failed)?;
    done.push(format!("{} and {} are new", checkpoint::path(found.next_number), journal::log_path(found.next_number)));
    Ok(done)
}

fn forget_missing(volume: &mut VolumeState, chunk_bytes: u64, missing: &BTreeSet<u32>) -> u64 {
    let chunks = volume.size_bytes.div_ceil(chunk_bytes);
    let gone = |slot: Slot| missing.contains(&slot.file);
    let mut lost = 0;
    let mut chunk = 0;
    while chunk < chunks {
        let (hole, end) = match volume.top.find(chunk) {
            Found::Hole(end) => (false, end),
            Found::Identity(file, end) => (missing.contains(&file), end),
            Found::Leaf(leaf, index) => (leaf.slots(index).any(gone), chunk + 1),
        };
        let end = end.min(chunks);
        if hole {
            change::make_holes(&mut volume.top, 0, &crate::map::nodes::Uncounted, chunk..end);
            volume.raw = false;
            lost += end - chunk;
        }
        chunk = end;
    }
    lost
}
