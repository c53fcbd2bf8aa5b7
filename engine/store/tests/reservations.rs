//! Thick volumes that become thin, longer, shorter, or are deleted, and thin ones that become thick: as much is reserved
//! afterwards as is needed, while the store runs and whichever call of the disk is the last one.

use gespann_store::disk::SimDisk;
use gespann_store::{MappedStore, Options, Share, Store, VolumeId};
use std::sync::Arc;

const CHUNK: u64 = 16 << 10;
const CHUNKS: u64 = 40;
const LONGER: u64 = 60;
const A: VolumeId = VolumeId([0xaa; 16]);
const SNAPSHOT: VolumeId = VolumeId([0xbb; 16]);
const LONG: VolumeId = VolumeId([0xcc; 16]);

fn open(disk: &SimDisk) -> MappedStore {
    let options = Options { chunk_bytes: CHUNK, log_bytes: 512 };
    MappedStore::open(Arc::new(disk.clone()), options).unwrap()
}

fn settle(store: &MappedStore) {
    let mut idle = 0;
    while idle < 5 {
        idle = if store.background() { 0 } else { idle + 1 };
    }
}

/// A volume with one chunk written, in its own file alone or also held by a snapshot.
fn prepare(seed: u64, thick: bool, shared: bool) -> (SimDisk, MappedStore) {
    let disk = SimDisk::new(seed);
    let store = open(&disk);
    store.create(A, CHUNKS * CHUNK, thick).unwrap();
    let volume = store.open(A).unwrap();
    volume.write_at(&vec![1; CHUNK as usize], 3 * CHUNK).unwrap();
    volume.flush().unwrap();
    if shared {
        store.snapshot(&[Share { source: A, id: SNAPSHOT, thick: false }]).unwrap();
        volume.write_at(&vec![2; CHUNK as usize], 5 * CHUNK).unwrap();
        volume.flush().unwrap();
    }
    (disk, store)
}

fn used_bytes(disk: &SimDisk) -> u64 {
    disk.files().into_iter().filter(|(name, ..)| name.starts_with("volumes/")).map(|(_, _, used)| used).sum()
}

/// What the volume is, and that the disk holds as much as that needs.
fn inspect(disk: &SimDisk, store: &MappedStore, written: u64) -> Result<bool, String> {
    settle(store);
    let (thick, used) = (store.info(A).unwrap().thick, used_bytes(disk));
    let right = if thick { used >= CHUNKS * CHUNK } else { used <= written * CHUNK };
    let mut bytes = vec![0; CHUNK as usize];
    store.open(A).unwrap().read_at(&mut bytes, 3 * CHUNK).unwrap();
    match right && bytes == vec![1; CHUNK as usize] && store.verify().is_empty() {
        true => Ok(thick),
        false => Err(format!("thick {thick}, {used} bytes on the disk, verify: {:?}", store.verify())),
    }
}

#[derive(Debug, Clone, Copy)]
struct Case {
    to_thick: bool,
    shared: bool,
    /// The seed of the loss of power; none: the process dies.
    power: Option<u64>,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let powers = [None, Some(1), Some(2), Some(3)];
        [(true, false), (true, true), (false, false), (false, true)]
            .into_iter()
            .flat_map(move |(to_thick, shared)| powers.map(|power| Self { to_thick, shared, power }))
    }

    fn next_disk(self, disk: &SimDisk) -> SimDisk {
        self.power.map_or_else(|| disk.after_process_death(), |seed| disk.after_power_loss(seed))
    }

    fn written(self) -> u64 {
        if self.shared { 2 } else { 1 }
    }

    /// The request dies after so many calls, the next start after so many more; none: there is no such call.
    fn run(self, calls: u64, calls_of_start: Option<u64>) -> Option<Result<bool, String>> {
        let (disk, store) = prepare(calls, !self.to_thick, self.shared);
        disk.crash_after(calls);
        let _ = store.set_thick(A, self.to_thick);
        if !disk.is_dead() {
            return None;
        }
        drop(store);
        let mut disk = self.next_disk(&disk);
        if let Some(calls) = calls_of_start {
            disk.crash_after(calls);
            let opened = MappedStore::open(Arc::new(disk.clone()), Options { chunk_bytes: CHUNK, log_bytes: 512 });
            if !disk.is_dead() {
                return None;
            }
            drop(opened);
            disk = self.next_disk(&disk);
        }
        let store = open(&disk);
        let outcome = inspect(&disk, &store, self.written());
        drop(store);
        // What was given back, and said to be, stays so.
        let disk = disk.after_power_loss(calls);
        let again = inspect(&disk, &open(&disk), self.written());
        Some(outcome.and_then(|thick| again.map(|then| assert_eq!(then, thick)).map(|()| thick)))
    }
}

