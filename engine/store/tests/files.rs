//! The store of files on a real directory: what is answered is there, and a crash at any step leaves whole or nothing.

use gespann_store::files::FileStore;
use gespann_store::{BlockError, Store, StoreError, Volume, VolumeId};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const A: VolumeId = VolumeId([0x6a; 16]);
const B: VolumeId = VolumeId([0x6b; 16]);
const MIB: u64 = 1 << 20;

/// A directory of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gespann-store-{}-{name}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> FileStore {
        FileStore::open(&self.0).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn read(volume: &dyn Volume, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    volume.read_at(&mut bytes, offset).unwrap();
    bytes
}

#[test]
fn a_volume_is_there_after_a_restart_and_thin() {
    let folder = Folder::new("restart");
    let store = folder.open();
    let info = store.create(A, 64 * MIB, false).unwrap();
    assert!(info.allocated_bytes < MIB);
    store.open(A).unwrap().write_at(&[7; 4096], 3 * MIB).unwrap();
    store.open(A).unwrap().flush().unwrap();
    drop(store);
    let store = folder.open();
    assert_eq!(store.list().unwrap().len(), 1);
    let volume = store.open(A).unwrap();
    assert_eq!(volume.size_bytes(), 64 * MIB);
    assert_eq!(read(volume.as_ref(), 3 * MIB, 4096), vec![7; 4096]);
    assert_eq!(read(volume.as_ref(), 3 * MIB + 4096, 4096), vec![0; 4096]);
}

