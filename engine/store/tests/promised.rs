//! Writes within a thick volume's reservation: its space was counted when it was promised, so no limit holds them up; and what is
//! on its way back to those that are held up.

use gespann_store::disk::SimDisk;
use gespann_store::{BlockError, Limit, MappedStore, Options, Pool, Share, Store, Volume, VolumeId};
use std::sync::Arc;

const CHUNK: u64 = 16 << 10;
const CHUNKS: u64 = 20;
const A: VolumeId = VolumeId([0xaa; 16]);
const SNAPSHOT: VolumeId = VolumeId([0xbb; 16]);
const THIN: VolumeId = VolumeId([0xcc; 16]);

fn open(disk: &SimDisk) -> MappedStore {
    MappedStore::open(Arc::new(disk.clone()), Options { chunk_bytes: CHUNK, log_bytes: 512 }).unwrap()
}

fn settle(store: &MappedStore) {
    let mut idle = 0;
    while idle < 5 {
        idle = if store.background() { 0 } else { idle + 1 };
        assert_eq!(store.background_failure(), None);
    }
}

fn write(volume: &dyn Volume, chunk: u64, byte: u8) -> Result<(), BlockError> {
    volume.write_at(&vec![byte; CHUNK as usize], chunk * CHUNK)
}

fn read(volume: &dyn Volume, chunk: u64) -> u8 {
    let mut bytes = vec![0; CHUNK as usize];
    volume.read_at(&mut bytes, chunk * CHUNK).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "chunk {chunk}");
    bytes[0]
}

fn is_held<T>(result: Result<T, BlockError>) -> bool {
    match result {
        Ok(_) => false,
        Err(BlockError::NoSpace) => true,
        Err(other) => panic!("{other:?}"),
    }
}

fn limit_to_what_is_used(store: &MappedStore) -> u64 {
    let used_bytes = store.space().unwrap().used_bytes;
    store.set_limit(Limit { limit_bytes: Some(used_bytes), warn_percent: 90 }).unwrap();
    used_bytes
}

/// A thick volume that was copied from a thin one: nothing of it is in its own places.
fn thick_copy(store: &MappedStore) -> Arc<dyn Volume> {
    store.create(THIN, CHUNKS * CHUNK, false).unwrap();
    let thin = store.open(THIN).unwrap();
    (0..3).for_each(|chunk| write(thin.as_ref(), chunk, 1).unwrap());
    thin.flush().unwrap();
    store.clone_volume(THIN, A, true).unwrap();
    settle(store);
    store.open(A).unwrap()
}

/// Whatever is written to the volume fits, and takes nothing.
fn takes_any_write(store: &MappedStore, volume: &dyn Volume) {
    let used_bytes = limit_to_what_is_used(store);
    for chunk in 0..CHUNKS {
        volume.write_at(&[7; 4096], chunk * CHUNK + 4096).unwrap();
        write(volume, chunk, 8).unwrap();
    }
    volume.zero(0, CHUNKS * CHUNK).unwrap();
    for chunk in (0..CHUNKS).rev() {
        write(volume, chunk, 9).unwrap();
    }
    volume.or_write(&[0xff; 512], CHUNK).unwrap();
    assert_eq!(volume.compare_and_write(2 * CHUNK, &[9; 512], &[9; 512]).unwrap(), None);
    volume.flush().unwrap();
    assert!((3..CHUNKS).all(|chunk| read(volume, chunk) == 9));
    assert!(store.space().unwrap().used_bytes <= used_bytes);
    settle(store);
    assert!(store.space().unwrap().used_bytes <= used_bytes);
    assert_eq!(store.verify(), Vec::<String>::new());
}

#[test]
fn a_copy_that_is_thick_takes_any_write_at_the_limit_and_a_thin_one_none() {
    let store = open(&SimDisk::new(1));
    let volume = thick_copy(&store);
    limit_to_what_is_used(&store);
    let thin = store.open(THIN).unwrap();
    assert!(is_held(write(thin.as_ref(), 5, 2)));
    takes_any_write(&store, volume.as_ref());
    assert!(is_held(write(thin.as_ref(), 5, 2)));
    assert_eq!((read(thin.as_ref(), 0), read(thin.as_ref(), 5)), (1, 0));
}

#[test]
fn the_limit_of_a_pool_holds_up_no_write_that_was_reserved() {
    let store = open(&SimDisk::new(1));
    let volume = thick_copy(&store);
    let used_bytes = store.space().unwrap().used_bytes;
    let pool = Pool { name: "a".to_owned(), capacity_bytes: Some(used_bytes), volumes: vec![A, THIN] };
    store.set_pools(&[pool]).unwrap();
    assert!(is_held(write(store.open(THIN).unwrap().as_ref(), 5, 2)));
    write(volume.as_ref(), 5, 3).unwrap();
    takes_any_write(&store, volume.as_ref());
}

