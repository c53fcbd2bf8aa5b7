//! Walks over maps: counting anew, letting go, comparing.

use super::nodes::{Child, Counts, Entry, Found, Leaf, Middle, Node, Part, Reference, Slot, Top};
use super::{LEAF_SLOTS, MIDDLE_SLOTS};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Sets the counts of holders of all nodes, and those of all slots, from the maps of all volumes.
pub fn count_all<'a>(tops: impl Iterator<Item = &'a Arc<Top>>, counts: &dyn Counts) {
    let mut seen = HashSet::new();
    tops.for_each(|top| count_node(top, 0, counts, &mut seen));
}

fn count_node<N: Node>(node: &Arc<N>, at: u64, counts: &dyn Counts, seen: &mut HashSet<usize>) {
    if !seen.insert(Arc::as_ptr(node) as usize) {
        node.refs().fetch_add(1, Ordering::AcqRel);
        return;
    }
    node.refs().store(1, Ordering::Release);
    node.refer(at, &mut |reference| match reference {
        Reference::Middle(middle, at) => count_node(middle, at, counts, seen),
        Reference::Leaf(leaf, at) => count_node(leaf, at, counts, seen),
        Reference::Slots(file, slots) => counts.add(file, slots, 1),
    });
}

/// How many holders each node is said to have, by its place in memory.
pub fn holders<'a>(tops: impl Iterator<Item = &'a Arc<Top>>) -> BTreeMap<usize, u32> {
    fn of<N: Node>(node: &Arc<N>, at: u64, found: &mut BTreeMap<usize, u32>) {
        if found.insert(Arc::as_ptr(node) as usize, node.refs().load(Ordering::Acquire)).is_none() {
            node.refer(at, &mut |reference| match reference {
                Reference::Middle(middle, at) => of(middle, at, found),
                Reference::Leaf(leaf, at) => of(leaf, at, found),
                Reference::Slots(..) => {}
            });
        }
    }
    let mut found = BTreeMap::new();
    tops.for_each(|top| of(top, 0, &mut found));
    found
}

/// Something that a volume no longer refers to.
#[derive(Debug)]
pub enum Dropped {
    Top(Arc<Top>),
    Middle(Arc<Middle>, u64),
    Leaf(Arc<Leaf>, u64),
    Slots(u32, Range<u64>),
}

impl Dropped {
    pub fn slot(slot: Slot) -> Self {
        Self::Slots(slot.file, slot.index..slot.index + 1)
    }

    /// What a child of a node at `at` was.
    pub fn leaf_child(child: Child<Leaf>, at: u64) -> Option<Self> {
        match child {
            Child::Hole => None,
            Child::Identity(file) => Some(Self::Slots(file, at..at + LEAF_SLOTS)),
            Child::Node(leaf) => Some(Self::Leaf(leaf, at)),
        }
    }

    pub fn middle_child(child: Child<Middle>, at: u64) -> Option<Self> {
        match child {
            Child::Hole => None,
            Child::Identity(file) => Some(Self::Slots(file, at..at + MIDDLE_SLOTS)),
            Child::Node(middle) => Some(Self::Middle(middle, at)),
        }
    }

    /// One step of letting go: what its last holder held passes into `more`. Slots are the caller's to take back.
    pub fn release(self, more: &mut Vec<Self>) {
        match self {
            Self::Top(node) => release_node(&node, 0, more),
            Self::Middle(node, at) => release_node(&node, at, more),
            Self::Leaf(node, at) => release_node(&node, at, more),
            slots @ Self::Slots(..) => more.push(slots),
        }
    }
}

fn release_node<N: Node>(node: &Arc<N>, at: u64, more: &mut Vec<Dropped>) {
    if node.refs().fetch_sub(1, Ordering::AcqRel) > 1 {
        return;
    }
    node.refer(at, &mut |reference| {
        more.push(match reference {
            Reference::Middle(middle, at) => Dropped::Middle(middle.clone(), at),
            Reference::Leaf(leaf, at) => Dropped::Leaf(leaf.clone(), at),
            Reference::Slots(file, slots) => Dropped::Slots(file, slots),
        });
    });
}

/// What one chunk is, without the marks that mean something to one volume only.
type Plain = (Option<Slot>, Option<Part>);

fn plain(top: &Top, chunk: u64) -> Plain {
    match top.find(chunk) {
        Found::Hole(_) => (None, None),
        Found::Identity(file, _) => (Some(Slot { file, index: chunk }), None),
        Found::Leaf(leaf, index) => (leaf.entries[index].slot(), leaf.part(index).cloned()),
    }
}

/// Chunks up to which two maps are certainly the same from `chunk` on: they share the node, or say the same of all of it.
fn same_until(one: &Top, other: &Top, chunk: u64) -> Option<u64> {
    let region = (chunk / MIDDLE_SLOTS) as usize;
    let region_end = chunk - chunk % MIDDLE_SLOTS + MIDDLE_SLOTS;
    match (one.children.get(region).unwrap_or(&Child::Hole), other.children.get(region).unwrap_or(&Child::Hole)) {
        (Child::Hole, Child::Hole) => Some(region_end),
        (Child::Identity(a), Child::Identity(b)) if a == b => Some(region_end),
        (Child::Node(a), Child::Node(b)) if Arc::ptr_eq(a, b) => Some(region_end),
        (Child::Node(a), Child::Node(b)) => {
            let page = ((chunk % MIDDLE_SLOTS) / LEAF_SLOTS) as usize;
            let page_end = chunk - chunk % LEAF_SLOTS + LEAF_SLOTS;
            match (&a.children[page], &b.children[page]) {
                (Child::Hole, Child::Hole) => Some(page_end),
                (Child::Identity(a), Child::Identity(b)) if a == b => Some(page_end),
                (Child::Node(a), Child::Node(b)) if Arc::ptr_eq(a, b) => Some(page_end),
                _ => None,
            }
        }
        _ => None,
    }
}