#[test]
fn requests_may_be_repeated_and_what_differs_is_refused() {
    let folder = Folder::new("repeat");
    let store = folder.open();
    store.create(A, MIB, false).unwrap();
    store.create(A, MIB, false).unwrap();
    assert!(matches!(store.create(A, 2 * MIB, false), Err(StoreError::Exists(_))));
    assert!(matches!(store.create(A, MIB, true), Err(StoreError::Exists(_))));
    store.clone_volume(A, B, false).unwrap();
    store.clone_volume(A, B, false).unwrap();
    assert!(matches!(store.clone_volume(B, A, false), Err(StoreError::Exists(_))));
    store.delete(A).unwrap();
    store.delete(A).unwrap();
    assert!(matches!(store.open(A), Err(StoreError::NotFound(_))));
    for bad in [0, 1, 511, u64::MAX, u64::MAX & !511] {
        assert!(matches!(store.create(A, bad, false), Err(StoreError::BadSize(_))), "{bad}");
    }
    // Larger than any file: the system's refusal, and nothing left.
    assert!(store.create(A, (i64::MAX as u64) & !511, false).is_err());
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn a_second_engine_on_the_same_directory_is_refused() {
    let folder = Folder::new("lock");
    let store = folder.open();
    assert!(FileStore::open(&folder.0).unwrap_err().to_string().contains("another engine"));
    drop(store);
    folder.open();
}

#[test]
fn unmapping_gives_space_back_unless_the_volume_is_thick() {
    let folder = Folder::new("unmap");
    let store = folder.open();
    for (id, thick) in [(A, false), (B, true)] {
        store.create(id, 16 * MIB, thick).unwrap();
        let volume = store.open(id).unwrap();
        volume.write_at(&vec![1; 8 * MIB as usize], 0).unwrap();
        volume.flush().unwrap();
        let before = store.info(id).unwrap().allocated_bytes;
        volume.zero(0, 8 * MIB).unwrap();
        volume.flush().unwrap();
        let after = store.info(id).unwrap().allocated_bytes;
        assert_eq!(read(volume.as_ref(), 0, 8 * MIB as usize), vec![0; 8 * MIB as usize]);
        if thick {
            assert!(after >= 16 * MIB, "reserved before and after: {before} {after}");
        } else {
            assert!(before >= 8 * MIB && after < MIB, "{before} {after}");
        }
    }
    // From thick to thin and back, the bytes stay and the reservation follows.
    let volume = store.open(B).unwrap();
    volume.write_at(&[5; 4096], 12 * MIB).unwrap();
    assert!(store.set_thick(B, false).unwrap().allocated_bytes < MIB);
    assert_eq!(read(volume.as_ref(), 12 * MIB, 4096), vec![5; 4096]);
    assert!(store.set_thick(B, true).unwrap().allocated_bytes >= 16 * MIB);
    assert_eq!(read(volume.as_ref(), 12 * MIB, 4096), vec![5; 4096]);
}

#[test]
fn resizing_keeps_what_stays_and_zeroes_what_comes_back() {
    let folder = Folder::new("resize");
    let store = folder.open();
    store.create(A, 4 * MIB, false).unwrap();
    let volume = store.open(A).unwrap();
    volume.write_at(&[9; 8192], 2 * MIB - 4096).unwrap();
    assert_eq!(store.resize(A, 2 * MIB).unwrap().size_bytes, 2 * MIB);
    assert!(matches!(volume.write_at(&[1; 512], 2 * MIB), Err(BlockError::OutOfRange)));
    assert!(matches!(volume.read_at(&mut [0; 1024], 2 * MIB - 512), Err(BlockError::OutOfRange)));
    store.resize(A, 4 * MIB).unwrap();
    assert_eq!(read(volume.as_ref(), 2 * MIB - 4096, 4096), vec![9; 4096]);
    assert_eq!(read(volume.as_ref(), 2 * MIB, 4096), vec![0; 4096]);
}

#[test]
fn a_thick_volume_that_does_not_fit_is_no_space_and_leaves_nothing() {
    let folder = Folder::new("full");
    let store = folder.open();
    let free = store.space().unwrap().free_bytes;
    let too_much = (free + free / 2).next_multiple_of(512);
    assert!(matches!(store.create(A, too_much, true), Err(StoreError::NoSpace(_) | StoreError::BadSize(_))));
    assert!(store.list().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(folder.0.join("volumes")).unwrap().count(), 0);
}

/// The clone is the source at one instant although writers never stop: every block of a writer's stripe carries the
/// number of its round, written front to back, so a consistent picture never has a later round before an earlier one.
#[test]
fn a_clone_is_one_instant_of_a_source_that_is_being_written() {
    const BLOCKS: u64 = 64;
    const STRIDE: u64 = MIB / 2 + 4096;
    let folder = Folder::new("instant");
    let store = Arc::new(folder.open());
    store.create(A, BLOCKS * MIB, false).unwrap();
    let volume = store.open(A).unwrap();
    let rounds = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicUsize::new(0));
    let writer = {
        let (volume, rounds, stop) = (volume.clone(), rounds.clone(), stop.clone());
        std::thread::spawn(move || {
            while stop.load(Ordering::Relaxed) == 0 {
                let round = rounds.fetch_add(1, Ordering::Relaxed) as u32 + 1;
                for block in 0..BLOCKS {
                    volume.write_at(&round.to_le_bytes().repeat(128), block * STRIDE).unwrap();
                }
            }
        })
    };
    while rounds.load(Ordering::Relaxed) < 3 {
        std::thread::yield_now();
    }
    for copy in 0..5u8 {
        let id = VolumeId([copy; 16]);
        store.clone_volume(A, id, copy % 2 == 1).unwrap();
        let clone = store.open(id).unwrap();
        let found: Vec<u32> =
            (0..BLOCKS).map(|block| u32::from_le_bytes(read(clone.as_ref(), block * STRIDE, 4).try_into().unwrap())).collect();
        let newest = found[0];
        assert!(newest > 0);
        assert!(found.windows(2).all(|pair| pair[0] >= pair[1]), "no order of writes gives {found:?}");
        assert!(found.iter().all(|round| newest - round <= 1), "older than the round before: {found:?}");
    }
    stop.store(1, Ordering::Relaxed);
    writer.join().unwrap();
}

#[test]
fn damaged_metadata_costs_no_data() {
    let folder = Folder::new("damage");
    let store = folder.open();
    store.create(A, MIB, true).unwrap();
    store.open(A).unwrap().write_at(&[3; 512], 0).unwrap();
    drop(store);
    std::fs::write(folder.0.join("meta").join(A.to_string()), b"garbage").unwrap();
    let store = folder.open();
    assert!(store.notes.iter().any(|note| note.contains("its data is kept")), "{:?}", store.notes);
    assert_eq!(read(store.open(A).unwrap().as_ref(), 0, 512), vec![3; 512]);
    assert!(!store.info(A).unwrap().thick);
}

