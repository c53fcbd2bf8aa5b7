//! The simulated disk against a disk that is a list of byte vectors.

use super::{Fault, Operation, SimDisk};
use crate::disk::{Disk, DiskFile};
use fastrand::Rng;
use std::collections::BTreeSet;
use std::sync::Arc;

fn bytes_of(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// Every state that the file has had since the last sync; the last one is the present.
struct States(Vec<Vec<u8>>);

impl States {
    fn now(&self) -> &Vec<u8> {
        self.0.last().unwrap()
    }

    fn add(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.0.push(next);
    }

    /// Is each sector, and the length, one of those there were?
    fn allow(&self, found: &[u8]) -> bool {
        let sector_of = |state: &[u8], start: usize| {
            let mut sector = [0; 512];
            let end = state.len().min(start + 512);
            if start < end {
                sector[..end - start].copy_from_slice(&state[start..end]);
            }
            sector
        };
        // A sector that the found length cuts may be cut whatever its state was.
        let cut = |mut sector: [u8; 512], start: usize| {
            sector[found.len().saturating_sub(start).min(512)..].fill(0);
            sector
        };
        self.0.iter().any(|state| state.len() == found.len())
            && (0..found.len())
                .step_by(512)
                .all(|start| self.0.iter().any(|state| cut(sector_of(state, start), start) == sector_of(found, start)))
    }
}

fn change(file: &dyn DiskFile, states: &mut States, chance: &mut Rng) {
    let offset = chance.usize(0..40_000);
    let length = [1, 100, 512, 4096, 9000][chance.usize(0..5)];
    let end = (offset + length).min(states.now().len());
    match chance.u32(0..10) {
        0 => {
            let length = chance.usize(0..40_000);
            file.set_len(length as u64).unwrap();
            states.add(|state| state.resize(length, 0));
        }
        1 | 2 => {
            file.punch(offset as u64, length as u64).unwrap();
            states.add(|state| state.get_mut(offset..end).unwrap_or_default().fill(0));
        }
        3 => {
            file.zero_reserved(offset as u64, length as u64).unwrap();
            states.add(|state| state.get_mut(offset..end).unwrap_or_default().fill(0));
        }
        4 => {
            file.reserve(length as u64).unwrap();
            states.add(|state| state.resize(state.len().max(length), 0));
        }
        5 => {
            file.sync().unwrap();
            states.0 = vec![states.now().clone()];
        }
        _ => {
            let data: Vec<u8> = (0..length).map(|_| chance.u8(1..)).collect();
            file.write_at(&data, offset as u64).unwrap();
            states.add(|state| {
                state.resize(state.len().max(offset + length), 0);
                state[offset..offset + length].copy_from_slice(&data);
            });
        }
    }
}

#[test]
fn every_sector_holds_what_it_held_at_some_moment_since_the_sync() {
    let mut kept_something_unsynced = 0;
    for seed in 0..1500 {
        let mut chance = Rng::with_seed(seed);
        let mut disk = SimDisk::new(seed);
        disk.create("a").unwrap();
        disk.sync_folder("").unwrap();
        let mut states = States(vec![Vec::new()]);
        for life in 0..3 {
            let file = disk.open("a").unwrap();
            for _ in 0..chance.usize(1..12) {
                change(file.as_ref(), &mut states, &mut chance);
                assert_eq!(&bytes_of(file.as_ref()), states.now(), "seed {seed}");
            }
            let before = disk.clone();
            disk = disk.after_power_loss(seed * 10 + life);
            assert!(before.is_dead() && file.sync().is_err(), "a file of a dead disk does nothing more");
            let found = bytes_of(disk.open("a").unwrap().as_ref());
            assert!(states.allow(&found), "seed {seed}, life {life}");
            kept_something_unsynced += usize::from(states.0.len() > 1 && found != states.0[0] && found != *states.now());
            states = States(vec![found]);
        }
    }
    assert!(kept_something_unsynced > 300, "{kept_something_unsynced}");
}

#[test]
fn the_next_process_finds_everything_and_the_power_may_still_take_it() {
    let disk = SimDisk::new(1);
    disk.create("a").unwrap().write_at(&[7; 1000], 0).unwrap();
    let incarnation = disk.incarnation().unwrap();
    let disk = disk.after_process_death();
    assert_eq!(disk.incarnation().unwrap(), incarnation);
    assert_eq!(bytes_of(disk.open("a").unwrap().as_ref()), vec![7; 1000]);
    let mut outcomes = BTreeSet::new();
    for seed in 0..60 {
        let later = disk.after_power_loss(seed);
        assert_ne!(later.incarnation().unwrap(), incarnation);
        outcomes.insert(later.open("a").map(|file| bytes_of(file.as_ref())).ok());
    }
    let mut torn = vec![0; 1000];
    torn[512..].fill(7);
    for possible in [None, Some(vec![]), Some(vec![0; 1000]), Some(vec![7; 1000]), Some(torn)] {
        assert!(outcomes.contains(&possible), "never: {:?}", possible.map(|bytes| bytes.len()));
    }
}

#[test]
fn a_name_lasts_when_its_folder_was_synced_and_a_rename_is_whole() {
    let (mut lost, mut renamed) = (0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        disk.make_folder("f").unwrap();
        disk.create("f/old").unwrap();
        disk.sync_folder("").unwrap();
        disk.sync_folder("f").unwrap();
        let new = disk.create("f/new").unwrap();
        new.write_at(&[1; 10], 0).unwrap();
        new.sync().unwrap();
        lost += usize::from(disk.after_power_loss(seed).open("f/new").is_err());
        let disk = disk.after_process_death();
        disk.rename("f/new", "f/old").unwrap();
        let later = disk.after_power_loss(seed);
        let length = later.open("f/old").unwrap().len().unwrap();
        assert!(length == 0 || length == 10);
        assert!(length == 0 || later.open("f/new").is_err(), "both names after a rename");
        renamed += usize::from(length == 10);
        disk.after_process_death().sync_folder("f").unwrap();
    }
    assert!((40..160).contains(&lost) && (40..160).contains(&renamed), "{lost} {renamed}");
    let disk = SimDisk::new(3);
    disk.make_folder("f").unwrap();
    disk.create("f/a").unwrap();
    disk.sync_folder("f").unwrap();
    assert!((0..50).any(|seed| disk.after_power_loss(seed).list("f").is_err()), "the folder's own name was not synced");
    disk.make_folder("f").unwrap_err();
}

#[test]
fn a_disk_dies_at_the_call_it_is_told_to_and_stays_dead() {
    for calls in 0..6 {
        let disk = SimDisk::new(calls);
        disk.crash_after(calls);
        let run = || {
            let file = disk.create("a")?;
            file.write_at(&[1; 20_000], 0)?;
            file.sync()?;
            disk.sync_folder("")?;
            disk.rename("a", "b")
        };
        assert_eq!(run().is_ok(), calls == 5, "{calls}");
        assert_eq!(disk.is_dead(), calls < 5);
        assert!(calls == 5 || disk.list("").is_err());
        let later = disk.after_process_death();
        assert!(!later.is_dead());
        assert!(calls < 4 || later.list("").unwrap().len() == 1);
    }
}

#[test]
fn a_full_disk_says_so_and_a_hole_gives_the_space_back() {
    let disk = SimDisk::new(1);
    disk.set_capacity(10 * 4096);
    let file = disk.create("a").unwrap();
    file.write_at(&[1; 8 * 4096], 0).unwrap();
    let full = file.write_at(&[2; 4 * 4096], 100 * 4096).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(disk.allocated_bytes(), 10 * 4096, "as much as fitted");
    assert_eq!(disk.space().unwrap().free_bytes, 0);
    file.write_at(&[3; 4096], 0).unwrap();
    assert_eq!(file.reserve(9 * 4096).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    file.punch(100, 3 * 4096).unwrap();
    assert_eq!(disk.allocated_bytes(), 8 * 4096, "whole blocks only");
    file.reserve(8 * 4096).unwrap();
    assert_eq!(file.allocated_bytes().unwrap(), 10 * 4096);
    assert_eq!(file.next_data(0, u64::MAX).unwrap(), Some((0, 4096)));
    assert_eq!(file.next_data(4096, u64::MAX).unwrap(), Some((3 * 4096, 8 * 4096)));
    file.dig_holes(100..3 * 4096 - 1).unwrap();
    assert_eq!(file.allocated_bytes().unwrap(), 9 * 4096, "whole blocks only");
    file.dig_holes(0..10 * 4096).unwrap();
    assert_eq!(file.allocated_bytes().unwrap(), 8 * 4096);
    disk.remove("a").unwrap();
    assert_eq!(disk.allocated_bytes(), 0);
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_brings_back() {
    let (mut seen_old, mut seen_new_and_lost, mut kept) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let file: Arc<dyn DiskFile> = disk.create("a").unwrap();
        file.write_at(&[1; 4096], 0).unwrap();
        file.sync().unwrap();
        disk.sync_folder("").unwrap();
        file.write_at(&[2; 4096], 0).unwrap();
        disk.plan(Fault { operation: Some(Operation::Sync), after: 0, errno: libc::EIO });
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
        assert_eq!(disk.fired(), [(Operation::Sync, libc::EIO)]);
        let now = bytes_of(file.as_ref());
        file.sync().unwrap();
        let later = bytes_of(disk.after_power_loss(seed).open("a").unwrap().as_ref());
        assert!(later.chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]));
        match (now == vec![2; 4096], later == vec![2; 4096]) {
            (true, true) => kept += 1,
            (true, false) => seen_new_and_lost += 1,
            (false, _) => seen_old += 1,
        }
    }
    assert!(kept > 20 && seen_old > 20 && seen_new_and_lost > 20, "{kept} {seen_old} {seen_new_and_lost}");
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed: u64| {
        let disk = SimDisk::new(seed);
        disk.start_trace();
        disk.chance(Operation::Write, 300, libc::EIO);
        let file = disk.create("a").unwrap();
        let outcomes: Vec<bool> = (0..50).map(|index| file.write_at(&[index; 5000], 0).is_ok()).collect();
        let trace = disk.take_trace();
        let later = disk.after_power_loss(seed);
        (outcomes, trace, later.open("a").map(|file| bytes_of(file.as_ref())).ok())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
