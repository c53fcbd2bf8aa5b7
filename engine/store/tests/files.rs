//! The store on a real directory: what is answered is there, shared or not.

use gespann_store::disk::OsDisk;
use gespann_store::{BlockError, MappedStore, Options, Share, Store, StoreError, Volume, VolumeId};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

    fn try_open(&self) -> Result<MappedStore, StoreError> {
        MappedStore::open(Arc::new(OsDisk::open(&self.0)?), Options::default())
    }

    fn open(&self) -> MappedStore {
        self.try_open().unwrap()
    }

    /// What the folder's files occupy.
    fn du_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let files = std::fs::read_dir(self.0.join("volumes")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
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
    assert!(folder.try_open().unwrap_err().to_string().contains("another engine"));
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

/// Everything that nobody waits for, until there is nothing left to do.
fn settle(store: &MappedStore) {
    let mut idle = 0;
    while idle < 3 {
        idle = if store.background() { 0 } else { idle + 1 };
        assert_eq!(store.background_failure(), None);
    }
}

#[test]
fn a_snapshot_is_what_it_was_while_its_source_goes_on() {
    let folder = Folder::new("snapshot");
    let store = folder.open();
    store.create(A, 64 * MIB, false).unwrap();
    let volume = store.open(A).unwrap();
    let old: Vec<u8> = (0..4 * MIB).map(|at| (at / 512 % 251) as u8).collect();
    volume.write_at(&old, 0).unwrap();
    store.snapshot(&[Share { source: A, id: B, thick: false }]).unwrap();
    let snapshot = store.open(B).unwrap();
    volume.write_at(&[0xaa; 512], 512).unwrap(); // within a block
    volume.write_at(&vec![0xbb; 8192], 65536 - 4096).unwrap(); // over the border of two chunks
    volume.write_at(&vec![0xcc; 65536], 2 * 65536).unwrap(); // a whole chunk
    volume.zero(3 * 65536 + 4096, 2 * 65536).unwrap();
    volume.write_at(&[0xdd; 4096], 40 * MIB).unwrap(); // where there was nothing
    let mut new = old.clone();
    new[512..1024].fill(0xaa);
    new[65536 - 4096..65536 + 4096].fill(0xbb);
    new[2 * 65536..3 * 65536].fill(0xcc);
    new[3 * 65536 + 4096..5 * 65536 + 4096].fill(0);
    let check = |volume: &dyn Volume, snapshot: &dyn Volume| {
        assert!(read(volume, 0, 4 * MIB as usize) == new);
        assert_eq!(read(volume, 40 * MIB, 8192), [vec![0xdd; 4096], vec![0; 4096]].concat());
        assert!(read(snapshot, 0, 4 * MIB as usize) == old);
        assert_eq!(read(snapshot, 40 * MIB, 4096), vec![0; 4096]);
    };
    check(volume.as_ref(), snapshot.as_ref());
    settle(&store);
    check(volume.as_ref(), snapshot.as_ref());
    let found = store.differences(B, A, 0, 100).unwrap();
    assert_eq!(found.next, None);
    assert_eq!(found.ranges, vec![(0, 6 * 65536), (40 * MIB, 65536)]);
    drop((volume, snapshot));
    drop(store);
    let store = folder.open();
    check(store.open(A).unwrap().as_ref(), store.open(B).unwrap().as_ref());
    assert_eq!(store.info(B).unwrap().origin, Some(A));
    store.checkpoint().unwrap();
    drop(store);
    let store = folder.open();
    check(store.open(A).unwrap().as_ref(), store.open(B).unwrap().as_ref());
    // The source goes, and what only it had; what the snapshot has stays.
    store.delete(A).unwrap();
    settle(&store);
    assert!(read(store.open(B).unwrap().as_ref(), 0, 4 * MIB as usize) == old);
    assert!(folder.du_bytes() <= 4 * MIB + 65536, "{}", folder.du_bytes());
    store.delete(B).unwrap();
    settle(&store);
    assert_eq!(folder.du_bytes(), 0);
    assert_eq!(std::fs::read_dir(folder.0.join("volumes")).unwrap().count(), 0);
}

#[test]
fn rolling_back_and_space_that_comes_back() {
    let folder = Folder::new("rollback");
    let store = folder.open();
    store.create(A, 32 * MIB, false).unwrap();
    let volume = store.open(A).unwrap();
    volume.write_at(&vec![1; 8 * MIB as usize], 0).unwrap();
    store.clone_volume(A, B, false).unwrap();
    volume.write_at(&vec![2; 8 * MIB as usize], 4 * MIB).unwrap();
    store.resize(A, 16 * MIB).unwrap();
    volume.flush().unwrap();
    settle(&store);
    assert_eq!(store.usage(B).unwrap().mapped_bytes, 8 * MIB);
    assert_eq!(store.usage(B).unwrap().exclusive_bytes, 4 * MIB);
    assert_eq!(store.usage(A).unwrap().exclusive_bytes, 8 * MIB);
    assert_eq!(store.roll_back(A, B).unwrap().size_bytes, 32 * MIB);
    assert!(read(volume.as_ref(), 0, 8 * MIB as usize).iter().all(|byte| *byte == 1));
    assert_eq!(read(volume.as_ref(), 8 * MIB, 4096), vec![0; 4096]);
    volume.flush().unwrap();
    settle(&store);
    assert!(folder.du_bytes() <= 8 * MIB + 65536, "{}", folder.du_bytes());
    store.delete(B).unwrap();
    settle(&store);
    // Its own again: written in place.
    volume.write_at(&[3; 4096], MIB).unwrap();
    settle(&store);
    assert!(folder.du_bytes() <= 8 * MIB + 65536, "{}", folder.du_bytes());
    assert_eq!(read(volume.as_ref(), MIB, 4096), vec![3; 4096]);
}

#[test]
fn copies_inside_the_array_share_chunks_and_stay_apart() {
    let folder = Folder::new("copy");
    let store = folder.open();
    for id in [A, B] {
        store.create(id, 32 * MIB, false).unwrap();
    }
    let (one, other) = (store.open(A).unwrap(), store.open(B).unwrap());
    let data: Vec<u8> = (0..8 * MIB).map(|at| (at / 4096 % 253) as u8 + 1).collect();
    one.write_at(&data, 0).unwrap();
    one.flush().unwrap();
    let before = folder.du_bytes();
    store.copy_range(A, 4096, B, 4096 + MIB, 7 * MIB).unwrap();
    assert!(read(other.as_ref(), 4096 + MIB, 7 * MIB as usize) == data[4096..4096 + 7 * MIB as usize]);
    assert!(folder.du_bytes() < before + MIB, "only the edges were copied");
    store.copy_range(A, 0, A, 16 * MIB, 4 * MIB).unwrap();
    store.copy_range(A, 0, A, 512, MIB).unwrap(); // over itself, and not alike within the chunks
    assert!(read(one.as_ref(), 512, MIB as usize) == data[..MIB as usize]);
    assert!(read(one.as_ref(), 16 * MIB, 4 * MIB as usize) == data[..4 * MIB as usize]);
    assert!(read(other.as_ref(), 4096 + MIB, 7 * MIB as usize) == data[4096..4096 + 7 * MIB as usize]);
    one.write_at(&vec![0xff; 8 * MIB as usize], 0).unwrap();
    assert!(read(one.as_ref(), 16 * MIB, 4 * MIB as usize) == data[..4 * MIB as usize]);
    assert!(read(other.as_ref(), 4096 + MIB, 7 * MIB as usize) == data[4096..4096 + 7 * MIB as usize]);
    one.settle().unwrap();
    other.settle().unwrap();
    drop((one, other));
    drop(store);
    let store = folder.open();
    assert!(read(store.open(B).unwrap().as_ref(), 4096 + MIB, 7 * MIB as usize) == data[4096..4096 + 7 * MIB as usize]);
    store.delete(A).unwrap();
    settle(&store);
    assert!(read(store.open(B).unwrap().as_ref(), 4096 + MIB, 7 * MIB as usize) == data[4096..4096 + 7 * MIB as usize]);
    store.delete(B).unwrap();
    settle(&store);
    assert_eq!(folder.du_bytes(), 0);
}

#[test]
fn an_atomic_write_is_one_change_of_the_map() {
    let folder = Folder::new("atomic");
    let store = folder.open();
    store.create(A, 8 * MIB, false).unwrap();
    let volume = store.open(A).unwrap();
    volume.write_at(&vec![1; MIB as usize], 0).unwrap();
    volume.write_atomic(&vec![2; 65536], 32768).unwrap();
    assert_eq!(read(volume.as_ref(), 32768 - 512, 512), vec![1; 512]);
    assert!(read(volume.as_ref(), 32768, 65536).iter().all(|byte| *byte == 2));
    assert_eq!(read(volume.as_ref(), 98304, 512), vec![1; 512]);
    assert!(volume.atomic_bytes() >= 256 << 9, "256 blocks, as initiators may try");
    volume.flush().unwrap();
    settle(&store);
    assert!(folder.du_bytes() <= MIB + 65536);
}

#[test]
fn limits_stop_what_takes_more_space_and_nothing_else() {
    let folder = Folder::new("limits");
    let store = folder.open();
    store.create(A, 32 * MIB, false).unwrap();
    let volume = store.open(A).unwrap();
    volume.write_at(&vec![1; 4 * MIB as usize], 0).unwrap();
    volume.flush().unwrap();
    store.set_volume_limit(A, Some(4 * MIB)).unwrap();
    assert!(matches!(volume.write_at(&[2; 4096], 8 * MIB), Err(BlockError::NoSpace)));
    volume.write_at(&[2; 4096], MIB).unwrap();
    store.set_volume_limit(A, None).unwrap();
    volume.write_at(&[2; 4096], 8 * MIB).unwrap();
    store.clone_volume(A, B, false).unwrap();
    store.set_limit(gespann_store::Limit { limit_bytes: Some(4 * MIB), warn_percent: 80 }).unwrap();
    assert!(matches!(volume.write_at(&[3; 4096], 0), Err(BlockError::NoSpace)), "a shared chunk needs a new slot");
    store.delete(B).unwrap();
    settle(&store);
    volume.write_at(&[3; 4096], 0).unwrap();
    assert_eq!(read(volume.as_ref(), 0, 4096), vec![3; 4096]);
}

#[test]
fn volumes_of_the_first_format_are_taken_over() {
    let folder = Folder::new("import");
    std::fs::create_dir_all(folder.0.join("volumes")).unwrap();
    std::fs::create_dir_all(folder.0.join("meta")).unwrap();
    std::fs::write(folder.0.join("volumes").join(A.to_string()), vec![7; MIB as usize]).unwrap();
    let facts = gespann_store::metadata::Metadata {
        volume: A.to_string(),
        thick: true,
        cloned_from: Some(B.to_string()),
        reservations: Some("kept".to_owned()),
    };
    std::fs::write(folder.0.join("meta").join(A.to_string()), facts.encode()).unwrap();
    std::fs::write(folder.0.join("volumes").join(B.to_string()), vec![8; MIB as usize]).unwrap();
    let store = folder.open();
    assert!(store.notes.iter().any(|note| note.contains("its data is kept")), "{:?}", store.notes);
    let info = store.info(A).unwrap();
    assert_eq!((info.thick, info.origin, store.reservations(A).unwrap().as_deref()), (true, Some(B), Some("kept")));
    assert!(!store.info(B).unwrap().thick);
    drop(store);
    let store = folder.open();
    assert_eq!(read(store.open(A).unwrap().as_ref(), 0, 512), vec![7; 512]);
    assert_eq!(read(store.open(B).unwrap().as_ref(), MIB - 512, 512), vec![8; 512]);
    assert_eq!(store.reservations(A).unwrap().as_deref(), Some("kept"));
}

#[test]
fn data_files_without_a_map_are_not_touched() {
    let folder = Folder::new("lost-map");
    let store = folder.open();
    store.create(A, MIB, false).unwrap();
    drop(store);
    std::fs::remove_dir_all(folder.0.join("map")).unwrap();
    assert!(folder.try_open().unwrap_err().to_string().contains("no map of them"));
    assert_eq!(std::fs::read_dir(folder.0.join("volumes")).unwrap().count(), 1);
}
