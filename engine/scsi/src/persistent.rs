//! Persistent reservations (SPC-4 5.13, 6.15, 6.16): who has registered, who holds the unit, what that forbids. Pure.
//!
//! An initiator port is named as SPC-4 7.6.4.6 does: `<iSCSI name>,i,0x<ISID>`. REGISTER AND MOVE, SPEC_I_PT and
//! ALL_TG_PT are not there, and REPORT CAPABILITIES says so.

use crate::fields::{be64, set_be16, set_be32};
use crate::plan::Cdb;
use crate::sense::Sense;

/// Bounds the memory of one unit, and what is kept of it on disk.
pub const MAX_REGISTRANTS: usize = 128;
const PARAMETER_BYTES: usize = 24;

/// How a command stands to reservations (SPC-4 table 66, SBC-3 table 14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Served under any reservation.
    Free,
    /// Served under persistent ones, not under another's RESERVE(6).
    Told,
    /// Served to all where only writing is exclusive.
    Read,
    Write,
    /// RESERVE(6) and (10): not beside persistent registrations.
    Reserve,
}

pub fn class_of(cdb: &Cdb) -> Class {
    match cdb[0] {
        0x03 | 0x12 | 0x17 | 0x57 | 0xa0 => Class::Free,
        0x16 | 0x56 => Class::Reserve,
        0x00 | 0x25 | 0x5e | 0x5f | 0xa3 => Class::Told,
        0x9e if cdb[1] & 0x1f == 0x10 => Class::Told,
        0x1b if cdb[4] & 0xf1 == 0x01 => Class::Told, // only to start
        0x1e if cdb[4] & 0x03 == 0 => Class::Told,    // to allow removal
        0x08 | 0x28 | 0xa8 | 0x88 | 0x2f | 0xaf | 0x8f | 0x34 | 0x90 | 0x9e | 0x37 | 0xb7 => Class::Read,
        _ => Class::Write,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(u8);

impl Kind {
    pub fn new(code: u8) -> Option<Self> {
        matches!(code, 1 | 3 | 5..=8).then_some(Self(code))
    }

    pub fn code(self) -> u8 {
        self.0
    }

    /// Only writing is exclusive.
    fn lets_read(self) -> bool {
        matches!(self.0, 1 | 5 | 7)
    }

    /// Registrants Only or All Registrants: whoever has registered may do everything.
    fn lets_registrants(self) -> bool {
        self.0 >= 5
    }

    fn held_by_all(self) -> bool {
        self.0 >= 7
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrant {
    pub port: String,
    pub key: u64,
}

/// The state of one logical unit. In a reservation of all registrants `holder` is the one that made it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservations {
    pub generation: u32,
    pub registrants: Vec<Registrant>,
    pub reservation: Option<(String, Kind)>,
    /// Activate persist through power loss.
    pub persists: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    ReservationsPreempted,
    ReservationsReleased,
    RegistrationsPreempted,
}

/// What others have to be told, and whose commands are to be aborted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub notices: Vec<(String, Notice)>,
    pub aborted: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Conflict,
    Check(Sense),
}

type Done = Result<Effects, Fault>;

fn refuse<T>(sense: Sense) -> Result<T, Fault> {
    Err(Fault::Check(sense))
}

impl Reservations {
    fn key_of(&self, port: &str) -> Option<u64> {
        self.registrants.iter().find(|registrant| registrant.port == port).map(|registrant| registrant.key)
    }

    fn holds(&self, port: &str) -> bool {
        let Some((holder, kind)) = &self.reservation else { return false };
        if kind.held_by_all() { self.key_of(port).is_some() } else { holder == port }
    }

    pub fn permits(&self, port: &str, class: Class) -> bool {
        let Some((_, kind)) = &self.reservation else { return class != Class::Reserve || self.registrants.is_empty() };
        match class {
            Class::Free | Class::Told => true,
            Class::Reserve => false,
            Class::Read if kind.lets_read() => true,
            _ => self.holds(port) || (kind.lets_registrants() && self.key_of(port).is_some()),
        }
    }

    /// Carries out a PERSISTENT RESERVE OUT of `port`. On a fault nothing has changed.
    pub fn change(&mut self, port: &str, cdb: &Cdb, parameters: &[u8]) -> Done {
        if parameters.len() != PARAMETER_BYTES {
            return refuse(Sense::PARAMETER_LIST_LENGTH);
        }
        let (key, service_key, flags) = (be64(parameters, 0), be64(parameters, 8), parameters[20]);
        if flags & 0x0c != 0 {
            return refuse(Sense::INVALID_FIELD_IN_PARAMETERS); // SPEC_I_PT, ALL_TG_PT
        }
        let action = cdb[1] & 0x1f;
        if matches!(action, 0 | 6) {
            return self.register(port, (action == 0).then_some(key), service_key, flags & 0x01 != 0);
        }
        if self.key_of(port) != Some(key) {
            return Err(Fault::Conflict);
        }
        // Clearing has neither scope nor type.
        let kind = if cdb[2] >> 4 == 0 { Kind::new(cdb[2] & 0x0f) } else { None };
        match (action, kind) {
            (3, _) => Ok(self.clear(port)),
            (1, Some(kind)) => self.reserve(port, kind),
            (2, Some(kind)) => self.release(port, kind),
            (4 | 5, Some(kind)) => self.preempt(port, kind, service_key, action == 5),
            _ => refuse(Sense::INVALID_FIELD_IN_CDB),
        }
    }

    /// `expected` is the key that must be registered now (0: none); none for REGISTER AND IGNORE EXISTING KEY.
    fn register(&mut self, port: &str, expected: Option<u64>, key: u64, persists: bool) -> Done {
        let present = self.key_of(port);
        if expected.is_some_and(|expected| expected != present.unwrap_or(0)) {
            return Err(Fault::Conflict);
        }
        let mut effects = Effects::default();
        match (present, key) {
            (None, 0) => {}
            (None, _) if self.registrants.len() >= MAX_REGISTRANTS => return refuse(Sense::REGISTRATION_RESOURCES),
            (None, _) => self.registrants.push(Registrant { port: port.to_owned(), key }),
            (Some(_), 0) => effects = self.unregister(port),
            (Some(_), _) => {
                self.registrants.iter_mut().filter(|other| other.port == port).for_each(|own| own.key = key);
            }
        }
        self.persists = persists;
        self.generation = self.generation.wrapping_add(1);
        Ok(effects)
    }

    fn others(&self, port: &str) -> impl Iterator<Item = &Registrant> {
        self.registrants.iter().filter(move |other| other.port != port)
    }

    fn tell_others(&self, port: &str, notice: Notice) -> Vec<(String, Notice)> {
        self.others(port).map(|other| (other.port.clone(), notice)).collect()
    }

    /// The reservation ends with its holder; one of all registrants with the last of them.
    fn unregister(&mut self, port: &str) -> Effects {
        let mut effects = Effects::default();
        let ends = match &self.reservation {
            Some((_, kind)) if kind.held_by_all() => self.others(port).next().is_none(),
            Some((holder, _)) => holder == port,
            None => false,
        };
        if ends {
            let released = self.reservation.take();
            if released.is_some_and(|(_, kind)| kind.lets_registrants()) {
                effects.notices = self.tell_others(port, Notice::ReservationsReleased);
            }
        }
        self.registrants.retain(|other| other.port != port);
        effects
    }

    fn reserve(&mut self, port: &str, kind: Kind) -> Done {
        match &self.reservation {
            None => self.reservation = Some((port.to_owned(), kind)),
            Some((_, present)) if *present == kind && self.holds(port) => {}
            Some(_) => return Err(Fault::Conflict),
        }
        Ok(Effects::default())
    }

    fn release(&mut self, port: &str, kind: Kind) -> Done {
        if !self.holds(port) {
            return Ok(Effects::default());
        }
        if self.reservation.as_ref().is_some_and(|(_, present)| *present != kind) {
            return refuse(Sense::INVALID_RELEASE);
        }
        self.reservation = None;
        let notices = if kind.lets_registrants() { self.tell_others(port, Notice::ReservationsReleased) } else { Vec::new() };
        Ok(Effects { notices, aborted: Vec::new() })
    }

    fn clear(&mut self, port: &str) -> Effects {
        let notices = self.tell_others(port, Notice::ReservationsPreempted);
        self.registrants.clear();
        self.reservation = None;
        self.generation = self.generation.wrapping_add(1);
        Effects { notices, aborted: Vec::new() }
    }

    fn preempt(&mut self, port: &str, kind: Kind, service_key: u64, abort: bool) -> Done {
        let holding = self.reservation.as_ref().map(|(holder, present)| (holder.clone(), *present));
        let of_all = holding.as_ref().is_some_and(|(_, present)| present.held_by_all());
        let takes_over = match &holding {
            Some(_) if of_all => service_key == 0,
            Some((holder, _)) => self.key_of(holder) == Some(service_key),
            None => false,
        };
        if service_key == 0 && !of_all {
            return refuse(Sense::INVALID_FIELD_IN_PARAMETERS);
        }
        let everybody = of_all && service_key == 0;
        if !everybody && !self.registrants.iter().any(|other| other.key == service_key) {
            return Err(Fault::Conflict);
        }
        // The preempting port stays registered if it takes the reservation over.
        let goes = |other: &Registrant| {
            if everybody { other.port != port } else { other.key == service_key && (other.port != port || !takes_over) }
        };
        let gone: Vec<String> = self.registrants.iter().filter(|other| goes(other)).map(|other| other.port.clone()).collect();
        self.registrants.retain(|other| !goes(other));
        let mut effects = Effects::default();
        let tell = gone.iter().filter(|other| *other != port);
        effects.notices = tell.map(|other| (other.clone(), Notice::RegistrationsPreempted)).collect();
        if takes_over {
            if holding.is_some_and(|(_, present)| present != kind && present.lets_registrants()) {
                effects.notices.extend(self.tell_others(port, Notice::ReservationsReleased));
            }
            self.reservation = Some((port.to_owned(), kind));
        } else if of_all && self.registrants.is_empty() {
            self.reservation = None;
        }
        effects.aborted = if abort { gone } else { Vec::new() };
        self.generation = self.generation.wrapping_add(1);
        Ok(effects)
    }

    /// The data of a PERSISTENT RESERVE IN; the caller cuts it to the allocation length.
    pub fn report(&self, action: u8) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        match action {
            0 => self.registrants.iter().for_each(|registrant| bytes.extend(registrant.key.to_be_bytes())),
            1 => {
                if let Some((holder, kind)) = &self.reservation {
                    let key = if kind.held_by_all() { 0 } else { self.key_of(holder).unwrap_or(0) };
                    bytes.extend(key.to_be_bytes());
                    bytes.extend([0, 0, 0, 0, 0, kind.code(), 0, 0]);
                }
            }
            // PTPL_C; types valid, PTPL_A; the six types.
            2 => return vec![0, 8, 0x01, 0x80 | u8::from(self.persists), 0xea, 0x01, 0, 0],
            _ => self.registrants.iter().for_each(|registrant| self.full_status(registrant, &mut bytes)),
        }
        let length = (bytes.len() - 8) as u32;
        set_be32(&mut bytes, 0, self.generation);
        set_be32(&mut bytes, 4, length);
        bytes
    }

    fn full_status(&self, registrant: &Registrant, bytes: &mut Vec<u8>) {
        let mut transport_id = vec![0x45, 0, 0, 0]; // iSCSI, name with session identifier
        transport_id.extend(registrant.port.bytes());
        transport_id.push(0);
        transport_id.resize(transport_id.len().next_multiple_of(4), 0);
        let name_bytes = (transport_id.len() - 4) as u16;
        set_be16(&mut transport_id, 2, name_bytes);
        let mut head = [0; 24];
        head[..8].copy_from_slice(&registrant.key.to_be_bytes());
        match &self.reservation {
            Some((_, kind)) if self.holds(&registrant.port) => (head[12], head[13]) = (0x01, kind.code()),
            _ => {}
        }
        set_be16(&mut head, 18, 1);
        set_be32(&mut head, 20, transport_id.len() as u32);
        bytes.extend(head);
        bytes.extend(transport_id);
    }
}
