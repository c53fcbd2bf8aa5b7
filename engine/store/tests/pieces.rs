//! Chunks in several slots: what is written after a snapshot stays beside what was there before, and nothing is copied as long
//! as a chunk has few pieces.

use gespann_store::check::check;
use gespann_store::disk::OsDisk;
use gespann_store::export::export;
use gespann_store::{MappedStore, Options, Share, Store, VolumeId};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

const CHUNK: usize = 64 << 10;
const BLOCK: usize = 4096;
const SOURCE: VolumeId = VolumeId([1; 16]);

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("gespann-pieces-{name}-{}", std::process::id())))
    }

    fn open(&self) -> MappedStore {
        MappedStore::open(Arc::new(OsDisk::open(&self.0).unwrap()), Options::default()).unwrap()
    }

    fn du_bytes(&self) -> usize {
        let files = std::fs::read_dir(self.0.join("volumes")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().blocks() as usize * 512).sum()
    }

    fn check(&self) {
        assert_eq!(check(&OsDisk::open(&self.0).unwrap()).unwrap().errors, Vec::<String>::new());
    }
}

fn id(number: usize) -> VolumeId {
    let mut id = [2; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    VolumeId(id)
}

fn settle(store: &MappedStore) {
    // What was let go waits until that is durable.
    store.list().unwrap().iter().for_each(|info| store.open(info.volume).unwrap().flush().unwrap());
    let mut idle = 0;
    while idle < 6 {
        idle = if store.background() { 0 } else { idle + 1 };
        assert_eq!(store.background_failure(), None);
    }
    assert_eq!(store.verify(), Vec::<String>::new());
}

fn write(store: &MappedStore, volume: VolumeId, expected: &mut [u8], offset: usize, data: &[u8]) {
    store.open(volume).unwrap().write_at(data, offset as u64).unwrap();
    expected[offset..offset + data.len()].copy_from_slice(data);
}

fn compare(store: &MappedStore, expected: &BTreeMap<VolumeId, Vec<u8>>) {
    for (volume, bytes) in expected {
        let mut found = vec![0xff; bytes.len()];
        store.open(*volume).unwrap().read_at(&mut found, 0).unwrap();
        let wrong = found.iter().zip(bytes).position(|(one, other)| one != other);
        assert_eq!(wrong, None, "volume {volume}");
    }
}

#[test]
fn a_write_after_a_snapshot_takes_its_own_blocks_and_no_more() {
    const CHUNKS: usize = 32;
    let folder = Folder::new("thin");
    let store = folder.open();
    store.create(SOURCE, (CHUNKS * CHUNK) as u64, false).unwrap();
    let mut expected = BTreeMap::from([(SOURCE, vec![0; CHUNKS * CHUNK])]);
    write(&store, SOURCE, expected.get_mut(&SOURCE).unwrap(), 0, &vec![1; CHUNKS * CHUNK]);
    for round in 0..5 {
        store.snapshot(&[Share { source: SOURCE, id: id(round), thick: false }]).unwrap();
        expected.insert(id(round), expected[&SOURCE].clone());
        for chunk in 0..CHUNKS {
            let at = chunk * CHUNK + round * 3 * BLOCK;
            write(&store, SOURCE, expected.get_mut(&SOURCE).unwrap(), at, &[2 + round as u8; BLOCK]);
        }
    }
    store.open(SOURCE).unwrap().flush().unwrap();
    let written = CHUNKS * CHUNK + 5 * CHUNKS * BLOCK;
    // The file system's own blocks for files of so many pieces, and no block of a chunk beside those written.
    assert!(folder.du_bytes() < written + CHUNKS * BLOCK, "{} for {written}", folder.du_bytes());
    compare(&store, &expected);
    (0..5).for_each(|round| store.delete(id(round)).unwrap());
    settle(&store);
    expected.retain(|volume, _| *volume == SOURCE);
    compare(&store, &expected);
    assert!(folder.du_bytes() <= CHUNKS * CHUNK + 8 * BLOCK, "{} for {}", folder.du_bytes(), CHUNKS * CHUNK);
}

/// Snapshots and clones of snapshots, each written to at random, over restarts; deleted in any order, until one is left.
fn at_random(seed: u64) {
    const SIZE: usize = 5 * CHUNK - 512;
    let folder = Folder::new(&format!("random-{seed}"));
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut store = folder.open();
    store.create(SOURCE, SIZE as u64, false).unwrap();
    let mut expected = BTreeMap::from([(SOURCE, vec![0; SIZE])]);
    let mut next = 0;
    for step in 0..300 {
        let volumes: Vec<VolumeId> = expected.keys().copied().collect();
        let volume = if chance.bool() { SOURCE } else { volumes[chance.usize(..volumes.len())] };
        match chance.u32(..16) {
            0..8 => {
                let unit = if chance.bool() { BLOCK } else { 512 };
                let length = unit * chance.usize(1..4);
                let offset = chance.usize(..(SIZE - length) / unit) * unit;
                write(&store, volume, expected.get_mut(&volume).unwrap(), offset, &vec![step as u8; length]);
            }
            8..12 => {
                next += 1;
                store.snapshot(&[Share { source: volume, id: id(next), thick: false }]).unwrap();
                expected.insert(id(next), expected[&volume].clone());
            }
            12 => {
                let (offset, length) = (chance.usize(..SIZE / BLOCK) * BLOCK, BLOCK);
                let length = length.min(SIZE - offset);
                store.open(volume).unwrap().zero(offset as u64, length as u64).unwrap();
                expected.get_mut(&volume).unwrap()[offset..offset + length].fill(0);
            }
            13 if volumes.len() > 1 => {
                let from = volumes[chance.usize(..volumes.len())];
                store.roll_back(volume, from).unwrap();
                expected.insert(volume, expected[&from].clone());
            }
            14 if volume != SOURCE && volumes.len() > 8 => {
                store.delete(volume).unwrap();
                expected.remove(&volume);
                settle(&store);
            }
            15 if chance.u32(..4) == 0 => {
                compare(&store, &expected);
                expected.keys().for_each(|volume| store.open(*volume).unwrap().settle().unwrap());
                drop(store);
                folder.check();
                store = folder.open();
            }
            _ => {
                store.background();
            }
        }
    }
    compare(&store, &expected);
    expected.keys().for_each(|volume| store.open(*volume).unwrap().flush().unwrap());
    drop(store);
    folder.check();
    let exported = folder.0.join("exported");
    let out = OpenOptions::new().create(true).truncate(true).write(true).open(&exported).unwrap();
    export(&OsDisk::open(&folder.0).unwrap(), SOURCE, &out).unwrap();
    assert!(std::fs::read(&exported).unwrap() == expected[&SOURCE], "the volume as it was exported");
    delete_all_but_the_source(&folder, &mut expected, &mut chance);
}

fn delete_all_but_the_source(folder: &Folder, expected: &mut BTreeMap<VolumeId, Vec<u8>>, chance: &mut fastrand::Rng) {
    let store = folder.open();
    compare(&store, expected);
    while expected.len() > 1 {
        let volumes: Vec<VolumeId> = expected.keys().copied().collect();
        let volume = volumes[chance.usize(1..volumes.len())];
        store.delete(volume).unwrap();
        expected.remove(&volume);
        if chance.bool() {
            settle(&store);
        }
        compare(&store, expected);
    }
    settle(&store);
    let size_bytes = expected[&SOURCE].len().next_multiple_of(CHUNK);
    assert!(folder.du_bytes() <= size_bytes + 8 * BLOCK, "{} for {size_bytes}", folder.du_bytes());
    compare(&store, expected);
}

#[test]
fn volumes_of_many_pieces_stay_apart() {
    (0..4).for_each(at_random);
}

/// Of a chunk in three slots one is nobody else's after a snapshot was deleted: only what is in that one moves.
#[test]
fn putting_a_chunk_together_takes_no_more_space_than_it_gives_back() {
    let folder = Folder::new("no-more");
    let store = folder.open();
    store.create(SOURCE, CHUNK as u64, false).unwrap();
    let volume = store.open(SOURCE).unwrap();
    let mut bytes = vec![1; CHUNK];
    volume.write_at(&bytes, 0).unwrap();
    for number in 0..2 {
        store.snapshot(&[Share { source: SOURCE, id: id(number), thick: false }]).unwrap();
        let block = number * BLOCK..(number + 1) * BLOCK;
        bytes[block.clone()].fill(2 + number as u8);
        volume.write_at(&bytes[block.clone()], block.start as u64).unwrap();
    }
    settle(&store);
    assert_eq!(folder.du_bytes(), CHUNK + 2 * BLOCK);
    store.delete(id(1)).unwrap();
    settle(&store);
    assert_eq!(folder.du_bytes(), CHUNK + 2 * BLOCK, "the other snapshot still has the whole chunk");
    store.delete(id(0)).unwrap();
    settle(&store);
    assert_eq!(folder.du_bytes(), CHUNK);
    let mut found = vec![0; CHUNK];
    volume.read_at(&mut found, 0).unwrap();
    assert!(found == bytes);
}
