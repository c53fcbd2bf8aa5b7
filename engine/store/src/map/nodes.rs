//! The nodes of the map, and how one becomes its changer's own.
//!
//! A node has two kinds of holders. Its *logical* holders are volumes and nodes above it, counted in `refs`; they decide
//! whether a change needs a copy. Others only read it for a while, a checkpoint or a comparison, and are seen by the count
//! of the `Arc` alone: for them a changed node moves to other memory, and nothing else happens.

use super::{LEAF_SLOTS, MIDDLE_SLOTS};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A place for one chunk: slot `index` of data file number `file`. File numbers begin with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    pub file: u32,
    pub index: u64,
}

/// Numbers of data files end before this, slots of a file too.
pub const MAX_FILE: u32 = 1 << 24;
pub const MAX_INDEX: u64 = 1 << 38;

/// What a leaf says of one chunk, in eight bytes: a hole, or a slot. OWN: no other node refers to the slot, as long as the
/// leaf's tenure is its volume's. PART: only some blocks of the chunk are in the slot, see [`Part`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entry(u64);

impl Entry {
    pub const HOLE: Self = Self(0);
    const OWN: u64 = 1 << 63;
    const PART: u64 = 1 << 62;

    pub fn of(slot: Slot) -> Self {
        Self((u64::from(slot.file) << 38) | slot.index)
    }

    pub fn slot(self) -> Option<Slot> {
        let value = self.0 & !(Self::OWN | Self::PART);
        (value != 0).then_some(Slot { file: (value >> 38) as u32, index: value & (MAX_INDEX - 1) })
    }

    pub fn own(self) -> bool {
        self.0 & Self::OWN != 0
    }

    pub fn is_part(self) -> bool {
        self.0 & Self::PART != 0
    }

    pub fn with_own(self, own: bool) -> Self {
        if own { Self(self.0 | Self::OWN) } else { Self(self.0 & !Self::OWN) }
    }

    pub fn with_part(self, part: bool) -> Self {
        if part { Self(self.0 | Self::PART) } else { Self(self.0 & !Self::PART) }
    }
}

/// A chunk that is spread over several slots: the blocks whose bit is set are in the entry's slot, each of the rest is in
/// one of `others`. So a shared chunk of which one block is overwritten need not be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub blocks: u64,
    pub others: Arc<[Piece]>,
}

impl Part {
    /// None if all is in the entry's slot. What of `others` is among `blocks` counts no more.
    pub fn over(blocks: u64, others: impl IntoIterator<Item = Piece>) -> Option<Self> {
        let left = |piece: Piece| Some(Piece { blocks: piece.blocks & !blocks, ..piece }).filter(|piece| piece.blocks != 0);
        let others: Vec<Piece> = others.into_iter().filter_map(left).collect();
        (!others.is_empty()).then(|| Self { blocks, others: others.into() })
    }
}

/// Blocks of a chunk that are in the same slot, each at its own place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Piece {
    at: Entry,
    pub blocks: u64,
}

impl Piece {
    pub fn new(slot: Slot, blocks: u64) -> Self {
        Self { at: Entry::of(slot), blocks }
    }

    pub fn slot(&self) -> Slot {
        self.at.slot().expect("a piece is never in a hole")
    }
}

/// Where the counts of slots are kept.
pub trait Counts {
    fn add(&self, file: u32, slots: Range<u64>, delta: i32);
}

/// For when they are made anew afterwards.
#[derive(Debug)]
pub struct Uncounted;

impl Counts for Uncounted {
    fn add(&self, _file: u32, _slots: Range<u64>, _delta: i32) {}
}

#[derive(Debug, Default)]
pub enum Child<N> {
    #[default]
    Hole,
    /// Each chunk below is in the slot of this file that has the chunk's own number.
    Identity(u32),
    Node(Arc<N>),
}

impl<N> Clone for Child<N> {
    fn clone(&self) -> Self {
        match self {
            Self::Hole => Self::Hole,
            Self::Identity(file) => Self::Identity(*file),
            Self::Node(node) => Self::Node(node.clone()),
        }
    }
}

/// A node of any height. `at` is the number of the first chunk below it.
pub trait Node: Sized {
    /// Chunks below it (of a top node: none such).
    const SPAN: u64;