/// One of two maps that are compared: of so many chunks, behind which nothing counts.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    pub top: &'a Top,
    pub chunks: u64,
}

/// The first of these slots of a file that may hold data; their end if none does.
pub type DataFrom<'a> = &'a mut dyn FnMut(u32, Range<u64>) -> u64;

impl Side<'_> {
    fn plain(&self, chunk: u64) -> Plain {
        if chunk < self.chunks { plain(self.top, chunk) } else { (None, None) }
    }

    /// The chunks from this one on, up to which all read as zeroes. Only of chunks at their own places the file is asked: others
    /// were written.
    fn empty_until(&self, chunk: u64, data_from: DataFrom<'_>) -> u64 {
        if chunk >= self.chunks {
            return u64::MAX;
        }
        match self.top.find(chunk) {
            Found::Hole(end) => end,
            Found::Identity(file, end) => data_from(file, chunk..end.min(self.chunks)),
            Found::Leaf(leaf, index) => match leaf.entries[index].slot() {
                None => chunk + 1,
                Some(slot) if slot.index == chunk && !leaf.entries[index].is_part() => data_from(slot.file, chunk..chunk + 1),
                Some(_) => chunk,
            },
        }
    }
}

/// Runs of chunks within `chunks` of which the two maps do not say the same, at most `most` of them, and where to go on. What
/// reads as zeroes in both is no difference. Costs what the maps do not share.
/// `cut` is different whatever the maps say.
pub fn differences(
    one: Side<'_>,
    other: Side<'_>,
    chunks: Range<u64>,
    cut: Option<u64>,
    most: usize,
    data_from: DataFrom<'_>,
) -> (Vec<Range<u64>>, Option<u64>) {
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut chunk = chunks.start;
    while chunk < chunks.end {
        let is_cut = cut == Some(chunk);
        let upto = |end: u64| cut.filter(|cut| (chunk..end).contains(cut)).unwrap_or(end);
        if let Some(end) = same_until(one.top, other.top, chunk).filter(|_| !is_cut) {
            chunk = upto(end);
            continue;
        }
        if !is_cut && one.plain(chunk) == other.plain(chunk) {
            chunk += 1;
            continue;
        }
        // The newer one first: mostly it has been written.
        let mut empty = if is_cut { chunk } else { other.empty_until(chunk, data_from) };
        if empty > chunk {
            empty = empty.min(one.empty_until(chunk, data_from));
        }
        if empty > chunk {
            chunk = upto(empty);
            continue;
        }
        let full = found.len() == most;
        match found.last_mut() {
            Some(last) if last.end == chunk => last.end += 1,
            _ if full => return (found, Some(chunk)),
            _ => found.push(chunk..chunk + 1),
        }
        chunk += 1;
    }
    (found, None)
}

/// Calls `visit` for every run of slots that a map refers to, shared or not.
pub fn for_each_run(top: &Top, chunks: u64, visit: &mut dyn FnMut(u32, Range<u64>)) {
    let mut chunk = 0;
    while chunk < chunks {
        match top.find(chunk) {
            Found::Hole(end) => chunk = end,
            Found::Identity(file, end) => {
                visit(file, chunk..end.min(chunks));
                chunk = end;
            }
            Found::Leaf(leaf, index) => {
                let end = (index as u64 + chunks - chunk).min(LEAF_SLOTS) as usize;
                let wanted: &[Entry] = &leaf.entries[index..end];
                super::nodes::slot_runs(wanted, visit);
                let first = leaf.parts.partition_point(|(at, _)| usize::from(*at) < index);
                let upto = leaf.parts.partition_point(|(at, _)| usize::from(*at) < end);
                super::nodes::for_each_piece(&leaf.parts[first..upto], &mut |slot| {
                    visit(slot.file, slot.index..slot.index + 1)
                });
                chunk += LEAF_SLOTS - index as u64;
            }
        }
    }
}

/// Memory that the nodes of these maps hold, each counted once. Bytes.
pub fn held_bytes<'a>(tops: impl Iterator<Item = &'a Arc<Top>>) -> u64 {
    fn of<N: Node>(node: &Arc<N>, at: u64, seen: &mut HashSet<usize>) -> u64 {
        if !seen.insert(Arc::as_ptr(node) as usize) {
            return 0;
        }
        let mut bytes = node.held_bytes();
        node.refer(at, &mut |reference| match reference {
            Reference::Middle(middle, at) => bytes += of(middle, at, seen),
            Reference::Leaf(leaf, at) => bytes += of(leaf, at, seen),
            Reference::Slots(..) => {}
        });
        bytes
    }
    let mut seen = HashSet::new();
    tops.map(|top| of(top, 0, &mut seen)).sum()
}
