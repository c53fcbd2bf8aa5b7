//! The requests of the control socket, each as one call. Decode and encode are in `gespann_control`.

use crate::engine::Engine;
use crate::log;
use crate::sessions::{SessionEntry, attention};
use crate::sharing;
use gespann_control::messages::{self as m, Code, PROTOCOL, Refusal, Reply, Request, VERSION};
use gespann_store::{Limit, Pool, StoreError, VolumeId, VolumeInfo};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub fn refusal(error: StoreError) -> Refusal {
    let code = match error {
        StoreError::NotFound(_) => Code::NotFound,
        StoreError::Exists(_) => Code::Exists,
        StoreError::NoSpace(_) => Code::NoSpace,
        StoreError::BadSize(_) => Code::BadRequest,
        StoreError::Io(_) => Code::Io,
    };
    Refusal::new(code, error.to_string())
}

pub fn volume_id(text: &str) -> Result<VolumeId, Refusal> {
    text.parse().map_err(|reason: String| Refusal::bad_request(reason))
}

pub fn volume_reply(info: &VolumeInfo) -> m::VolumeInfo {
    m::VolumeInfo {
        volume: info.volume.to_string(),
        size_bytes: info.size_bytes,
        allocated_bytes: info.allocated_bytes,
        thick: info.thick,
        origin: info.origin.map(|id| id.to_string()),
    }
}

fn session_reply(entry: &SessionEntry) -> m::Session {
    let age_ms = entry.age_ms();
    m::Session {
        session: entry.ticket.session,
        volume: entry.export.id.to_string(),
        initiator: entry.initiator.clone(),
        chap_user: entry.chap_user.clone(),
        address: entry.address.to_string(),
        generation: entry.ticket.generation,
        connected_ms: age_ms,
        idle_ms: age_ms.saturating_sub(entry.last_pdu_ms.load(Ordering::Relaxed)),
        in_flight: entry.in_flight.load(Ordering::Relaxed).into(),
        read_bytes: entry.read_bytes.load(Ordering::Relaxed),
        written_bytes: entry.written_bytes.load(Ordering::Relaxed),
    }
}

/// May take long: copies, reservations, waiting.
pub fn is_slow(request: &Request) -> bool {
    use Request as R;
    matches!(
        request,
        R::VolumeCreate(_)
            | R::VolumeDelete(_)
            | R::VolumeResize(_)
            | R::VolumeClone(_)
            | R::VolumeThick(_)
            | R::VolumeSnapshot(_)
            | R::VolumeRollback(_)
            | R::VolumeDiff(_)
            | R::VolumeUsage(_)
            | R::VolumeAdded(_)
            | R::VolumeDrain(_)
            | R::SpacePools(_)
    )
}

pub fn handle(engine: &Arc<Engine>, request: Request) -> Result<Reply, Refusal> {
    let done = |()| Reply::Empty {};
    match request {
        Request::Hello(hello) => self::hello(engine, &hello),
        Request::Configure(request) => engine.configure(request).map(done),
        Request::TargetPut(request) => engine.put_target(request.target).map(done),
        Request::TargetRemove(request) => volume_id(&request.volume).map(|id| engine.remove_target(id)).map(done),
        Request::ChapPut(user) => engine.put_chap_user(&user).map(done),
        Request::ChapRemove(request) => {
            engine.remove_chap_user(&request.user);
            Ok(Reply::Empty {})
        }
        Request::ChapMutual(request) => engine.set_mutual(request.credential.as_ref()).map(done),
        Request::VolumeCreate(request) => {
            volume_answer(engine.store.create(volume_id(&request.volume)?, request.size_bytes, request.thick))
        }
        Request::VolumeDelete(request) => delete_volume(engine, volume_id(&request.volume)?).map(done),
        Request::VolumeResize(request) => resize_volume(engine, volume_id(&request.volume)?, request.size_bytes),
        Request::VolumeClone(request) => {
            let (source, volume) = (volume_id(&request.source)?, volume_id(&request.volume)?);
            volume_answer(engine.store.clone_volume(source, volume, request.thick))
        }
        Request::VolumeThick(request) => {
            let id = volume_id(&request.volume)?;
            let answer = volume_answer(engine.store.set_thick(id, request.thick));
            refresh(engine, id, None);
            answer
        }
        Request::VolumeSnapshot(request) => sharing::snapshot(engine, &request),
        Request::VolumeRollback(request) => sharing::roll_back(engine, &request),
        Request::VolumeDiff(request) => sharing::differences(engine, &request),
        Request::VolumeUsage(request) => sharing::usage(engine, &request),
        Request::VolumeAdded(request) => sharing::added(engine, &request),
        Request::VolumeLimit(request) => {
            let id = volume_id(&request.volume)?;
            engine.store.set_volume_limit(id, request.max_in_use_bytes).map_err(refusal).map(done)
        }
        Request::VolumeList(request) => list_volumes(engine, request.volume.as_deref()),
        Request::Space(_) => space(engine),
        Request::SpaceLimit(request) => limit_space(engine, &request).map(done),
        Request::SpacePools(request) => set_pools(engine, &request).map(done),
        Request::SessionList(request) => list_sessions(engine, request.volume.as_deref()),
        Request::SessionDrop(request) => drop_sessions(engine, &request),
        Request::VolumeDrain(request) => drain_volume(engine, &request).map(done),
    }
}

fn volume_answer(result: Result<VolumeInfo, StoreError>) -> Result<Reply, Refusal> {
    result.map(|info| Reply::Volume(volume_reply(&info))).map_err(refusal)
}

