//! Thousands of snapshots in one store: the next one costs what the first did, each stays as it was, and deleting them all
//! gives back everything that only they had.

use gespann_store::check::check;
use gespann_store::disk::sim::SimDisk;
use gespann_store::{MappedStore, Options, Share, Store, VolumeId};
use std::collections::BTreeMap;
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;
const SIZE: u64 = 64 * MIB;
const WRITTEN: u64 = 4 * MIB;
const VOLUMES: u8 = 20;
const OF_ONE: u64 = 512;
const IN_ALL: u64 = 10_000;
const CLONES: u64 = 1000;
/// Snapshots whose costs are looked at together: now and then the log takes room, which is one of its calls.
const LOOK: u64 = 16;

/// A store, and what has to be in the first block of each snapshot.
struct Many {
    disk: SimDisk,
    store: MappedStore,
    chance: fastrand::Rng,
    taken: BTreeMap<VolumeId, u64>,
    next: u64,
}

/// Of several snapshots in a row.
#[derive(Debug, Clone, Copy)]
struct Cost {
    calls: u64,
    memory_bytes: u64,
}

fn volume(number: u8) -> VolumeId {
    VolumeId([number; 16])
}

fn copy(number: u64) -> VolumeId {
    let mut id = [0xc0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    VolumeId(id)
}

impl Many {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let store = MappedStore::open(Arc::new(disk.clone()), Options::default()).unwrap();
        for number in 1..=VOLUMES {
            store.create(volume(number), SIZE, false).unwrap();
            store.open(volume(number)).unwrap().write_at(&vec![0xff; WRITTEN as usize], 0).unwrap();
        }
        Self { disk, store, chance: fastrand::Rng::with_seed(1), taken: BTreeMap::new(), next: 1 }
    }

    /// The volume's first block and one of its others are written, then it is shared.
    fn share(&mut self, source: VolumeId, clone: bool) -> u64 {
        let number = self.next;
        self.next += 1;
        let opened = self.store.open(source).unwrap();
        opened.write_at(&number.to_le_bytes().repeat(BLOCK / 8), 0).unwrap();
        opened.write_at(&[number as u8; BLOCK], self.chance.u64(1..WRITTEN / BLOCK as u64) * BLOCK as u64).unwrap();
        let before = self.disk.calls();
        if clone {
            self.store.clone_volume(source, copy(number), false).unwrap();
        } else {
            self.store.snapshot(&[Share { source, id: copy(number), thick: false }]).unwrap();
        }
        self.taken.insert(copy(number), number);
        self.disk.calls() - before
    }

    fn look(&mut self, source: VolumeId, clone: bool) -> Cost {
        let memory_bytes = self.store.held_bytes();
        let calls = (0..LOOK).map(|_| self.share(source, clone)).sum();
        Cost { calls, memory_bytes: self.store.held_bytes() - memory_bytes }
    }

    fn settle(&self) {
        let mut idle = 0;
        while idle < 6 {
            idle = if self.store.background() { 0 } else { idle + 1 };
            assert_eq!(self.store.background_failure(), None);
        }
    }

    fn used_bytes(&self) -> u64 {
        self.store.space().unwrap().used_bytes
    }

    fn delete_all(&mut self) {
        let ids: Vec<VolumeId> = std::mem::take(&mut self.taken).into_keys().collect();
        ids.iter().for_each(|id| self.store.delete(*id).unwrap());
        // What was let go waits until that is durable.
        (1..=VOLUMES).for_each(|number| self.store.open(volume(number)).unwrap().flush().unwrap());
        self.settle();
        assert_eq!(self.store.list().unwrap().len(), usize::from(VOLUMES));
        assert_eq!(self.store.verify(), Vec::<String>::new());
    }

    fn restart(&mut self) {
        self.disk = self.disk.after_process_death();
        assert_eq!(check(&self.disk).unwrap().errors, Vec::<String>::new());
        self.store = MappedStore::open(Arc::new(self.disk.clone()), Options::default()).unwrap();
        self.settle();
    }

    fn check_some(&mut self) {
        let each: Vec<_> = self.taken.iter().map(|(id, number)| (*id, *number)).collect();
        for _ in 0..200 {
            let (id, number) = each[self.chance.usize(..each.len())];
            let mut block = [0; BLOCK];
            self.store.open(id).unwrap().read_at(&mut block, 0).unwrap();
            assert!(block == number.to_le_bytes().repeat(BLOCK / 8)[..], "snapshot {number} is not what it was");
        }
    }
}

fn no_more_than(first: Cost, later: Cost, what: &str) {
    assert!(later.calls <= first.calls + LOOK / 2, "{what}: {later:?}, and at first {first:?}");
    assert!(later.memory_bytes <= first.memory_bytes + first.memory_bytes / 4, "{what}: {later:?}, and at first {first:?}");
}

#[test]
fn the_next_of_ten_thousand_snapshots_costs_what_the_first_did() {
    let mut many = Many::new();
    many.settle();
    let alone = many.used_bytes();
    let first = many.look(volume(1), false);
    while many.next <= OF_ONE {
        many.share(volume(1), false);
    }
    no_more_than(first, many.look(volume(1), false), "after 512 of one volume");
    while many.next <= IN_ALL {
        many.share(volume((many.next % u64::from(VOLUMES)) as u8 + 1), false);
        if many.next % 100 == 0 {
            many.settle();
        }
    }
    no_more_than(first, many.look(volume(2), false), "after 10,000 in all");
    let clone = many.look(volume(3), true);
    while many.next <= IN_ALL + CLONES {
        many.share(volume(3), true);
    }
    no_more_than(clone, many.look(volume(3), true), "the clone after 1,000 of one volume");
    many.settle();
    many.check_some();
    many.delete_all();
    assert_eq!(many.used_bytes(), alone, "what only they had has come back");
    many.restart();
    assert_eq!(many.used_bytes(), alone, "and does not come again");
}
