//! Storage pools: each has its own space, whatever its volumes share and whoever is deleted.

use gespann_store::disk::OsDisk;
use gespann_store::{BlockError, MappedStore, Options, Pool, Share, Store, Volume, VolumeId};
use std::path::PathBuf;
use std::sync::Arc;

const A: VolumeId = VolumeId([0x6a; 16]);
const B: VolumeId = VolumeId([0x6b; 16]);
const SNAPSHOT: VolumeId = VolumeId([0x6c; 16]);
const MIB: u64 = 1 << 20;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gespann-pools-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> MappedStore {
        MappedStore::open(Arc::new(OsDisk::open(&self.0).unwrap()), Options::default()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pool(name: &str, capacity_bytes: Option<u64>, volumes: &[VolumeId]) -> Pool {
    Pool { name: name.to_owned(), capacity_bytes, volumes: volumes.to_vec() }
}

/// Two volumes, each with 4 MiB in a pool of its own; that of A is full.
fn two_pools(store: &MappedStore) -> (Arc<dyn Volume>, Arc<dyn Volume>) {
    store.set_pools(&[pool("a", Some(4 * MIB), &[A]), pool("b", None, &[B])]).unwrap();
    let volumes = [A, B].map(|id| {
        store.create(id, 32 * MIB, false).unwrap();
        let volume = store.open(id).unwrap();
        volume.write_at(&vec![1; 4 * MIB as usize], 0).unwrap();
        volume.flush().unwrap();
        volume
    });
    settle(store);
    volumes.into()
}

fn settle(store: &MappedStore) {
    let mut idle = 0;
    while idle < 3 {
        idle = if store.background() { 0 } else { idle + 1 };
    }
    assert_eq!(store.background_failure(), None);
}

fn used_mib(store: &MappedStore, name: &str) -> u64 {
    store.pools().unwrap().into_iter().find(|pool| pool.name == name).unwrap().used_bytes / MIB
}

fn is_held(volume: &dyn Volume) -> bool {
    match volume.write_at(&[2; 4096], 8 * MIB) {
        Ok(()) => false,
        Err(BlockError::NoSpace) => true,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_full_pool_holds_its_own_writers_only_and_only_until_it_has_space() {
    let folder = Folder::new("full");
    let store = folder.open();
    let (a, b) = two_pools(&store);
    assert_eq!((used_mib(&store, "a"), used_mib(&store, "b")), (4, 4));
    assert!(is_held(a.as_ref()));
    a.write_at(&[3; 4096], MIB).unwrap();
    assert!(!is_held(b.as_ref()));
    a.zero(0, 2 * MIB).unwrap();
    a.flush().unwrap();
    settle(&store);
    assert_eq!(used_mib(&store, "a"), 2);
    assert!(!is_held(a.as_ref()));
    store.set_pools(&[pool("a", Some(MIB), &[]), pool("b", None, &[])]).unwrap();
    assert!(matches!(a.write_at(&[2; 4096], 16 * MIB), Err(BlockError::NoSpace)), "a lower capacity counts at once");
    store.set_pools(&[pool("a", Some(9 * MIB), &[]), pool("b", None, &[])]).unwrap();
    a.write_at(&[2; 4096], 16 * MIB).unwrap();
}

#[test]
fn what_is_set_aside_for_a_pool_is_not_for_the_others() {
    let folder = Folder::new("aside");
    let store = folder.open();
    let (a, b) = two_pools(&store);
    store.set_limit(gespann_store::Limit { limit_bytes: Some(20 * MIB), warn_percent: 100 }).unwrap();
    store.set_pools(&[pool("a", Some(16 * MIB), &[A]), pool("b", None, &[B])]).unwrap();
    assert!(is_held(b.as_ref()), "4 of the 20 MiB are not set aside, and b has them");
    assert!(!is_held(a.as_ref()));
    store.set_pools(&[pool("a", Some(12 * MIB), &[A]), pool("b", None, &[B])]).unwrap();
    assert!(!is_held(b.as_ref()));
}

#[test]
fn a_snapshot_is_in_its_volumes_pool_and_what_it_keeps_counts_there_when_the_volume_is_gone() {
    let folder = Folder::new("snapshot");
    let store = folder.open();
    let (a, _) = two_pools(&store);
    store.snapshot(&[Share { source: A, id: SNAPSHOT, thick: false }]).unwrap();
    let snapshot = store.open(SNAPSHOT).unwrap();
    assert!(is_held(snapshot.as_ref()));
    assert!(matches!(a.write_at(&[3; 4096], MIB), Err(BlockError::NoSpace)), "a shared chunk needs a place of its own");
    drop(a);
    store.delete(A).unwrap();
    settle(&store);
    assert_eq!(used_mib(&store, "a"), 4);
    assert!(is_held(snapshot.as_ref()));
    drop((snapshot, store));
    let store = folder.open();
    let snapshot = store.open(SNAPSHOT).unwrap();
    assert!(!is_held(snapshot.as_ref()), "nobody has told yet what the pools are");
    store.set_pools(&[pool("a", Some(4 * MIB), &[SNAPSHOT]), pool("b", None, &[B])]).unwrap();
    assert_eq!((used_mib(&store, "a"), used_mib(&store, "b")), (4, 4));
    assert!(matches!(snapshot.write_at(&[3; 4096], 16 * MIB), Err(BlockError::NoSpace)));
    drop(snapshot);
    store.delete(SNAPSHOT).unwrap();
    settle(&store);
    assert_eq!((used_mib(&store, "a"), used_mib(&store, "b")), (0, 4));
}

#[test]
fn a_volume_that_moves_takes_along_what_is_in_its_file() {
    let folder = Folder::new("move");
    let store = folder.open();
    let (a, b) = two_pools(&store);
    store.set_pools(&[pool("a", Some(4 * MIB), &[B]), pool("b", None, &[A])]).unwrap();
    assert_eq!((used_mib(&store, "a"), used_mib(&store, "b")), (4, 4));
    assert_eq!((is_held(a.as_ref()), is_held(b.as_ref())), (false, true));
    store.set_pools(&[pool("b", None, &[])]).unwrap();
    assert!(!is_held(b.as_ref()), "its pool is gone");
    assert_eq!(store.pools().unwrap().len(), 1);
}
