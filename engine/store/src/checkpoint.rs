//! The whole state in one file, written beside the work and read at start.
//!
//! `DATA/map/checkpoint-<n>` is a sequence of frames (see `journal::frame`), numbered from 0: a head, the data files, the
//! nodes of the maps (each once, after those below it), the volumes, and an end that says how many frames there were.
//! It is written under the name `new-<n>`, synced, and then given its name: so it is whole or not there.

use crate::VolumeId;
use crate::disk::{Disk, DiskFile};
use crate::journal::frame;
use crate::journal::read::FrameReader;
use crate::journal::record::{FileAdded, Place, VolumeNumber, part_beside};
use crate::map::nodes::{Child, Entry, Leaf, Middle, Part, Piece, Slot, Top};
use crate::map::{LEAF_SLOTS, MIDDLE_SLOTS};
use crate::state::{State, VolumeState};
use crate::volume::read::blocks_of;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

pub const VERSION: u32 = 4;
const OLDEST: u32 = 1;
const PIECE_BYTES: usize = 1 << 20;

pub fn path(number: u64) -> String {
    format!("map/checkpoint-{number}")
}

fn new_path(number: u64) -> String {
    format!("map/new-{number}")
}

/// A child of a node: a hole, identity with a file, or a node by its place among those of its height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum ChildItem {
    Hole,
    Identity(u32),
    Node(u32),
}