/// What a snapshot had driven out of its place goes back there when it needs space that it has not where it is.
#[test]
fn a_thick_volume_takes_any_write_again_when_its_snapshot_is_gone() {
    for reopened in [false, true] {
        let disk = SimDisk::new(1);
        let mut store = open(&disk);
        store.create(A, CHUNKS * CHUNK, true).unwrap();
        let mut volume = store.open(A).unwrap();
        (0..5).for_each(|chunk| write(volume.as_ref(), chunk, 1).unwrap());
        store.snapshot(&[Share { source: A, id: SNAPSHOT, thick: false }]).unwrap();
        (0..4).for_each(|chunk| write(volume.as_ref(), chunk, 2).unwrap());
        volume.write_at(&[3; 4096], 4 * CHUNK).unwrap();
        volume.zero(3 * CHUNK, CHUNK).unwrap();
        volume.write_at(&[4; 4096], 3 * CHUNK).unwrap();
        limit_to_what_is_used(&store);
        assert!(is_held(volume.write_at(&[5; 4096], 3 * CHUNK + 8192)), "the snapshot is in its place");
        store.delete(SNAPSHOT).unwrap();
        volume.flush().unwrap();
        settle(&store);
        if reopened {
            drop((volume, store));
            store = open(&disk.after_power_loss(3));
            volume = store.open(A).unwrap();
        }
        limit_to_what_is_used(&store);
        volume.write_at(&[5; 4096], 3 * CHUNK + 8192).unwrap();
        let mut bytes = vec![0; CHUNK as usize];
        volume.read_at(&mut bytes, 3 * CHUNK).unwrap();
        let expected: Vec<u8> = [4, 0, 5, 0].iter().flat_map(|byte| vec![*byte; 4096]).collect();
        assert!(bytes == expected, "what was there before, and what was written");
        assert_eq!((read(volume.as_ref(), 0), read(volume.as_ref(), 2)), (2, 2));
        takes_any_write(&store, volume.as_ref());
    }
}

/// The same when the disk itself has no room: what was reserved on it is there.
#[test]
fn a_full_disk_holds_up_no_write_that_was_reserved() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.create(A, CHUNKS * CHUNK, true).unwrap();
    let volume = store.open(A).unwrap();
    (0..3).for_each(|chunk| write(volume.as_ref(), chunk, 1).unwrap());
    store.snapshot(&[Share { source: A, id: SNAPSHOT, thick: false }]).unwrap();
    (0..3).for_each(|chunk| write(volume.as_ref(), chunk, 2).unwrap());
    volume.flush().unwrap();
    store.delete(SNAPSHOT).unwrap();
    settle(&store);
    volume.zero(0, 3 * CHUNK).unwrap();
    volume.flush().unwrap();
    settle(&store);
    disk.set_capacity(disk.allocated_bytes());
    for chunk in (0..CHUNKS).rev() {
        write(volume.as_ref(), chunk, 4).unwrap_or_else(|error| panic!("chunk {chunk}: {error:?}"));
    }
    volume.flush().unwrap();
    assert!((0..CHUNKS).all(|chunk| read(volume.as_ref(), chunk) == 4));
    settle(&store);
    assert_eq!(store.verify(), Vec::<String>::new());
}

#[test]
fn whether_space_is_coming_is_known_to_who_is_held_up() {
    let store = open(&SimDisk::new(1));
    store.create(THIN, CHUNKS * CHUNK, false).unwrap();
    let volume = store.open(THIN).unwrap();
    (0..8).for_each(|chunk| write(volume.as_ref(), chunk, 1).unwrap());
    store.snapshot(&[Share { source: THIN, id: SNAPSHOT, thick: false }]).unwrap();
    (0..8).for_each(|chunk| write(volume.as_ref(), chunk, 2).unwrap());
    volume.flush().unwrap();
    settle(&store);
    limit_to_what_is_used(&store);
    assert!(is_held(write(volume.as_ref(), 9, 3)));
    assert!(!volume.space_is_coming(), "nothing was let go");
    store.delete(SNAPSHOT).unwrap();
    assert!(is_held(write(volume.as_ref(), 9, 3)));
    assert!(volume.space_is_coming());
    // What it is promised comes, without any flush of what somebody is writing all the time.
    let mut rounds = 0;
    while is_held(write(volume.as_ref(), 9, 3)) {
        assert!(volume.space_is_coming(), "after {rounds} rounds");
        volume.write_at(&[rounds; 512], 0).unwrap();
        while store.background() {}
        rounds += 1;
        assert!(rounds < 10, "it does not come");
    }
    settle(&store);
    assert!(!volume.space_is_coming(), "all is there");
}

#[test]
fn space_is_short_from_the_warning_level_on() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.create(THIN, CHUNKS * CHUNK, false).unwrap();
    let volume = store.open(THIN).unwrap();
    (0..10).for_each(|chunk| write(volume.as_ref(), chunk, 1).unwrap());
    let short = |limit_chunks: Option<u64>, warn_percent| {
        store.set_limit(Limit { limit_bytes: limit_chunks.map(|chunks| chunks * CHUNK), warn_percent }).unwrap();
        store.watch_space().unwrap();
        store.space_is_short()
    };
    assert_eq!([short(None, 100), short(Some(16), 70), short(Some(14), 70)], [false, false, true]);
    assert_eq!([short(Some(14), 80), short(Some(11), 100)], [false, true], "however late anybody is warned");
    assert!(!short(None, 100));
    let pool = |chunks: u64| Pool { name: "a".to_owned(), capacity_bytes: Some(chunks * CHUNK), volumes: vec![THIN] };
    for (chunks, is_short) in [(12, false), (11, true), (20, false)] {
        store.set_pools(&[pool(chunks)]).unwrap();
        store.watch_space().unwrap();
        assert_eq!(store.space_is_short(), is_short, "{chunks}");
    }
    disk.set_capacity(disk.allocated_bytes() * 20 / 19);
    store.watch_space().unwrap();
    assert!(store.space_is_short(), "the disk is nearly full");
}
