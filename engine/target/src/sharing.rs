//! The control requests about what volumes share: snapshot, rollback, difference, usage.

use crate::api::{refusal, volume_id, volume_reply};
use crate::engine::Engine;
use gespann_control::messages::{self as m, Code, Refusal, Reply};
use gespann_store::{Share, VolumeId};
use std::collections::HashSet;

/// Of one instant: writes to all of them wait meanwhile.
const MAX_PAIRS: usize = 1024;
/// In one answer: it must fit a line.
const MAX_EXTENTS: u64 = 100_000;

fn shares(pairs: &[m::SharePair]) -> Result<Vec<Share>, Refusal> {
    if pairs.is_empty() || pairs.len() > MAX_PAIRS {
        return Err(Refusal::bad_request(format!("a snapshot is of 1 to {MAX_PAIRS} volumes, not of {}", pairs.len())));
    }
    let (mut named, mut shares) = (HashSet::new(), Vec::new());
    for pair in pairs {
        let share = Share { source: volume_id(&pair.source)?, id: volume_id(&pair.volume)?, thick: pair.thick };
        if !named.insert(share.id) {
            return Err(Refusal::bad_request(format!("volume {} is to be made twice", share.id)));
        }
        shares.push(share);
    }
    match shares.iter().find(|share| named.contains(&share.source)) {
        Some(share) => Err(Refusal::bad_request(format!("volume {} cannot be both source and snapshot", share.source))),
        None => Ok(shares),
    }
}

pub fn snapshot(engine: &Engine, request: &m::VolumeSnapshot) -> Result<Reply, Refusal> {
    let shared = engine.store.snapshot(&shares(&request.pairs)?).map_err(refusal)?;
    Ok(Reply::Snapshot {
        volumes: shared.volumes.iter().map(volume_reply).collect(),
        pause_us: shared.pause.as_micros().try_into().unwrap_or(u64::MAX),
    })
}

pub fn roll_back(engine: &Engine, request: &m::VolumeRollback) -> Result<Reply, Refusal> {
    let (id, from) = (volume_id(&request.volume)?, volume_id(&request.source)?);
    if id == from {
        return Err(Refusal::bad_request(format!("volume {id} cannot be rolled back to itself")));
    }
    // Held while rolling back: the target cannot go online, so nobody can log in meanwhile.
    let policy = engine.policy();
    let export = policy.exports.get(&id);
    let online = export.is_some_and(|export| export.target().online);
    if online || engine.sessions.of_volume(id).iter().any(|entry| entry.ticket.alive()) {
        return Err(Refusal::new(Code::Busy, format!("volume {id} is online or has sessions: take it offline first")));
    }
    if !engine.gate(id).idle() {
        return Err(Refusal::new(Code::Busy, format!("commands on volume {id} are under way: drain it first")));
    }
    check_block_size(engine, from, export.map_or(512, |export| u64::from(export.target().block_size)))?;
    let info = engine.store.roll_back(id, from).map_err(refusal)?;
    if let Some(export) = export {
        export.refresh();
    }
    Ok(Reply::Volume(volume_reply(&info)))
}

fn check_block_size(engine: &Engine, from: VolumeId, block_size: u64) -> Result<(), Refusal> {
    let size_bytes = engine.store.info(from).map_err(refusal)?.size_bytes;
    if size_bytes % block_size != 0 {
        return Err(Refusal::bad_request(format!("the size of volume {from} is no multiple of {block_size}")));
    }
    Ok(())
}

pub fn differences(engine: &Engine, request: &m::VolumeDiff) -> Result<Reply, Refusal> {
    if request.limit == 0 || request.limit > MAX_EXTENTS {
        return Err(Refusal::bad_request(format!("limit must be 1 to {MAX_EXTENTS}")));
    }
    let (older, newer) = (volume_id(&request.older)?, volume_id(&request.newer)?);
    let found = engine.store.differences(older, newer, request.offset, request.limit as usize).map_err(refusal)?;
    let extents = found.ranges.iter().map(|&(offset, length)| m::DiffExtent { offset, length }).collect();
    Ok(Reply::Differences { extents, next_offset: found.next })
}

pub fn usage(engine: &Engine, request: &m::VolumeName) -> Result<Reply, Refusal> {
    let usage = engine.store.usage(volume_id(&request.volume)?).map_err(refusal)?;
    Ok(Reply::Usage { mapped_bytes: usage.mapped_bytes, exclusive_bytes: usage.exclusive_bytes })
}

pub fn added(engine: &Engine, request: &m::VolumeAdded) -> Result<Reply, Refusal> {
    if request.than.len() > MAX_PAIRS {
        return Err(Refusal::bad_request(format!("than can name {MAX_PAIRS} volumes at most")));
    }
    let than = request.than.iter().map(|text| volume_id(text)).collect::<Result<Vec<_>, _>>()?;
    let added_bytes = engine.store.added_bytes(volume_id(&request.volume)?, &than).map_err(refusal)?;
    Ok(Reply::Added { added_bytes })
}