    fn refs(&self) -> &AtomicU32;
    /// The same contents in other memory, with one logical holder.
    fn duplicate(&self) -> Self;
    /// What this node refers to directly: nodes below, slots.
    fn refer(&self, at: u64, visit: &mut dyn FnMut(Reference<'_>));
    /// Memory of the node itself. Bytes.
    fn held_bytes(&self) -> u64;
    /// A node that says the same as a child that is a hole or identity.
    fn spread(child: &Child<Self>, at: u64) -> Self;
}

/// One reference of a node.
#[derive(Debug)]
pub enum Reference<'a> {
    Middle(&'a Arc<Middle>, u64),
    Leaf(&'a Arc<Leaf>, u64),
    Slots(u32, Range<u64>),
}

impl Reference<'_> {
    fn node_refs(&self) -> Option<&AtomicU32> {
        match self {
            Self::Middle(node, _) => Some(node.refs()),
            Self::Leaf(node, _) => Some(node.refs()),
            Self::Slots(..) => None,
        }
    }
}

fn refer_once<N: Node>(node: &N, at: u64, counts: &dyn Counts, delta: i32) {
    node.refer(at, &mut |reference| match (&reference, delta) {
        (Reference::Slots(file, slots), _) => counts.add(*file, slots.clone(), delta),
        (_, 1) => drop(reference.node_refs().map(|refs| refs.fetch_add(1, Ordering::AcqRel))),
        _ => drop(reference.node_refs().map(|refs| refs.fetch_sub(1, Ordering::AcqRel))),
    });
}

/// The node, to be changed. Its holder must be the caller's own: ownership goes from the top downwards.
pub fn own<'a, N: Node>(node: &'a mut Arc<N>, at: u64, counts: &dyn Counts) -> &'a mut N {
    if Arc::get_mut(node).is_none() {
        let fresh = node.duplicate();
        if node.refs().load(Ordering::Acquire) > 1 {
            refer_once(&fresh, at, counts, 1);
            if node.refs().fetch_sub(1, Ordering::AcqRel) == 1 {
                // The others let go meanwhile: what it referred to has passed to the copy.
                refer_once(&fresh, at, counts, -1);
            }
        }
        *node = Arc::new(fresh);
    }
    Arc::get_mut(node).expect("made a moment ago")
}

/// A child as a node, to be changed.
pub fn own_child<'a, N: Node>(child: &'a mut Child<N>, at: u64, counts: &dyn Counts) -> &'a mut N {
    if !matches!(child, Child::Node(_)) {
        *child = Child::Node(Arc::new(N::spread(child, at)));
    }
    match child {
        Child::Node(node) => own(node, at, counts),
        _ => unreachable!("made a node above"),
    }
}

#[derive(Debug)]
pub struct Leaf {
    refs: AtomicU32,
    /// Of the volume for which the OWN marks were set.
    pub tenure: u64,
    pub entries: [Entry; LEAF_SLOTS as usize],
    /// What its slots occupied when that was last counted and could not change any more; all ones: not known.
    occupied: AtomicU64,
    /// Of the entries that are marked PART, in order of their indexes.
    pub parts: Vec<(u16, Part)>,
}

impl Leaf {
    pub fn new(entries: [Entry; LEAF_SLOTS as usize], parts: Vec<(u16, Part)>) -> Self {
        Self { refs: AtomicU32::new(1), tenure: 0, entries, occupied: AtomicU64::new(u64::MAX), parts }
    }

    pub fn part(&self, index: usize) -> Option<&Part> {
        if !self.entries[index].is_part() {
            return None;
        }
        let found = self.parts.binary_search_by_key(&index, |(at, _)| usize::from(*at));
        found.ok().map(|place| &self.parts[place].1)
    }

    /// The slots that an entry refers to: its own, and those of its other pieces.
    pub fn slots(&self, index: usize) -> impl Iterator<Item = Slot> + '_ {
        let others = self.part(index).into_iter().flat_map(|part| part.others.iter().map(Piece::slot));
        self.entries[index].slot().into_iter().chain(others)
    }

    /// Bytes of its slots that are not holes, as `count` tells them. Slots that no volume writes in place stay as they are,
    /// so that is counted once; `tenure` is the asking volume's.
    pub fn occupied_bytes(&self, tenure: u64, count: &mut dyn FnMut(u32, Range<u64>) -> u64) -> u64 {
        let settled = self.tenure != tenure || !self.entries.iter().any(|entry| entry.own());
        let known = self.occupied.load(Ordering::Relaxed);
        if settled && known != u64::MAX {
            return known;
        }
        let mut bytes = 0;
        slot_runs(&self.entries, &mut |file, slots| bytes += count(file, slots));
        for_each_piece(&self.parts, &mut |slot| bytes += count(slot.file, slot.index..slot.index + 1));
        // Another volume may still write in place through it; then its own tenure is the leaf's.
        if settled && self.refs.load(Ordering::Acquire) > 1 {
            self.occupied.store(bytes, Ordering::Relaxed);
        }
        bytes
    }

    pub fn set(&mut self, index: usize, entry: Entry, part: Option<Part>) {
        *self.occupied.get_mut() = u64::MAX;
        self.entries[index] = entry.with_part(part.is_some());
        let found = self.parts.binary_search_by_key(&index, |(at, _)| usize::from(*at));
        match (found, part) {
            (Ok(place), Some(part)) => self.parts[place].1 = part,
            (Ok(place), None) => drop(self.parts.remove(place)),
            (Err(place), Some(part)) => self.parts.insert(place, (index as u16, part)),
            (Err(_), None) => {}
        }
    }

    /// Marks made for another tenure mean nothing.
    pub fn adopt(&mut self, tenure: u64) {
        *self.occupied.get_mut() = u64::MAX;
        if self.tenure != tenure {
            self.tenure = tenure;
            self.entries.iter_mut().for_each(|entry| *entry = entry.with_own(false));
        }
    }
}

