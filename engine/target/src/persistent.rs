//! Persistent reservations in force: named ports, what is kept over a restart, who is told.

use crate::engine::Engine;
use crate::execute::Outcome;
use crate::gate::Refused;
use crate::log;
use crate::sanitize::Job;
use crate::sessions::{SessionEntry, attention};
use gespann_iscsi::login::Identity;
use gespann_scsi::Sense;
use gespann_scsi::persistent::{Class, Effects, Fault, Kind, Notice, Registrant, Reservations};
use gespann_scsi::plan::Cdb;
use gespann_store::{Store, StoreError, VolumeId};
use serde_json::{Value, json};
use std::sync::PoisonError;
use std::time::Duration;

/// Commands of those preempted that have begun finish within this, or the initiator is told that it failed.
const ABORT_LIMIT: Duration = Duration::from_secs(30);

pub fn port_name(identity: &Identity) -> String {
    let isid = identity.isid.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    format!("{},i,0x{isid}", identity.initiator.to_ascii_lowercase())
}

/// What a restart finds: reservations, and a sanitizing under way. Unreadable ones are told to the log: nobody could say
/// who holds the unit.
pub fn load(store: &dyn Store, volume: VolumeId) -> (Reservations, Option<Job>) {
    let kept = store.reservations(volume).unwrap_or_else(|error| {
        log!(Error, "volume {volume}: its persistent reservations are lost: {error}");
        None
    });
    let Some(text) = kept else { return Default::default() };
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let job = value.get("sanitizing").map(Job::decode);
    let reservations = decode(&value).unwrap_or_else(|| {
        log!(Error, "volume {volume}: its persistent reservations cannot be read and are gone");
        Reservations::default()
    });
    (reservations, job)
}

/// Puts on disk what a restart has to find. With the gate's `reserving` held, so that the two parts never mix.
pub fn keep(store: &dyn Store, volume: VolumeId, state: &Reservations, job: Option<&Job>) -> Result<(), StoreError> {
    let nothing = Reservations::default();
    let kept = if state.persists { state } else { &nothing };
    let text = (state.persists || job.is_some()).then(|| {
        let mut value = encode(kept);
        if let Some(job) = job {
            value["sanitizing"] = job.encode();
        }
        value.to_string()
    });
    store.set_reservations(volume, text)
}

fn encode(state: &Reservations) -> Value {
    let registrants: Vec<_> = state.registrants.iter().map(|one| json!({"port": one.port, "key": one.key})).collect();
    let held = state.reservation.as_ref().map(|(holder, kind)| json!({"holder": holder, "type": kind.code()}));
    json!({"generation": state.generation, "registrants": registrants, "reservation": held, "persists": state.persists})
}

fn decode(value: &Value) -> Option<Reservations> {
    let text_of = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
    let registrants = value.get("registrants")?.as_array()?.iter();
    let registrants = registrants.map(|one| Some(Registrant { port: text_of(one, "port")?, key: one.get("key")?.as_u64()? }));
    let reservation = match value.get("reservation")? {
        Value::Null => None,
        held => Some((text_of(held, "holder")?, Kind::new(u8::try_from(held.get("type")?.as_u64()?).ok()?)?)),
    };
    // Kept ones without this word were written when nothing else was kept.
    let persists = value.get("persists").is_none_or(|word| word == true);
    let generation = u32::try_from(value.get("generation")?.as_u64()?).ok()?;
    Some(Reservations { generation, registrants: registrants.collect::<Option<_>>()?, reservation, persists })
}

/// PERSISTENT RESERVE OUT: kept on disk if that is asked for, then in force, then told, then answered.
pub fn reserve_out(
    engine: &Engine,
    entry: &SessionEntry,
    resets: u64,
    cdb: &Cdb,
    parameters: &[u8],
) -> Result<Outcome, Refused> {
    let gate = &entry.export.gate;
    let effects = {
        let _permit = gate.admit(&entry.ticket, resets, Class::Told)?;
        let _alone = gate.reserving.lock().unwrap_or_else(PoisonError::into_inner);
        let before = gate.persistent();
        let mut state = before.clone();
        let effects = match state.change(&entry.ticket.port, cdb, parameters) {
            Ok(effects) => effects,
            Err(Fault::Conflict) => return Err(Refused::Reserved),
            Err(Fault::Check(sense)) => return Ok(Outcome::Check(sense)),
        };
        if before.persists || state.persists {
            let job = gate.sanitizing.job();
            if let Err(error) = keep(engine.store.as_ref(), entry.export.id, &state, job.as_ref()) {
                log!(Error, "volume {}: persistent reservations cannot be kept: {error}", entry.export.id);
                return Ok(Outcome::Check(Sense::INTERNAL_FAILURE));
            }
        }
        let sessions = engine.sessions.of_volume(entry.export.id);
        let aborted = sessions.iter().filter(|other| effects.aborted.contains(&other.ticket.port));
        gate.set_persistent(state, aborted.map(|other| &other.ticket));
        tell(&sessions, &effects);
        effects
    };
    if !effects.aborted.is_empty() && !gate.drain_commands(ABORT_LIMIT) {
        return Ok(Outcome::Check(Sense::INTERNAL_FAILURE));
    }
    Ok(Outcome::Good)
}

fn tell(sessions: &[std::sync::Arc<SessionEntry>], effects: &Effects) {
    for (port, notice) in &effects.notices {
        let bits = match notice {
            Notice::ReservationsPreempted => attention::RESERVATIONS_PREEMPTED,
            Notice::ReservationsReleased => attention::RESERVATIONS_RELEASED,
            Notice::RegistrationsPreempted => attention::REGISTRATIONS_PREEMPTED,
        };
        sessions.iter().filter(|session| session.ticket.port == *port).for_each(|session| session.attend(bits));
    }
}