/// Blocks of a leaf's chunk that are not in its own slot but in this one. Until version 3: all but these, and one such slot
/// at most.
#[derive(Debug, Serialize, Deserialize)]
struct PieceItem {
    index: u16,
    place: Place,
    blocks: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct VolumeItem {
    number: VolumeNumber,
    id: VolumeId,
    size_bytes: u64,
    thick: bool,
    raw: bool,
    origin: Option<VolumeId>,
    reservations: Option<String>,
    base: Option<u32>,
    /// Version 1 knew one at most, with the same bytes.
    spills: Vec<u32>,
    top: u32,
}

#[derive(Debug, Serialize, Deserialize)]
enum Item {
    Head {
        version: u32,
        chunk_bytes: u64,
        next_volume: VolumeNumber,
        next_file: u32,
        /// The latest record that it contains.
        record: u64,
    },
    File(FileAdded),
    /// Runs of consecutive slots (or of holes), and what of spread chunks is in other slots, in order of their indexes.
    Leaf {
        runs: Vec<(u16, Place)>,
        pieces: Vec<PieceItem>,
    },
    Middle(Vec<(u16, ChildItem)>),
    Top(Vec<ChildItem>),
    Volume(VolumeItem),
    End {
        frames: u64,
    },
    /// What is reserved in the volume's base file is to be given back. Since version 3.
    Reserving(VolumeNumber),
}

struct Writer {
    file: Arc<dyn DiskFile>,
    offset: u64,
    buffer: Vec<u8>,
    frames: u64,
    leaves: HashMap<usize, u32>,
    middles: HashMap<usize, u32>,
    tops: HashMap<usize, u32>,
}

impl Writer {
    fn put(&mut self, item: &Item) -> io::Result<()> {
        frame::put(&mut self.buffer, self.frames, item);
        self.frames += 1;
        if self.buffer.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn leaf(&mut self, leaf: &Arc<Leaf>) -> io::Result<u32> {
        let key = Arc::as_ptr(leaf) as usize;
        if let Some(place) = self.leaves.get(&key) {
            return Ok(*place);
        }
        let mut runs: Vec<(u16, Place)> = Vec::new();
        for entry in &leaf.entries {
            let place = Place::of(entry.slot());
            match runs.last_mut() {
                Some((count, first)) if follows(*first, *count, place) => *count += 1,
                _ => runs.push((1, place)),
            }
        }
        let items = |(index, part): &(u16, Part)| -> Vec<PieceItem> {
            let item = |piece: &Piece| PieceItem { index: *index, place: Place::of(Some(piece.slot())), blocks: piece.blocks };
            part.others.iter().map(item).collect()
        };
        self.put(&Item::Leaf { runs, pieces: leaf.parts.iter().flat_map(items).collect() })?;
        let place = self.leaves.len() as u32;
        self.leaves.insert(key, place);
        Ok(place)
    }

    fn middle(&mut self, middle: &Arc<Middle>) -> io::Result<u32> {
        let key = Arc::as_ptr(middle) as usize;
        if let Some(place) = self.middles.get(&key) {
            return Ok(*place);
        }
        let mut runs: Vec<(u16, ChildItem)> = Vec::new();
        for child in &middle.children {
            let item = match child {
                Child::Hole => ChildItem::Hole,
                Child::Identity(file) => ChildItem::Identity(*file),
                Child::Node(leaf) => ChildItem::Node(self.leaf(leaf)?),
            };
            match runs.last_mut() {
                Some((count, last)) if *last == item => *count += 1,
                _ => runs.push((1, item)),
            }
        }
        self.put(&Item::Middle(runs))?;
        let place = self.middles.len() as u32;
        self.middles.insert(key, place);
        Ok(place)
    }

    fn top(&mut self, top: &Arc<Top>) -> io::Result<u32> {
        let key = Arc::as_ptr(top) as usize;
        if let Some(place) = self.tops.get(&key) {
            return Ok(*place);
        }
        let mut items = Vec::with_capacity(top.children.len());
        for child in &top.children {
            items.push(match child {
                Child::Hole => ChildItem::Hole,
                Child::Identity(file) => ChildItem::Identity(*file),
                Child::Node(middle) => ChildItem::Node(self.middle(middle)?),
            });
        }
        self.put(&Item::Top(items))?;
        let place = self.tops.len() as u32;
        self.tops.insert(key, place);
        Ok(place)
    }
}

fn follows(first: Place, count: u16, next: Place) -> bool {
    match (first.slot(), next.slot()) {
        (None, None) => true,
        (Some(first), Some(next)) => first.file == next.file && first.index + u64::from(count) == next.index,
        _ => false,
    }
}

/// Writes the state that was reached with record `record`, and makes it durable under its name. Its length in bytes.
pub fn write(disk: &dyn Disk, number: u64, state: &State, record: u64) -> io::Result<u64> {
    let mut writer = Writer {
        file: disk.create(&new_path(number))?,
        offset: 0,
        buffer: Vec::new(),
        frames: 0,
        leaves: HashMap::new(),
        middles: HashMap::new(),
        tops: HashMap::new(),
    };
    let (next_volume, next_file) = (state.next_volume, state.next_file);
    writer.put(&Item::Head { version: VERSION, chunk_bytes: state.chunk_bytes, next_volume, next_file, record })?;
    for file in state.files.values() {
        writer.put(&Item::File(file.clone()))?;
    }
    for volume in state.volumes.values() {
        let top = writer.top(&volume.top)?;
        writer.put(&Item::Volume(VolumeItem {
            number: volume.number,
            id: volume.id,
            size_bytes: volume.size_bytes,
            thick: volume.thick,
            raw: volume.raw,
            origin: volume.origin,
            reservations: volume.reservations.clone(),
            base: volume.base,
            spills: volume.spills.clone(),
            top,
        }))?;
        if volume.reserving {
            writer.put(&Item::Reserving(volume.number))?;
        }
    }
    let frames = writer.frames;
    writer.put(&Item::End { frames })?;
    writer.flush()?;
    writer.file.sync()?;
    disk.rename(&new_path(number), &path(number))?;
    disk.sync_folder("map")?;
    Ok(writer.offset)
}

struct Reader {
    version: u32,
    /// The blocks of a chunk.
    all: u64,
    /// So that copies of a leaf share them again.
    lists: HashSet<Arc<[Piece]>>,
    leaves: Vec<Arc<Leaf>>,
    middles: Vec<Arc<Middle>>,
    tops: Vec<Arc<Top>>,
}

impl Reader {
    fn leaf(&mut self, runs: &[(u16, Place)], pieces: &[PieceItem]) -> Option<()> {
        let mut entries = [Entry::HOLE; LEAF_SLOTS as usize];
        let mut at = 0;
        for (count, place) in runs {
            for step in 0..*count {
                let slot = place.slot().map(|slot| Slot { index: slot.index + u64::from(step), ..slot });
                *entries.get_mut(at)? = slot.map_or(Entry::HOLE, Entry::of);
                at += 1;
            }
        }
        let mut leaf = Leaf::new(entries, Vec::new());
        for items in pieces.chunk_by(|one, next| one.index == next.index) {
            let index = usize::from(items[0].index);
            let entry = *entries.get(index)?;
            let part = self.part(items)?;
            leaf.set(index, entry, Some(part));
        }
        self.leaves.push(Arc::new(leaf));
        (at == LEAF_SLOTS as usize).then_some(())
    }

