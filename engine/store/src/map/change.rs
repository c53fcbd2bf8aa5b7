//! Changes of one volume's map: the same while the store runs and when its log is read again.

use super::nodes::{Child, Counts, Entry, Found, Part, Slot, Top, leaf_of, own, own_child};
use super::walk::Dropped;
use super::{LEAF_SLOTS, MIDDLE_SLOTS};
use std::ops::Range;
use std::sync::Arc;

/// The chunk is at `slot` from now on, which has been counted. What it was in before is let go, unless a piece of it still is.
pub fn map_chunk(
    top: &mut Arc<Top>,
    tenure: u64,
    counts: &dyn Counts,
    chunk: u64,
    slot: Slot,
    part: Option<Part>,
) -> Vec<Dropped> {
    let leaf = leaf_of(top, chunk, tenure, counts);
    let index = (chunk % LEAF_SLOTS) as usize;
    let before: Vec<Slot> = leaf.slots(index).collect();
    leaf.set(index, Entry::of(slot).with_own(true), part);
    before.into_iter().filter(|slot| !leaf.slots(index).any(|kept| kept == *slot)).map(Dropped::slot).collect()
}

/// The chunks read as zeroes from now on.
pub fn make_holes(top: &mut Arc<Top>, tenure: u64, counts: &dyn Counts, chunks: Range<u64>) -> Vec<Dropped> {
    let mut dropped = Vec::new();
    let mut chunk = chunks.start;
    while chunk < chunks.end {
        if let Found::Hole(end) = top.find(chunk) {
            chunk = end;
            continue;
        }
        let (within, left) = (chunk % MIDDLE_SLOTS, chunks.end - chunk);
        let region = (chunk / MIDDLE_SLOTS) as usize;
        if within == 0 && left >= MIDDLE_SLOTS {
            let child = std::mem::take(&mut own(top, 0, counts).children[region]);
            dropped.extend(Dropped::middle_child(child, chunk));
            chunk += MIDDLE_SLOTS;
        } else if chunk % LEAF_SLOTS == 0 && left >= LEAF_SLOTS {
            let middle = own_child(&mut own(top, 0, counts).children[region], chunk - within, counts);
            let child = std::mem::take(&mut middle.children[(within / LEAF_SLOTS) as usize]);
            dropped.extend(Dropped::leaf_child(child, chunk));
            chunk += LEAF_SLOTS;
        } else {
            dropped.extend(make_hole(top, tenure, counts, chunk));
            chunk += 1;
        }
    }
    dropped
}

fn make_hole(top: &mut Arc<Top>, tenure: u64, counts: &dyn Counts, chunk: u64) -> Vec<Dropped> {
    let leaf = leaf_of(top, chunk, tenure, counts);
    let index = (chunk % LEAF_SLOTS) as usize;
    let before = leaf.slots(index).map(Dropped::slot).collect();
    leaf.set(index, Entry::HOLE, None);
    before
}

/// Room for so many chunks. What a shrunken volume held behind its end is let go. `raw`: everything is in this file.
pub fn set_chunks(top: &mut Arc<Top>, tenure: u64, counts: &dyn Counts, chunks: u64, raw: Option<u32>) -> Vec<Dropped> {
    let regions = chunks.div_ceil(MIDDLE_SLOTS) as usize;
    let covered = top.children.len() as u64 * MIDDLE_SLOTS;
    let mut dropped = match raw {
        None if chunks < covered => make_holes(top, tenure, counts, chunks..covered),
        _ => Vec::new(),
    };
    let children = &mut own(top, 0, counts).children;
    while children.len() > regions {
        let at = (children.len() - 1) as u64 * MIDDLE_SLOTS;
        match (children.pop(), raw) {
            // Not to be emptied some time: if the file becomes longer again they are in use at once.
            (Some(Child::Identity(file)), Some(_)) => counts.add(file, at..at + MIDDLE_SLOTS, -1),
            (child, _) => dropped.extend(child.and_then(|child| Dropped::middle_child(child, at))),
        }
    }
    while children.len() < regions {
        let at = children.len() as u64 * MIDDLE_SLOTS;
        if let Some(file) = raw {
            counts.add(file, at..at + MIDDLE_SLOTS, 1);
        }
        children.push(raw.map_or(Child::Hole, Child::Identity));
    }
    dropped
}
