//! Where two volumes differ: what was written, and not what only became longer.

use gespann_store::disk::SimDisk;
use gespann_store::{MappedStore, Options, Share, Store, VolumeId};
use std::sync::Arc;

const CHUNK: u64 = 64 << 10;
const MIB: u64 = 1 << 20;
const A: VolumeId = VolumeId([0xaa; 16]);
const THEN: VolumeId = VolumeId([0xbb; 16]);

fn store() -> MappedStore {
    MappedStore::open(Arc::new(SimDisk::new(1)), Options::default()).unwrap()
}

fn write(store: &MappedStore, offset: u64, length: u64) {
    let volume = store.open(A).unwrap();
    volume.write_at(&vec![7; length as usize], offset).unwrap();
    volume.flush().unwrap();
}

/// A volume that holds its first chunk and its last block, as it is and as a snapshot.
fn prepare(store: &MappedStore, size_bytes: u64, thick: bool) {
    store.create(A, size_bytes, thick).unwrap();
    write(store, 0, CHUNK);
    write(store, size_bytes - 4096, 4096);
    store.snapshot(&[Share { source: A, id: THEN, thick: false }]).unwrap();
}

fn ranges(store: &MappedStore, older: VolumeId, newer: VolumeId) -> Vec<(u64, u64)> {
    let all = store.differences(older, newer, 0, 1000).unwrap();
    assert_eq!(all.next, None);
    let (mut single, mut offset) = (Vec::new(), Some(0));
    while let Some(from) = offset {
        let found = store.differences(older, newer, from, 1).unwrap();
        single.extend(found.ranges);
        offset = found.next;
    }
    assert_eq!(single, all.ranges, "one at a time");
    all.ranges
}

#[test]
fn what_a_volume_has_grown_by_is_no_difference_until_it_is_written() {
    for (size_bytes, thick) in [(8 * MIB, false), (8 * MIB, true), (8 * MIB + 8192, false), (40 << 30, false)] {
        let store = store();
        prepare(&store, size_bytes, thick);
        for more in [2 * MIB, 5 * MIB, 40 * MIB] {
            store.resize(A, size_bytes + more).unwrap();
            assert_eq!(ranges(&store, THEN, A), [], "{size_bytes} and {more}, thick {thick}");
        }
        write(&store, size_bytes + 3 * MIB, 4096);
        let chunk = (size_bytes + 3 * MIB) / CHUNK * CHUNK;
        assert_eq!(ranges(&store, THEN, A), [(chunk, CHUNK)], "{size_bytes}, thick {thick}");
        assert_eq!(ranges(&store, A, THEN), [], "what lies behind the end of the newer one is not told of");
    }
}

#[test]
fn what_is_written_behind_the_old_end_within_the_same_chunk_is_a_difference() {
    let store = store();
    let end = 8 * MIB + 8192;
    prepare(&store, end, false);
    store.resize(A, 9 * MIB).unwrap();
    write(&store, end + 4096, 4096);
    assert_eq!(ranges(&store, THEN, A), [(8 * MIB, CHUNK)]);
    assert_eq!(ranges(&store, A, THEN), [(8 * MIB, 8192)]);
}

#[test]
fn what_was_empty_and_was_let_go_of_is_no_difference_and_what_was_not_is_one() {
    let store = store();
    prepare(&store, 8 * MIB, false);
    let volume = store.open(A).unwrap();
    volume.zero(4 * MIB, MIB).unwrap();
    assert_eq!(ranges(&store, THEN, A), []);
    volume.zero(0, MIB).unwrap();
    assert_eq!(ranges(&store, THEN, A), [(0, CHUNK)]);
    assert_eq!(ranges(&store, A, THEN), [(0, CHUNK)]);
    store.resize(A, MIB).unwrap();
    store.resize(A, 8 * MIB).unwrap();
    assert_eq!(ranges(&store, THEN, A), [(0, CHUNK), (8 * MIB - CHUNK, CHUNK)]);
}

#[test]
fn volumes_of_different_descent_differ_where_either_holds_something() {
    let store = store();
    prepare(&store, 8 * MIB, false);
    let other = VolumeId([0xcc; 16]);
    store.create(other, 8 * MIB, false).unwrap();
    store.open(other).unwrap().write_at(&[1; 4096], 3 * MIB + 4096).unwrap();
    let expected = [(0, CHUNK), (3 * MIB, CHUNK), (8 * MIB - CHUNK, CHUNK)];
    assert_eq!(ranges(&store, A, other), expected);
    assert_eq!(ranges(&store, other, A), expected);
}