/// The slots of the pieces that are not in the entries' own.
pub fn for_each_piece(parts: &[(u16, Part)], visit: &mut dyn FnMut(Slot)) {
    parts.iter().flat_map(|(_, part)| part.others.iter()).for_each(|piece| visit(piece.slot()));
}

/// Consecutive slots of one file become one range.
pub fn slot_runs(entries: &[Entry], visit: &mut dyn FnMut(u32, Range<u64>)) {
    let mut run: Option<(u32, Range<u64>)> = None;
    for slot in entries.iter().filter_map(|entry| entry.slot()) {
        match &mut run {
            Some((file, range)) if *file == slot.file && range.end == slot.index => range.end += 1,
            _ => {
                if let Some((file, range)) = run.take() {
                    visit(file, range);
                }
                run = Some((slot.file, slot.index..slot.index + 1));
            }
        }
    }
    if let Some((file, range)) = run {
        visit(file, range);
    }
}

impl Node for Leaf {
    const SPAN: u64 = LEAF_SLOTS;

    fn refs(&self) -> &AtomicU32 {
        &self.refs
    }

    fn duplicate(&self) -> Self {
        // Marks stay: if this is a move they stay true, and a copy comes under another tenure before it is used.
        Self { tenure: self.tenure, ..Self::new(self.entries, self.parts.clone()) }
    }

    fn refer(&self, _at: u64, visit: &mut dyn FnMut(Reference<'_>)) {
        slot_runs(&self.entries, &mut |file, slots| visit(Reference::Slots(file, slots)));
        for_each_piece(&self.parts, &mut |slot| visit(Reference::Slots(slot.file, slot.index..slot.index + 1)));
    }

    fn held_bytes(&self) -> u64 {
        // Lists of pieces are shared between copies of a leaf.
        let list = |part: &Part| size_of_val(&*part.others) / Arc::strong_count(&part.others);
        let lists: usize = self.parts.iter().map(|(_, part)| list(part)).sum();
        (size_of::<Self>() + self.parts.capacity() * size_of::<(u16, Part)>() + lists) as u64
    }

    fn spread(child: &Child<Self>, at: u64) -> Self {
        let mut entries = [Entry::HOLE; LEAF_SLOTS as usize];
        if let Child::Identity(file) = child {
            entries.iter_mut().zip(at..).for_each(|(entry, index)| *entry = Entry::of(Slot { file: *file, index }));
        }
        Self::new(entries, Vec::new())
    }
}

#[derive(Debug)]
pub struct Middle {
    refs: AtomicU32,
    pub children: Vec<Child<Leaf>>,
}

impl Middle {
    pub fn new(children: Vec<Child<Leaf>>) -> Self {
        Self { refs: AtomicU32::new(1), children }
    }
}

impl Node for Middle {
    const SPAN: u64 = MIDDLE_SLOTS;

    fn refs(&self) -> &AtomicU32 {
        &self.refs
    }

    fn duplicate(&self) -> Self {
        Self::new(self.children.clone())
    }

    fn refer(&self, at: u64, visit: &mut dyn FnMut(Reference<'_>)) {
        for (child, at) in self.children.iter().zip((at..).step_by(LEAF_SLOTS as usize)) {
            match child {
                Child::Hole => {}
                Child::Identity(file) => visit(Reference::Slots(*file, at..at + LEAF_SLOTS)),
                Child::Node(leaf) => visit(Reference::Leaf(leaf, at)),
            }
        }
    }

    fn held_bytes(&self) -> u64 {
        (size_of::<Self>() + self.children.capacity() * size_of::<Child<Leaf>>()) as u64
    }

    fn spread(child: &Child<Self>, _at: u64) -> Self {
        let below = match child {
            Child::Identity(file) => Child::Identity(*file),
            _ => Child::Hole,
        };
        Self::new(vec![below; (MIDDLE_SLOTS / LEAF_SLOTS) as usize])
    }
}

#[derive(Debug)]
pub struct Top {
    refs: AtomicU32,
    pub children: Vec<Child<Middle>>,
}

impl Top {
    pub fn new(children: Vec<Child<Middle>>) -> Self {
        Self { refs: AtomicU32::new(1), children }
    }