    fn part(&mut self, items: &[PieceItem]) -> Option<Part> {
        let elsewhere = |item: &PieceItem| if self.version < 4 { self.all & !item.blocks } else { item.blocks };
        let pieces: Option<Vec<Piece>> =
            items.iter().map(|item| Some(Piece::new(item.place.slot()?, elsewhere(item)))).collect();
        let part = part_beside(self.all, pieces?.into_iter())?;
        if let Some(known) = self.lists.get(&part.others) {
            return Some(Part { others: known.clone(), ..part });
        }
        self.lists.insert(part.others.clone());
        Some(part)
    }

    fn middle(&mut self, runs: &[(u16, ChildItem)]) -> Option<()> {
        let mut children = Vec::with_capacity((MIDDLE_SLOTS / LEAF_SLOTS) as usize);
        for (count, item) in runs {
            let child = child_of(*item, &self.leaves)?;
            children.extend(std::iter::repeat_n(child, usize::from(*count)));
        }
        let whole = children.len() as u64 == MIDDLE_SLOTS / LEAF_SLOTS;
        self.middles.push(Arc::new(Middle::new(children)));
        whole.then_some(())
    }

    fn top(&mut self, items: &[ChildItem]) -> Option<()> {
        let children = items.iter().map(|item| child_of(*item, &self.middles)).collect::<Option<Vec<_>>>()?;
        self.tops.push(Arc::new(Top::new(children)));
        Some(())
    }
}

fn child_of<N>(item: ChildItem, nodes: &[Arc<N>]) -> Option<Child<N>> {
    Some(match item {
        ChildItem::Hole => Child::Hole,
        ChildItem::Identity(file) => Child::Identity(file),
        ChildItem::Node(place) => Child::Node(nodes.get(place as usize)?.clone()),
    })
}

/// What was read: the state, and the latest record in it. An error in words: the file is damaged, or of a later version.
pub fn read(disk: &dyn Disk, number: u64) -> io::Result<Result<(State, u64), String>> {
    let mut reader = FrameReader::new(disk.open(&path(number))?)?;
    let (version, all, lists) = (VERSION, 0, HashSet::new());
    let mut nodes = Reader { version, all, lists, leaves: Vec::new(), middles: Vec::new(), tops: Vec::new() };
    let mut state: Option<(State, u64)> = None;
    let mut frames = 0;
    loop {
        let damaged = |what: &str| Ok(Err(format!("frame {frames} {what}")));
        let Some((number, payload)) = reader.next()? else { return damaged("cannot be read") };
        let Some(item) = frame::decode::<Item>(&payload).filter(|_| number == frames) else {
            return damaged("is not the one expected");
        };
        let sound = match (item, &mut state) {
            (Item::Head { version: version @ OLDEST..=VERSION, chunk_bytes, next_volume, next_file, record }, None) => {
                (nodes.version, nodes.all) = (version, blocks_of(0, chunk_bytes));
                state = Some((State { next_volume, next_file, ..State::new(chunk_bytes) }, record));
                Some(())
            }
            (Item::Head { version, .. }, None) => return Ok(Err(format!("it is of version {version}, not {VERSION}"))),
            (Item::File(file), Some((state, _))) => state.files.insert(file.number, file).is_none().then_some(()),
            (Item::Leaf { runs, pieces }, Some(_)) => nodes.leaf(&runs, &pieces),
            (Item::Middle(runs), Some(_)) => nodes.middle(&runs),
            (Item::Top(items), Some(_)) => nodes.top(&items),
            (Item::Volume(item), Some((state, _))) => add_volume(state, item, &nodes.tops),
            (Item::Reserving(number), Some((state, _))) => state.volumes.get_mut(&number).map(|volume| volume.reserving = true),
            (Item::End { frames: all }, Some(_)) if all == frames => break,
            _ => None,
        };
        if sound.is_none() {
            return damaged("does not fit");
        }
        frames += 1;
    }
    Ok(state.ok_or_else(|| "it is empty".to_owned()))
}

fn add_volume(state: &mut State, item: VolumeItem, tops: &[Arc<Top>]) -> Option<()> {
    let volume = VolumeState {
        number: item.number,
        id: item.id,
        size_bytes: item.size_bytes,
        thick: item.thick,
        reserving: false,
        raw: item.raw,
        origin: item.origin,
        reservations: item.reservations,
        base: item.base,
        spills: item.spills,
        top: tops.get(item.top as usize)?.clone(),
    };
    state.volumes.insert(item.number, volume).is_none().then_some(())
}