#[test]
fn a_change_that_dies_at_any_call_is_done_or_undone_at_the_next_start() {
    for case in Case::all() {
        let (mut done, mut undone) = (0, 0);
        for calls in 0.. {
            let Some(outcome) = case.run(calls, None) else { break };
            match outcome.unwrap_or_else(|error| panic!("{case:?}, call {calls}: {error}")) == case.to_thick {
                true => done += 1,
                false => undone += 1,
            }
        }
        let (first, other) = if case.to_thick { (undone, 3) } else { (done, 1) };
        assert!(first >= other, "{case:?}: {done} done, {undone} not");
    }
}

#[test]
fn a_start_that_dies_while_it_gives_back_leaves_that_to_the_next_one() {
    for case in Case::all().filter(|case| case.shared && case.power.is_none_or(|seed| seed == 1)) {
        let mut starts = 0;
        for calls in 0.. {
            for calls_of_start in 0.. {
                let Some(outcome) = case.run(calls, Some(calls_of_start)) else { break };
                outcome.unwrap_or_else(|error| panic!("{case:?}, calls {calls} and {calls_of_start}: {error}"));
                starts += 1;
            }
            if case.run(calls, None).is_none() {
                break;
            }
        }
        assert!(starts > 100, "{case:?}: {starts}");
    }
}

/// The same where a call fails: what the request says is what is so, and what could not be given back is at the next start.
#[test]
fn a_change_in_which_any_call_fails_leaves_nothing_reserved() {
    use gespann_store::disk::sim::Fault;
    for (to_thick, shared, errno) in
        [(true, false, libc::ENOSPC), (true, true, libc::EIO), (false, true, libc::EIO), (false, false, libc::EIO)]
    {
        let case = Case { to_thick, shared, power: None };
        let mut failed = 0;
        for after in 0.. {
            let (disk, store) = prepare(after, !to_thick, shared);
            disk.plan(Fault { operation: None, after, errno });
            let answer = store.set_thick(A, to_thick);
            if disk.fired().is_empty() {
                break;
            }
            disk.clear_faults();
            failed += u32::from(answer.is_err());
            drop(store);
            let disk = disk.after_process_death();
            let store = open(&disk);
            let thick = inspect(&disk, &store, case.written()).unwrap_or_else(|error| panic!("{case:?}, {after}: {error}"));
            assert!(answer.is_err() || thick == to_thick, "{case:?}, {after}");
        }
        assert!(failed >= 2, "{case:?}: {failed}");
    }
}

/// A thick volume that shares chunks becomes longer: by growing, or by going back to what is in a longer one.
fn make_longer(store: &MappedStore, back: bool) -> bool {
    let answer = if back { store.roll_back(A, LONG) } else { store.resize(A, LONGER * CHUNK) };
    answer.is_ok()
}

fn prepare_longer(seed: u64) -> (SimDisk, MappedStore) {
    let (disk, store) = prepare(seed, true, true);
    store.create(LONG, LONGER * CHUNK, false).unwrap();
    let volume = store.open(LONG).unwrap();
    volume.write_at(&vec![1; CHUNK as usize], 3 * CHUNK).unwrap();
    volume.flush().unwrap();
    settle(&store);
    (disk, store)
}

/// Is it the longer one? As much is reserved as it needs, and no more.
fn inspect_longer(disk: &SimDisk, store: &MappedStore) -> Result<bool, String> {
    settle(store);
    let (size_bytes, used) = (store.info(A).unwrap().size_bytes, used_bytes(disk));
    let written = 3 * CHUNK; // beside what is reserved: of the other volume, and of A and its snapshot
    let mut bytes = vec![0; CHUNK as usize];
    store.open(A).unwrap().read_at(&mut bytes, 3 * CHUNK).unwrap();
    let right = (size_bytes..=size_bytes + written).contains(&used);
    match right && bytes == vec![1; CHUNK as usize] && store.verify().is_empty() {
        true => Ok(size_bytes == LONGER * CHUNK),
        false => Err(format!("{size_bytes} long, {used} bytes on the disk, verify: {:?}", store.verify())),
    }
}