    /// Of a volume of so many chunks, all of them in `file` at their own places.
    pub fn identity(file: u32, chunks: u64) -> Self {
        Self::new(vec![Child::Identity(file); chunks.div_ceil(MIDDLE_SLOTS) as usize])
    }

    pub fn find(&self, chunk: u64) -> Found<'_> {
        match self.children.get((chunk / MIDDLE_SLOTS) as usize) {
            None | Some(Child::Hole) => Found::Hole(chunk - chunk % MIDDLE_SLOTS + MIDDLE_SLOTS),
            Some(Child::Identity(file)) => Found::Identity(*file, chunk - chunk % MIDDLE_SLOTS + MIDDLE_SLOTS),
            Some(Child::Node(middle)) => match &middle.children[((chunk % MIDDLE_SLOTS) / LEAF_SLOTS) as usize] {
                Child::Hole => Found::Hole(chunk - chunk % LEAF_SLOTS + LEAF_SLOTS),
                Child::Identity(file) => Found::Identity(*file, chunk - chunk % LEAF_SLOTS + LEAF_SLOTS),
                Child::Node(leaf) => Found::Leaf(leaf, (chunk % LEAF_SLOTS) as usize),
            },
        }
    }
}

impl Top {
    /// Does this map alone lead to what it says of a chunk in a leaf?
    pub fn is_alone(&self, chunk: u64) -> bool {
        let once = |refs: &AtomicU32| refs.load(Ordering::Acquire) == 1;
        let Some(Child::Node(middle)) = self.children.get((chunk / MIDDLE_SLOTS) as usize) else { return false };
        let Child::Node(leaf) = &middle.children[((chunk % MIDDLE_SLOTS) / LEAF_SLOTS) as usize] else { return false };
        once(&self.refs) && once(&middle.refs) && once(&leaf.refs)
    }
}

/// What the map says of a chunk. A number is that of the first chunk for which it may say something else.
#[derive(Debug)]
pub enum Found<'a> {
    Hole(u64),
    Identity(u32, u64),
    Leaf(&'a Leaf, usize),
}

impl Node for Top {
    const SPAN: u64 = u64::MAX;

    fn refs(&self) -> &AtomicU32 {
        &self.refs
    }

    fn duplicate(&self) -> Self {
        Self::new(self.children.clone())
    }

    fn refer(&self, _at: u64, visit: &mut dyn FnMut(Reference<'_>)) {
        for (child, at) in self.children.iter().zip((0..).step_by(MIDDLE_SLOTS as usize)) {
            match child {
                Child::Hole => {}
                Child::Identity(file) => visit(Reference::Slots(*file, at..at + MIDDLE_SLOTS)),
                Child::Node(middle) => visit(Reference::Middle(middle, at)),
            }
        }
    }

    fn held_bytes(&self) -> u64 {
        (size_of::<Self>() + self.children.capacity() * size_of::<Child<Middle>>()) as u64
    }

    fn spread(_child: &Child<Self>, _at: u64) -> Self {
        unreachable!("a top node is nobody's child")
    }
}

/// The leaf of a chunk, to be changed by the holder of `top`; its marks are of this tenure.
pub fn leaf_of<'a>(top: &'a mut Arc<Top>, chunk: u64, tenure: u64, counts: &dyn Counts) -> &'a mut Leaf {
    let (region, within) = ((chunk / MIDDLE_SLOTS) as usize, chunk % MIDDLE_SLOTS);
    let at = chunk - within;
    let top = own(top, 0, counts);
    if top.children.len() <= region {
        top.children.resize(region + 1, Child::Hole);
    }
    let middle = own_child(&mut top.children[region], at, counts);
    let leaf = own_child(&mut middle.children[(within / LEAF_SLOTS) as usize], chunk - chunk % LEAF_SLOTS, counts);
    leaf.adopt(tenure);
    leaf
}

/// One more logical holder of the same map.
pub fn share(top: &Arc<Top>) -> Arc<Top> {
    top.refs().fetch_add(1, Ordering::AcqRel);
    top.clone()
}
