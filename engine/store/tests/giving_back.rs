//! Giving back what deleted snapshots had: in small steps, between which others go on, whoever asks how much is left.

mod hooked;

use gespann_store::{MappedStore, Options, Share, Store, VolumeId};
use hooked::Hooked;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

const CHUNK: u64 = 64 << 10;
const BLOCK: usize = 4096;
/// More than one question looks at.
const CHUNKS: u64 = 5000;
const VOLUME: VolumeId = VolumeId([0xaa; 16]);

fn snapshot_number(number: u8) -> VolumeId {
    VolumeId([0xc0 + number; 16])
}

/// One block of each chunk, in the middle of it.
fn overwrite(store: &MappedStore, byte: u8) {
    let volume = store.open(VOLUME).unwrap();
    for chunk in 0..CHUNKS {
        volume.write_at(&[byte; BLOCK], chunk * CHUNK + 3 * BLOCK as u64).unwrap();
    }
    volume.flush().unwrap();
}

/// A volume that has overwritten everything after each of two snapshots.
fn prepare() -> (Hooked, MappedStore) {
    let disk = Hooked::new();
    let store = MappedStore::open(Arc::new(disk.clone()), Options::default()).unwrap();
    store.create(VOLUME, CHUNKS * CHUNK, false).unwrap();
    for number in 0..2 {
        overwrite(&store, number);
        store.snapshot(&[Share { source: VOLUME, id: snapshot_number(number), thick: false }]).unwrap();
    }
    overwrite(&store, 9);
    while store.background() {}
    (disk, store)
}

#[test]
fn each_step_empties_little_and_writers_go_on_between_steps() {
    let (disk, store) = prepare();
    let held_bytes = store.space().unwrap().used_bytes;
    (0..2).for_each(|number| store.delete(snapshot_number(number)).unwrap());
    let volume = store.open(VOLUME).unwrap();
    let (mut steps, mut emptied) = (0_u64, 0);
    loop {
        let more = store.background();
        let punched = disk.asked.punched_bytes.swap(0, Ordering::Relaxed);
        // Four chunks may be put together.
        assert!(punched <= 4 * CHUNK, "{punched} bytes in one step, while writers of the file wait");
        (steps, emptied) = (steps + 1, emptied + punched);
        if !more {
            break;
        }
        let chunk = steps % CHUNKS;
        volume.write_at(&[10; BLOCK], chunk * CHUNK + 3 * BLOCK as u64).unwrap();
    }
    assert!(emptied >= 2 * CHUNKS * BLOCK as u64, "only {emptied} bytes were emptied");
    // What these writes overwrote is given back once they are durable.
    volume.flush().unwrap();
    while store.background() {}
    let left_bytes = store.space().unwrap().used_bytes;
    assert_eq!(left_bytes, CHUNKS * BLOCK as u64, "of {held_bytes}, after {steps} steps");
    assert_eq!(store.verify(), Vec::<String>::new());
}

#[test]
fn slots_that_stand_alone_are_emptied_without_a_look_at_what_is_in_them() {
    let (disk, store) = prepare();
    let volume = store.open(VOLUME).unwrap();
    let write = |chunk: u64, byte| volume.write_at(&[byte; CHUNK as usize], chunk * CHUNK).unwrap();
    (0..200).for_each(|chunk| write(chunk, 10));
    volume.flush().unwrap();
    store.snapshot(&[Share { source: VOLUME, id: snapshot_number(2), thick: false }]).unwrap();
    (0..200).for_each(|chunk| write(chunk, 11));
    store.snapshot(&[Share { source: VOLUME, id: snapshot_number(3), thick: false }]).unwrap();
    (0..200).step_by(2).for_each(|chunk| write(chunk, 12)); // the slots between stay in use
    volume.flush().unwrap();
    while store.background() {}
    store.delete(snapshot_number(3)).unwrap();
    disk.asked.looks_for_data.store(0, Ordering::Relaxed);
    disk.asked.punched_bytes.store(0, Ordering::Relaxed);
    while store.background() {}
    assert_eq!(disk.asked.punched_bytes.load(Ordering::Relaxed), 100 * CHUNK);
    assert_eq!(disk.asked.looks_for_data.load(Ordering::Relaxed), 0);
    assert_eq!(store.verify(), Vec::<String>::new());
}

#[test]
fn asking_how_much_is_left_costs_little_however_much_it_is() {
    let (disk, store) = prepare();
    (0..2).for_each(|number| store.delete(snapshot_number(number)).unwrap());
    let mut most_bytes = 0;
    loop {
        let more = store.background();
        disk.asked.looks_for_data.store(0, Ordering::Relaxed);
        let space = store.space().unwrap();
        let looks = disk.asked.looks_for_data.load(Ordering::Relaxed);
        assert!(looks <= 4096, "one question looked for data {looks} times");
        assert!(space.reclaiming_bytes <= space.used_bytes, "{space:?}");
        most_bytes = space.reclaiming_bytes.max(most_bytes);
        if !more {
            break;
        }
    }
    let each_bytes = CHUNKS * BLOCK as u64;
    assert!(most_bytes >= each_bytes && most_bytes <= 2 * each_bytes, "{most_bytes} of two times {each_bytes}");
    assert_eq!(store.space().unwrap().reclaiming_bytes, 0);
}

#[test]
fn what_a_snapshot_makes_durable_is_written_out_before() {
    let (disk, store) = prepare();
    store.open(VOLUME).unwrap().write_at(&[11; BLOCK], 40 * CHUNK).unwrap();
    disk.asked.written_out.lock().unwrap().clear();
    let (asked, synced) = (disk.asked.clone(), Arc::new(Mutex::new(Vec::new())));
    let noted = synced.clone();
    disk.set(move |path, sync| {
        let is_it = |(file, ranges): &&(String, Vec<Range<u64>>)| file == path && !ranges.is_empty();
        let written_out = asked.written_out.lock().unwrap().iter().find(is_it).cloned();
        noted.lock().unwrap().extend(written_out.map(|(_, ranges)| ranges));
        sync()
    });
    store.snapshot(&[Share { source: VOLUME, id: snapshot_number(2), thick: false }]).unwrap();
    disk.clear();
    let synced = synced.lock().unwrap();
    let [ranges] = &synced[..] else { panic!("one file was written to: {synced:?}") };
    let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    assert_eq!(bytes, 1 << 20, "one write is in one such part: {ranges:?}");
}

/// What a volume that was never shared had behind its end is in use again as soon as it is as long as before.
#[test]
fn what_became_shorter_and_long_again_is_not_emptied_under_its_writer() {
    let (_, store) = prepare();
    let (volume, long) = (VolumeId([0xbb; 16]), 3 << 34);
    for pieces in 0..6 {
        store.create(volume, long, false).unwrap();
        let blocks = store.open(volume).unwrap();
        blocks.write_at(&[1; BLOCK], 1 << 35).unwrap();
        store.resize(volume, 1 << 30).unwrap();
        blocks.flush().unwrap();
        (0..pieces).for_each(|_| {
            store.background();
        });
        store.resize(volume, long).unwrap();
        blocks.write_at(&[2; BLOCK], 1 << 35).unwrap();
        while store.background() {}
        let mut bytes = [0; BLOCK];
        blocks.read_at(&mut bytes, 1 << 35).unwrap();
        assert!(bytes == [2; BLOCK], "after {pieces} pieces it reads {}", bytes[0]);
        assert_eq!(store.verify(), Vec::<String>::new());
        store.delete(volume).unwrap();
        while store.background() {}
    }
}