#[test]
fn a_thick_volume_that_becomes_longer_has_its_space_or_gives_it_back_whichever_call_is_the_last() {
    let powers = [None, Some(1), Some(2), Some(3)];
    for (back, power) in [false, true].into_iter().flat_map(|back| powers.map(|power| (back, power))) {
        let (mut done, mut undone) = (0, 0);
        for calls in 0.. {
            let (disk, store) = prepare_longer(calls);
            disk.crash_after(calls);
            make_longer(&store, back);
            if !disk.is_dead() {
                break;
            }
            drop(store);
            let next = |disk: &SimDisk| power.map_or_else(|| disk.after_process_death(), |seed| disk.after_power_loss(seed));
            // The start after it dies as well, sooner or later, and the one after that does what is left to do.
            for calls_of_start in (0..40).step_by(3) {
                let disk = next(&disk);
                disk.crash_after(calls_of_start);
                drop(MappedStore::open(Arc::new(disk.clone()), Options { chunk_bytes: CHUNK, log_bytes: 512 }));
                let disk = next(&disk);
                let found = inspect_longer(&disk, &open(&disk));
                found.unwrap_or_else(|error| panic!("back {back}, {power:?}, call {calls}, {calls_of_start}: {error}"));
            }
            let disk = next(&disk);
            match inspect_longer(&disk, &open(&disk)) {
                Ok(true) => done += 1,
                Ok(false) => undone += 1,
                Err(error) => panic!("back {back}, {power:?}, call {calls}: {error}"),
            }
        }
        assert!(undone >= 2 && done + undone >= 4, "back {back}, {power:?}: {done} done, {undone} not");
    }
}

#[test]
fn a_thick_volume_that_cannot_become_longer_gives_back_what_it_had_reserved() {
    for (back, errno) in [(false, libc::ENOSPC), (true, libc::ENOSPC), (false, libc::EIO), (true, libc::EIO)] {
        let mut failed = 0;
        for after in 0.. {
            let (disk, store) = prepare_longer(after);
            disk.plan(gespann_store::disk::sim::Fault { operation: None, after, errno });
            let done = make_longer(&store, back);
            if disk.fired().is_empty() {
                break;
            }
            disk.clear_faults();
            failed += u32::from(!done);
            drop(store);
            let disk = disk.after_process_death();
            let longer = inspect_longer(&disk, &open(&disk)).unwrap_or_else(|error| panic!("back {back}, {after}: {error}"));
            assert!(longer || !done, "back {back}, {after}");
        }
        assert!(failed >= 2, "back {back}: {failed}");
    }
}

/// As many chunks as are left of a thick volume that becomes shorter.
const SHORTER: u64 = 10;

/// A thick volume of which a snapshot holds the never written part as well, or which was made thick after it was shared.
fn prepare_reserved(seed: u64, shared_first: bool) -> (SimDisk, MappedStore) {
    let (disk, store) = prepare(seed, !shared_first, true);
    if shared_first {
        store.set_thick(A, true).unwrap();
    }
    settle(&store);
    (disk, store)
}

/// Two chunks were written, one of them again after the snapshot.
fn inspect_reserved(disk: &SimDisk, store: &MappedStore) -> Result<Option<u64>, String> {
    settle(store);
    let size_bytes = store.info(A).ok().map(|info| info.size_bytes);
    let used = used_bytes(disk);
    let least = size_bytes.unwrap_or(0);
    let mut bytes = vec![0; CHUNK as usize];
    store.open(SNAPSHOT).unwrap().read_at(&mut bytes, 3 * CHUNK).unwrap();
    match (least..=least + 2 * CHUNK).contains(&used) && bytes == vec![1; CHUNK as usize] && store.verify().is_empty() {
        true => Ok(size_bytes),
        false => Err(format!("{size_bytes:?} long, {used} bytes on the disk, verify: {:?}", store.verify())),
    }
}