fn hello(engine: &Engine, hello: &m::Hello) -> Result<Reply, Refusal> {
    if hello.version != VERSION {
        return Err(Refusal::new(Code::BadVersion, format!("this engine speaks version {VERSION}, not {}", hello.version)));
    }
    Ok(Reply::Hello(m::HelloReply {
        protocol: PROTOCOL.to_owned(),
        version: VERSION,
        engine_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: engine.boot_id.clone(),
        configured: engine.policy().configured,
        pid: std::process::id(),
    }))
}

fn delete_volume(engine: &Engine, id: VolumeId) -> Result<(), Refusal> {
    // Held while deleting: no target can be made for it meanwhile.
    let policy = engine.policy();
    if policy.exports.contains_key(&id) {
        return Err(Refusal::new(Code::Busy, format!("a target serves volume {id}: remove it first")));
    }
    if !engine.gate(id).idle() {
        return Err(Refusal::new(Code::Busy, format!("commands on volume {id} are under way: drain it first")));
    }
    engine.store.delete(id).map_err(refusal)?;
    engine.forget_gate(id);
    Ok(())
}

fn refresh(engine: &Engine, id: VolumeId, attention_bits: Option<u32>) {
    if let Some(export) = engine.policy().exports.get(&id) {
        export.refresh();
    }
    if let Some(bits) = attention_bits {
        engine.attend(id, bits, None);
    }
}

fn resize_volume(engine: &Engine, id: VolumeId, size_bytes: u64) -> Result<Reply, Refusal> {
    let before = engine.store.info(id).map_err(refusal)?.size_bytes;
    let block_size = engine.policy().exports.get(&id).map_or(512, |export| u64::from(export.target().block_size));
    if size_bytes % block_size != 0 {
        return Err(Refusal::bad_request(format!("the size of volume {id} must be a multiple of {block_size}")));
    }
    let answer = volume_answer(engine.store.resize(id, size_bytes));
    refresh(engine, id, (before != size_bytes && answer.is_ok()).then_some(attention::CAPACITY));
    answer
}

fn space(engine: &Engine) -> Result<Reply, Refusal> {
    let space = engine.store.space().map_err(refusal)?;
    let pools = engine.store.pools().map_err(refusal)?;
    let pools = pools.into_iter().map(|pool| m::PoolSpace {
        pool: pool.name,
        used_bytes: pool.used_bytes,
        capacity_bytes: pool.capacity_bytes,
    });
    Ok(Reply::Space(m::SpaceReply {
        total_bytes: space.total_bytes,
        free_bytes: space.free_bytes,
        used_bytes: space.used_bytes,
        limit_bytes: space.limit_bytes,
        reclaiming_bytes: space.reclaiming_bytes,
        pools: pools.collect(),
    }))
}

fn limit_space(engine: &Engine, request: &m::SpaceLimit) -> Result<(), Refusal> {
    if !(1..=100).contains(&request.warn_percent) {
        return Err(Refusal::bad_request("warn_percent must be 1 to 100"));
    }
    let limit = Limit { limit_bytes: request.limit_bytes, warn_percent: request.warn_percent };
    engine.store.set_limit(limit).map_err(refusal)
}

fn set_pools(engine: &Engine, request: &m::SpacePools) -> Result<(), Refusal> {
    let (mut names, mut named) = (HashSet::new(), HashSet::new());
    let mut pools = Vec::new();
    for pool in &request.pools {
        let volumes = pool.volumes.iter().map(|volume| volume_id(volume)).collect::<Result<Vec<_>, _>>()?;
        if pool.pool.is_empty() || !names.insert(&pool.pool) {
            return Err(Refusal::bad_request(format!("pool {:?} is named twice, or has no name", pool.pool)));
        }
        if let Some(twice) = volumes.iter().find(|volume| !named.insert(**volume)) {
            return Err(Refusal::bad_request(format!("volume {twice} is named twice")));
        }
        pools.push(Pool { name: pool.pool.clone(), capacity_bytes: pool.capacity_bytes, volumes });
    }
    engine.store.set_pools(&pools).map_err(refusal)
}

fn list_volumes(engine: &Engine, volume: Option<&str>) -> Result<Reply, Refusal> {
    let volumes = match volume {
        Some(volume) => vec![engine.store.info(volume_id(volume)?).map_err(refusal)?],
        None => engine.store.list().map_err(refusal)?,
    };
    Ok(Reply::Volumes { volumes: volumes.iter().map(volume_reply).collect() })
}

fn list_sessions(engine: &Engine, volume: Option<&str>) -> Result<Reply, Refusal> {
    let wanted = volume.map(volume_id).transpose()?;
    let entries: Vec<_> = engine.sessions.lock().values().cloned().collect();
    let visible = entries.iter().filter(|entry| !entry.ticket.revoked() && wanted.is_none_or(|id| id == entry.export.id));
    Ok(Reply::Sessions { sessions: visible.map(|entry| session_reply(entry)).collect() })
}

fn drop_sessions(engine: &Engine, request: &m::SessionDrop) -> Result<Reply, Refusal> {
    let id = volume_id(&request.volume)?;
    let dropped = engine.sessions.drop_where(id, |entry| {
        request.initiator.as_ref().is_none_or(|initiator| entry.initiator.eq_ignore_ascii_case(initiator))
            && request.below_generation.is_none_or(|generation| entry.ticket.generation < generation)
    });
    log!(Info, "volume {id}: {dropped} sessions dropped on request");
    Ok(Reply::Dropped { dropped })
}

fn drain_volume(engine: &Engine, request: &m::VolumeDrain) -> Result<(), Refusal> {
    let id = volume_id(&request.volume)?;
    engine.store.info(id).map_err(refusal)?;
    if engine.gate(id).drain(Duration::from_millis(request.timeout_ms)) {
        return Ok(());
    }
    Err(Refusal::new(Code::Timeout, format!("commands on volume {id} did not finish within {} ms", request.timeout_ms)))
}
