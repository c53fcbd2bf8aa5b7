//! Opening a store: the newest checkpoint, the logs after it, and what an interrupted process left lying about.

use super::background::Background;
use super::{MappedStore, Options};
use crate::data_files::{self, DataFile, FileTable};
use crate::disk::Disk;
use crate::journal::record::{FileAdded, FileKind, Record, VolumeNumber};
use crate::journal::{self, Journal, read::read_log};
use crate::metadata::Metadata;
use crate::shared::Shared;
use crate::state::State;
use crate::volume::MappedVolume;
use crate::{StoreError, VolumeId, checkpoint};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};

/// What is on the disk, without any change to it.
#[derive(Debug)]
pub struct Found {
    pub state: State,
    /// The latest record that counts or was read.
    pub latest: u64,
    /// The next checkpoint and log get this number.
    pub next_number: u64,
    /// Something was read from logs: the checkpoint alone does not say it all.
    pub logged: bool,
    /// Records were left out because a loss of power came before they were durable.
    pub skipped: bool,
    /// Volumes of the first format, whose facts are in files of their own.
    pub imported: bool,
    pub notes: Vec<String>,
}

fn numbered(disk: &dyn Disk, prefix: &str) -> io::Result<Vec<u64>> {
    let names = disk.list("map")?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads all there is to know of the volumes. An error is told with the file it is about, and changes nothing.
pub fn read_state(disk: &dyn Disk, options: Options) -> Result<Found, StoreError> {
    let checkpoints =
        if folder_is_there(disk, "map") { numbered(disk, "checkpoint-").map_err(unreadable)? } else { Vec::new() };
    let Some(newest) = checkpoints.last().copied() else { return import(disk, options) };
    let hint = |words: String| {
        let rest =
            "`gespann-engine check` tells more, and with --repair goes on from what can be read. Nothing has been changed";
        StoreError::Io(format!("{words}; {rest}"))
    };
    match read_from(disk, newest) {
        Ok((found, None)) => Ok(found),
        Ok((_, Some(words))) | Err(StoreError::Io(words)) => Err(hint(words)),
        Err(other) => Err(other),
    }
}

/// What can be read where something is damaged: from the newest checkpoint that is sound, up to the first damage in the
/// logs after it. `done` is told what that is.
pub fn read_state_before(disk: &dyn Disk, done: &mut Vec<String>) -> Result<Found, StoreError> {
    let newest_first = numbered(disk, "checkpoint-").map_err(unreadable)?.into_iter().rev();
    for number in newest_first {
        match read_from(disk, number) {
            Ok((found, damage)) => {
                done.push(format!("{} was read, and its logs up to record {}", checkpoint::path(number), found.latest));
                done.extend(damage);
                return Ok(found);
            }
            Err(error) => done.push(error.to_string()),
        }
    }
    Err(StoreError::Io("there is no checkpoint that can be read: the volumes can only be put together by hand".to_owned()))
}

fn folder_is_there(disk: &dyn Disk, path: &str) -> bool {
    disk.list(path).is_ok()
}

fn unreadable(error: io::Error) -> StoreError {
    StoreError::from_io("cannot read the maps of the volumes", &error)
}

/// From one checkpoint on; with words if a log after it is damaged, then the state is that before the damage.
fn read_from(disk: &dyn Disk, newest: u64) -> Result<(Found, Option<String>), StoreError> {
    let (mut state, mut latest) = checkpoint::read(disk, newest)
        .map_err(unreadable)?
        .map_err(|words| StoreError::Io(format!("{} is damaged: {words}", checkpoint::path(newest))))?;
    let all_logs = numbered(disk, "log-").map_err(unreadable)?;
    let next_number = all_logs.last().copied().unwrap_or(newest).max(newest) + 1;
    let began = latest;
    let mut logs = Vec::new();
    for (number, expected) in all_logs.into_iter().filter(|number| *number >= newest).zip(newest..) {
        if number != expected {
            break; // a gap: what lies behind it was never answered
        }
        logs.push((journal::log_path(number), disk.open(&journal::log_path(number)).map_err(unreadable)?));
    }
    let mut durable = Durable { here: disk.incarnation().map_err(unreadable)?, ..Durable::default() };
    let mut reached = latest;
    for (_, file) in &logs {
        // Damage is told below, where everything before it has been applied.
        reached =
            read_log(file, reached, &mut |number, record| durable.note(number, record)).map_err(unreadable)?.unwrap_or(reached);
    }
    let (mut damage, mut skipped) = (None, false);
    for (path, file) in &logs {
        let mut last = latest;
        let result = read_log(file, latest, &mut |number, record| {
            if durable.counts(number, &record, &state) {
                state.apply(&record).map_err(|words| format!("record {number}: {words}"))?;
            } else {
                skipped = true;
            }
            last = last.max(number);
            Ok(())
        });
        let result = result.map_err(unreadable)?;
        latest = last;
        if let Err(words) = result {
            damage = Some(format!("{path} is damaged: {words}"));
            break;
        }
    }
    Ok((Found { state, latest, next_number, logged: latest > began, skipped, imported: false, notes: Vec::new() }, damage))
}

/// Which records count. Where nothing can have been lost since a log was begun all of its records do; else only those
/// whose data was certainly on the disk, as commits say.
#[derive(Debug, Default)]
struct Durable {
    here: String,
    commits: HashMap<VolumeNumber, u64>,
    settled: u64,
    seen: u64,
    /// Logs from this record on were begun in the present incarnation.
    kept_from: Option<u64>,
}

impl Durable {
    fn note(&mut self, number: u64, record: Record) -> Result<(), String> {
        match record {
            Record::Begin { version, .. } if !(journal::OLDEST..=journal::VERSION).contains(&version) => {
                return Err(format!("it is of version {version}, not {}", journal::VERSION));
            }
            Record::Begin { incarnation, .. } if incarnation == self.here => {
                self.kept_from = self.kept_from.or(Some(self.seen));
            }
            Record::Commit { volumes, .. } => volumes.into_iter().for_each(|(volume, upto)| {
                let known = self.commits.entry(volume).or_default();
                *known = upto.max(*known);
            }),
            // As after a loss of power: what no commit covers may be gone.
            Record::LostWrites => self.kept_from = None,
            Record::Settled { upto } => self.settled = self.settled.max(upto),
            _ => {}
        }
        self.seen = self.seen.max(number);
        Ok(())
    }

    fn counts(&self, number: u64, record: &Record, state: &State) -> bool {
        if number <= self.settled || self.kept_from.is_some_and(|from| number > from) {
            return true;
        }
        let covered = |volume: &VolumeNumber| self.commits.get(volume).is_some_and(|upto| *upto >= number);
        record.concerns().is_none_or(|volume| state.volumes.contains_key(&volume)) && record.relies_on().iter().all(covered)
    }
}

/// Volumes as the first format kept them: a file each, named by the volume, and its facts beside it.
fn import(disk: &dyn Disk, options: Options) -> Result<Found, StoreError> {
    let failed = |error: io::Error| StoreError::from_io("cannot read the volumes", &error);
    let mut state = State::new(options.chunk_bytes);
    let mut notes = Vec::new();
    let names =
        if folder_is_there(disk, data_files::FOLDER) { disk.list(data_files::FOLDER).map_err(failed)? } else { Vec::new() };
    if names.iter().any(|name| data_files::number_in(name).is_some()) {
        return Err(StoreError::Io("there are data files of volumes, but no map of them: the folder map is empty".to_owned()));
    }
    let mut imported = false;
    for name in names {
        let Ok(id) = name.parse::<VolumeId>() else { continue };
        let path = data_files::path(&name);
        let size_bytes = disk.open(&path).and_then(|file| file.len()).map_err(failed)?;
        let facts = read_facts(disk, id);
        if let Err(reason) = &facts {
            notes.push(format!("volume {id}: its metadata {reason}; its data is kept, as a thin volume"));
        }
        let facts = facts.ok();
        let number = state.next_volume;
        let base = FileAdded { number: state.next_file, volume: number, kind: FileKind::Base, name };
        state.add_raw(number, id, size_bytes, facts.as_ref().is_some_and(|facts| facts.thick), &base);
        if let (Some(volume), Some(facts)) = (state.volumes.get_mut(&number), facts) {
            volume.origin = facts.cloned_from.and_then(|id| id.parse().ok());
            volume.reservations = facts.reservations;
        }
        imported = true;
    }
    Ok(Found { state, latest: 0, next_number: 1, logged: false, skipped: false, imported, notes })
}

fn read_facts(disk: &dyn Disk, id: VolumeId) -> Result<Metadata, String> {
    let read = || {
        let file = disk.open(&format!("meta/{id}"))?;
        let mut bytes = vec![0; file.len()?.min(1 << 20) as usize];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read().map_err(|error: io::Error| format!("cannot be read: {error}"))?;
    Metadata::decode(&bytes)
}

impl MappedStore {
    /// Opens what is there, or makes a store. When this returns all that was found is in a checkpoint of its own.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<Self, StoreError> {
        if !options.chunk_bytes.is_power_of_two() || !(16 << 10..=256 << 10).contains(&options.chunk_bytes) {
            return Err(StoreError::BadSize("a store's chunks must be a power of two from 16 KiB to 256 KiB".to_owned()));
        }
        let failed = |error: io::Error| StoreError::from_io("cannot open the store", &error);
        for folder in ["map", data_files::FOLDER] {
            disk.make_folder(folder).map_err(failed)?;
        }
        disk.sync_folder("").map_err(failed)?;
        let mut found = read_state(disk.as_ref(), options)?;
        let files = open_files(disk.as_ref(), &mut found)?;
        let orphans = files.all().iter().any(|file| file.ownerless.load(Ordering::Acquire));
        if found.logged || found.imported || orphans {
            // The new checkpoint relies on data that so far perhaps only memory has. And which volume had written in place to
            // the file of one that is gone, nobody knows any more: its next flush would not sync that.
            disk.sync_everything().map_err(failed)?;
        }
        let (checkpoint_bytes, journal) = match begin(disk.as_ref(), &found) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                // A full disk must not keep the volumes from being served: what was set aside for this is used now.
                make_way(disk.as_ref(), found.next_number).map_err(failed)?;
                begin(disk.as_ref(), &found).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        journal.append(&Record::Settled { upto: found.latest });
        let whole = !found.skipped;
        let mut store = Self::assemble(disk, options, found, files, journal, checkpoint_bytes);
        store.tidy(whole).map_err(failed)?;
        store.keep_spare();
        Ok(store)
    }

    fn assemble(
        disk: Arc<dyn Disk>,
        options: Options,
        found: Found,
        files: FileTable,
        journal: Journal,
        checkpoint_bytes: u64,
    ) -> Self {
        let chunk_bytes = found.state.chunk_bytes;
        let shared = Arc::new(Shared::new(disk, journal, files, chunk_bytes));
        found.state.count(&shared.files);
        shared.files.all().iter().for_each(|file| file.find_free());
        let latest = found.latest;
        let background = Background::new(found.next_number, checkpoint_bytes, &shared, &found.state);
        let next_volume = AtomicU32::new(found.state.next_volume);
        let volumes: BTreeMap<_, _> = found
            .state
            .volumes
            .into_values()
            .map(|state| (state.id, Arc::new(MappedVolume::new(shared.clone(), state, latest))))
            .collect();
        Self {
            shared,
            options,
            volumes: RwLock::new(volumes),
            next_volume,
            claimed: Mutex::default(),
            unclaimed: Condvar::new(),
            background,
            limit_bytes: AtomicU64::new(u64::MAX),
            short_percent: AtomicU8::new(super::SHORT_PERCENT),
            pools: Mutex::default(),
            notes: found.notes,
        }
    }

    /// Removes what belongs to no volume: files that were being made, logs and checkpoints before this one.
    fn tidy(&mut self, whole: bool) -> io::Result<()> {
        let shared = self.shared.clone();
        let files = shared.files.all();
        let known: HashSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        for name in shared.disk.list(data_files::FOLDER)? {
            if known.contains(name.as_str()) {
                continue;
            }
            let left_over = name.starts_with(".new-") || name.starts_with(".gone-");
            if left_over || data_files::number_in(&name).is_some() {
                self.notes.push(format!("removed {name}, left by an interrupted request"));
                shared.disk.remove(&data_files::path(&name))?;
            } else {
                self.notes.push(format!("ignored volumes/{name}: not a volume's name"));
            }
        }
        self.forget_older(self.background.number(), whole)?;
        for volume in self.all_volumes() {
            // A change of its reservation, or of its size, that ended half-way.
            if volume.is_reserving() {
                if let Err(error) = self.dig(&volume) {
                    self.notes.push(format!("volume {}: what was reserved for it is not given back: {error}", volume.id));
                }
            }
            self.give_back_behind_end(&volume);
            if let Some(base) = super::is_whole_image(&volume) {
                if base.len()? != volume.size() {
                    base.set_len(volume.size())?;
                }
            }
        }
        Ok(())
    }

    /// Removes what is older than the checkpoint before `number`: that one and the logs since then say the same as the
    /// newest, should that be damaged; unless some of their records do not count. Also what was being written, and facts of
    /// the first format.
    pub(super) fn forget_older(&self, number: u64, keep_one: bool) -> io::Result<()> {
        let disk = self.disk();
        let before = newest_before(disk, number)?;
        remove_maps_before(disk, before.filter(|_| keep_one).unwrap_or(number))?;
        if let Ok(names) = disk.list("meta") {
            for name in names {
                disk.remove(&format!("meta/{name}"))?;
            }
        }
        Ok(())
    }
}

/// The found state as a checkpoint of its own, and a log after it.
fn begin(disk: &dyn Disk, found: &Found) -> io::Result<(u64, Journal)> {
    let length = checkpoint::write(disk, found.next_number, &found.state, found.latest)?;
    Ok((length, Journal::begin(disk, found.next_number, found.latest)?))
}

/// Removes what is not needed to read the newest state: what was being written, the generation before, the spare.
fn make_way(disk: &dyn Disk, next_number: u64) -> io::Result<()> {
    remove_maps_before(disk, newest_before(disk, next_number)?.unwrap_or(0))?;
    for name in [format!("log-{next_number}"), SPARE.to_owned()] {
        match disk.remove(&format!("map/{name}")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn newest_before(disk: &dyn Disk, number: u64) -> io::Result<Option<u64>> {
    Ok(numbered(disk, "checkpoint-")?.into_iter().filter(|found| *found < number).max())
}

/// Removes checkpoints and logs with lower numbers, and any checkpoint that was being written.
fn remove_maps_before(disk: &dyn Disk, kept: u64) -> io::Result<()> {
    for name in disk.list("map")? {
        let of = |prefix: &str| name.strip_prefix(prefix).and_then(|rest| rest.parse::<u64>().ok());
        let old = of("checkpoint-").or_else(|| of("log-")).is_some_and(|found| found < kept);
        if old || of("new-").is_some() {
            disk.remove(&format!("map/{name}"))?;
        }
    }
    Ok(())
}

/// Space that is set aside, so that a full disk can still be opened.
pub(super) const SPARE: &str = "spare";
pub(super) const SPARE_BYTES: u64 = 5 << 18;

/// Opens all data files. One that is missing is an error if a volume needs it; one that nobody needs is forgotten.
fn open_files(disk: &dyn Disk, found: &mut Found) -> Result<FileTable, StoreError> {
    let table = FileTable::new(found.state.next_file);
    let state = &mut found.state;
    for added in state.files.values() {
        match disk.open(&data_files::path(&added.name)) {
            Ok(file) => {
                let data_file = DataFile::new(added, file, state.chunk_bytes, false);
                let ownerless = !state.volumes.contains_key(&added.volume);
                data_file.ownerless.store(ownerless, Ordering::Release);
                // Was it a thick one? Nobody knows any more.
                data_file.holds_reserve.store(ownerless && added.kind == FileKind::Base, Ordering::Release);
                table.insert(Arc::new(data_file));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::from_io(&format!("cannot open volumes/{}", added.name), &error)),
        }
    }
    let mut missing = Vec::new();
    for volume in state.volumes.values() {
        let chunks = volume.size_bytes.div_ceil(state.chunk_bytes);
        crate::map::walk::for_each_run(&volume.top, chunks, &mut |file, _| {
            if table.get(file).is_none() {
                missing.push((volume.id, file));
            }
        });
    }
    if let Some((volume, file)) = missing.first() {
        let name = state.files.get(file).map_or_else(|| format!("number {file}"), |file| file.name.clone());
        return Err(StoreError::Io(format!("volume {volume}: its data file {name} is missing; nothing has been changed")));
    }
    state.files.retain(|number, _| table.get(*number).is_some());
    Ok(table)
}