#[test]
fn what_a_thick_volume_needs_no_more_is_given_back_while_the_store_runs() {
    for shared_first in [false, true] {
        let (disk, store) = prepare_reserved(1, shared_first);
        store.resize(A, SHORTER * CHUNK).unwrap();
        assert_eq!(inspect_reserved(&disk, &store), Ok(Some(SHORTER * CHUNK)), "shared first: {shared_first}");
        // What becomes longer again reads as zeroes there, and has its space.
        store.resize(A, CHUNKS * CHUNK).unwrap();
        assert_eq!(inspect_reserved(&disk, &store), Ok(Some(CHUNKS * CHUNK)), "shared first: {shared_first}");
        let mut bytes = vec![9; ((CHUNKS - SHORTER) * CHUNK) as usize];
        store.open(A).unwrap().read_at(&mut bytes, SHORTER * CHUNK).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        // A roll back to what is shorter makes shorter as well.
        store.create(LONG, SHORTER * CHUNK, false).unwrap();
        store.roll_back(A, LONG).unwrap();
        assert_eq!(inspect_reserved(&disk, &store), Ok(Some(SHORTER * CHUNK)), "shared first: {shared_first}");
        store.delete(A).unwrap();
        assert_eq!(inspect_reserved(&disk, &store), Ok(None), "shared first: {shared_first}");
        assert!(used_bytes(&disk) <= CHUNK, "what the snapshot holds");
    }
}

#[test]
fn what_a_thick_volume_needs_no_more_is_given_back_whichever_call_is_the_last() {
    let powers = [None, Some(1)];
    let cases = [false, true].into_iter().flat_map(|delete| [(delete, false), (delete, true)]);
    for ((delete, shared_first), power) in cases.flat_map(|case| powers.map(|power| (case, power))) {
        let next = |disk: &SimDisk| power.map_or_else(|| disk.after_process_death(), |seed| disk.after_power_loss(seed));
        let (mut done, mut undone) = (0, 0);
        for calls in 0.. {
            let (disk, store) = prepare_reserved(calls, shared_first);
            disk.crash_after(calls);
            let _ = if delete { store.delete(A) } else { store.resize(A, SHORTER * CHUNK).map(drop) };
            settle(&store);
            if !disk.is_dead() {
                break;
            }
            drop(store);
            let case = format!("delete {delete}, shared first {shared_first}, {power:?}, call {calls}");
            for calls_of_start in [3 + calls % 7, 20 + calls % 11, 40 + calls % 13] {
                let disk = next(&disk);
                disk.crash_after(calls_of_start);
                if let Ok(store) = MappedStore::open(Arc::new(disk.clone()), Options { chunk_bytes: CHUNK, log_bytes: 512 }) {
                    settle(&store);
                }
                let disk = next(&disk);
                let found = inspect_reserved(&disk, &open(&disk));
                found.unwrap_or_else(|error| panic!("{case}, {calls_of_start} of the start: {error}"));
            }
            let disk = next(&disk);
            match inspect_reserved(&disk, &open(&disk)).unwrap_or_else(|error| panic!("{case}: {error}")) {
                Some(size_bytes) if size_bytes == CHUNKS * CHUNK => undone += 1,
                _ => done += 1,
            }
        }
        assert!(done >= 3, "delete {delete}, shared first {shared_first}, {power:?}: {done} done, {undone} not");
    }
}

/// What is reserved in the file of a volume that is gone is given back while those that hold what was written there go on writing.
#[test]
fn who_writes_in_place_in_the_file_of_a_deleted_thick_volume_loses_nothing() {
    let (disk, store) = prepare_reserved(3, false);
    let volume = store.open(SNAPSHOT).unwrap();
    store.delete(A).unwrap();
    let mut more = true;
    for round in 0.. {
        for chunk in 0..CHUNKS {
            volume.write_at(&[(round + chunk) as u8; 4096], chunk * CHUNK + 8192).unwrap();
        }
        if !more {
            for chunk in 0..CHUNKS {
                let mut bytes = [0; 4096];
                volume.read_at(&mut bytes, chunk * CHUNK + 8192).unwrap();
                assert_eq!(bytes, [(round + chunk) as u8; 4096], "chunk {chunk}");
            }
            break;
        }
        more = store.background();
    }
    volume.flush().unwrap();
    settle(&store);
    assert!(used_bytes(&disk) <= CHUNK + CHUNKS * 4096, "{} bytes", used_bytes(&disk));
}