/// Fails the step of this number and every later one: the process is dead from there on.
fn crashing(root: &Path, at: usize, seen: &Arc<Mutex<BTreeSet<String>>>) -> FileStore {
    let (count, seen) = (AtomicUsize::new(0), seen.clone());
    let hook = move |name: &str| {
        if count.fetch_add(1, Ordering::Relaxed) < at {
            return Ok(());
        }
        seen.lock().unwrap().insert(name.to_owned());
        Err(io::Error::other("crash"))
    };
    FileStore::open_with_hook(root, Box::new(hook)).unwrap()
}

/// Runs `request` with a crash before each of its steps in turn, and `check`s the store after a restart.
fn crash_everywhere(
    name: &str,
    prepare: fn(&FileStore),
    request: fn(&FileStore) -> bool,
    check: fn(&FileStore, bool),
) -> BTreeSet<String> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    for at in 0.. {
        let folder = Folder::new(name);
        prepare(&folder.open());
        let answered = request(&crashing(&folder.0, at, &seen));
        let store = folder.open();
        check(&store, answered);
        let leftovers =
            std::fs::read_dir(folder.0.join("volumes")).unwrap().chain(std::fs::read_dir(folder.0.join("meta")).unwrap());
        let names: Vec<_> = leftovers.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().all(|name| name.len() == 32), "step {at}: {names:?}");
        assert!(request(&store), "a repeat after a crash at step {at} succeeds");
        if answered {
            break;
        }
    }
    let seen = seen.lock().unwrap().clone();
    assert!(seen.len() >= 2, "{seen:?}");
    seen
}

#[test]
fn a_crash_in_create_leaves_a_whole_volume_or_none() {
    crash_everywhere(
        "crash-create",
        |_| {},
        |store| store.create(A, MIB, true).is_ok(),
        |store, answered| {
            let info = store.info(A);
            assert!(info.is_ok() || !answered);
            if let Ok(info) = info {
                assert!(info.size_bytes == MIB && info.thick && info.allocated_bytes >= MIB, "{info:?}");
            }
        },
    );
}

#[test]
fn a_crash_in_clone_leaves_a_whole_clone_or_none() {
    crash_everywhere(
        "crash-clone",
        |store| {
            store.create(A, 4 * MIB, false).unwrap();
            store.open(A).unwrap().write_at(&vec![4; MIB as usize], 2 * MIB).unwrap();
        },
        |store| store.clone_volume(A, B, true).is_ok(),
        |store, answered| {
            assert!(store.info(A).is_ok());
            assert!(store.info(B).is_ok() || !answered);
            if let Ok(clone) = store.open(B) {
                assert_eq!(read(clone.as_ref(), 2 * MIB, MIB as usize), vec![4; MIB as usize]);
            }
        },
    );
}

#[test]
fn a_crash_in_delete_leaves_the_volume_or_nothing_of_it() {
    crash_everywhere(
        "crash-delete",
        |store| drop(store.create(A, MIB, false).unwrap()),
        |store| store.delete(A).is_ok(),
        |store, answered| assert!(!(answered && store.info(A).is_ok())),
    );
}

/// A request that failed while making its work durable has left it in place; repeated, it is not answered before that
/// last step has succeeded.
#[test]
fn a_repeated_request_is_answered_only_when_durable() {
    type Request = fn(&FileStore) -> Result<(), StoreError>;
    let requests: [(&str, Request); 4] = [
        ("sync volumes folder", |store| store.create(B, MIB, false).map(|_| ())),
        ("sync volumes folder", |store| store.clone_volume(A, B, false).map(|_| ())),
        ("sync volumes folder", |store| store.delete(A)),
        ("sync size", |store| store.resize(A, 2 * MIB).map(|_| ())),
    ];
    for (index, (step, request)) in requests.into_iter().enumerate() {
        let folder = Folder::new("settle");
        folder.open().create(A, MIB, false).unwrap();
        let failures = Arc::new(AtomicUsize::new(2));
        let left = failures.clone();
        let hook = move |name: &str| match name == step && left.load(Ordering::Relaxed) > 0 {
            true => {
                left.fetch_sub(1, Ordering::Relaxed);
                Err(io::Error::from_raw_os_error(5))
            }
            false => Ok(()),
        };
        let store = FileStore::open_with_hook(&folder.0, Box::new(hook)).unwrap();
        assert!(request(&store).is_err(), "request {index}: the first time");
        assert!(request(&store).is_err(), "request {index}: repeated, and it is still not durable");
        request(&store).unwrap();
        assert_eq!(failures.load(Ordering::Relaxed), 0);
    }
}
