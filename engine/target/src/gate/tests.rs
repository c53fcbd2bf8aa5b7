//! Revoke, drain and generation, each on a volume that stands still. Taking any of the three out of `gate.rs` turns one
//! of these red.

use super::*;
use gespann_store::Volume;
use gespann_store::faulty::{Faults, FaultyVolume};
use gespann_store::memory::MemoryVolume;
use std::sync::Arc;
use std::thread;

const LONG: Duration = Duration::from_secs(60);
const NO_TIME: Duration = Duration::ZERO;

struct Bench {
    gate: Arc<Gate>,
    volume: Arc<FaultyVolume>,
}

impl Bench {
    fn new() -> Self {
        let volume = FaultyVolume { inner: Arc::new(MemoryVolume::new(4096)), faults: Arc::new(Faults::default()) };
        Self { gate: Arc::new(Gate::new(1, Reservations::default())), volume: Arc::new(volume) }
    }

    fn write_in_background(&self, ticket: &Arc<Ticket>, value: u8) -> thread::JoinHandle<Result<(), Refused>> {
        let (gate, volume, ticket) = (self.gate.clone(), self.volume.clone(), ticket.clone());
        thread::spawn(move || {
            let _permit = gate.admit(&ticket, 0, Class::Write)?;
            volume.write_at(&[value; 512], 0).unwrap();
            Ok(())
        })
    }

    fn first_byte(&self) -> u8 {
        let mut byte = [0];
        self.volume.read_at(&mut byte, 0).unwrap();
        byte[0]
    }
}

#[test]
fn drain_waits_for_a_write_that_stands_still() {
    let bench = Bench::new();
    let ticket = Arc::new(bench.gate.ticket(1, String::new()));
    bench.volume.faults.stall();
    let writer = bench.write_in_background(&ticket, 7);
    bench.volume.faults.wait_for_stalled(1);
    bench.gate.revoke(&ticket);
    assert!(!bench.gate.drain(NO_TIME), "the write is still under way");
    bench.volume.faults.release();
    assert!(bench.gate.drain(LONG));
    assert_eq!(bench.first_byte(), 7, "drained means that the write has landed, not that it will");
    writer.join().unwrap().unwrap();
}

#[test]
fn drain_does_not_wait_for_commands_admitted_later() {
    let bench = Bench::new();
    let ticket = bench.gate.ticket(1, String::new());
    let early = bench.gate.admit(&ticket, 0, Class::Write).unwrap();
    let drained = {
        let gate = bench.gate.clone();
        thread::spawn(move || gate.drain(LONG))
    };
    while bench.gate.state().drains == 0 && !drained.is_finished() {
        thread::yield_now();
    }
    let later = bench.gate.admit(&ticket, 0, Class::Write).unwrap();
    drop(early);
    assert!(drained.join().unwrap());
    drop(later);
}

#[test]
fn nothing_of_a_revoked_ticket_is_admitted() {
    let bench = Bench::new();
    let (dropped, other) = (bench.gate.ticket(1, String::new()), bench.gate.ticket(2, String::new()));
    assert!(bench.gate.revoke(&dropped));
    assert!(!bench.gate.revoke(&dropped), "once only");
    assert_eq!(bench.gate.admit(&dropped, 0, Class::Free).unwrap_err(), Refused::Revoked);
    assert!(bench.gate.admit(&other, 0, Class::Write).is_ok());
}

#[test]
fn a_raised_generation_shuts_older_tickets_out() {
    let bench = Bench::new();
    let old = bench.gate.ticket(1, String::new());
    bench.gate.set_generation(2);
    assert_eq!(bench.gate.admit(&old, 0, Class::Free).unwrap_err(), Refused::Revoked);
    let new = bench.gate.ticket(2, String::new());
    assert!(bench.gate.admit(&new, 0, Class::Write).is_ok());
}

#[test]
fn no_late_write_lands_on_the_new_owners_data() {
    let bench = Bench::new();
    let old = Arc::new(bench.gate.ticket(1, String::new()));
    bench.volume.faults.stall();
    let late = bench.write_in_background(&old, 0xaa);
    bench.volume.faults.wait_for_stalled(1);
    bench.gate.set_generation(2);
    bench.gate.revoke(&old);
    let drained = {
        let gate = bench.gate.clone();
        thread::spawn(move || gate.drain(LONG))
    };
    bench.volume.faults.release();
    assert!(drained.join().unwrap());
    let new = Arc::new(bench.gate.ticket(2, String::new()));
    bench.write_in_background(&new, 0xbb).join().unwrap().unwrap();
    late.join().unwrap().unwrap();
    assert_eq!(bench.write_in_background(&old, 0xaa).join().unwrap(), Err(Refused::Revoked));
    assert_eq!(bench.first_byte(), 0xbb);
}

#[test]
fn a_reset_voids_what_was_received_before_it() {
    let bench = Bench::new();
    let ticket = bench.gate.ticket(1, String::new());
    let received = bench.gate.resets(&ticket);
    bench.gate.reset(true);
    assert_eq!(bench.gate.admit(&ticket, received, Class::Write).unwrap_err(), Refused::Aborted);
    assert!(bench.gate.admit(&ticket, bench.gate.resets(&ticket), Class::Write).is_ok());
}

#[test]
fn a_reservation_keeps_others_out_until_its_session_ends() {
    let bench = Bench::new();
    let (holder, other) = (bench.gate.ticket(1, String::new()), bench.gate.ticket(2, String::new()));
    bench.gate.reserve(&holder);
    assert_eq!(bench.gate.admit(&other, 0, Class::Write).unwrap_err(), Refused::Reserved);
    assert!(bench.gate.admit(&other, 0, Class::Free).is_ok());
    assert!(bench.gate.admit(&holder, 0, Class::Write).is_ok());
    bench.gate.release(2);
    assert_eq!(bench.gate.admit(&other, 0, Class::Write).unwrap_err(), Refused::Reserved);
    bench.gate.revoke(&holder);
    assert!(bench.gate.admit(&other, 0, Class::Write).is_ok());
}

#[test]
fn a_reservation_goes_with_its_generation() {
    let bench = Bench::new();
    let old = bench.gate.ticket(1, String::new());
    bench.gate.reserve(&old);
    bench.gate.set_generation(2);
    bench.gate.outdate(&old);
    let new = bench.gate.ticket(2, String::new());
    assert!(bench.gate.admit(&new, 0, Class::Write).is_ok());
    bench.gate.reserve(&old);
    assert!(bench.gate.admit(&new, 0, Class::Write).is_ok(), "too late to reserve anything");
}

const OLD: &str = "iqn.2026-01.test:old,i,0x000000000001";
const NEW: &str = "iqn.2026-01.test:new,i,0x000000000002";

#[test]
fn the_right_is_of_one_initiator_and_others_read() {
    let bench = Bench::new();
    let (old, new) = (bench.gate.ticket(1, OLD.to_owned()), bench.gate.ticket(2, NEW.to_owned()));
    assert!(bench.gate.give_right("iqn.2026-01.test:OLD"));
    assert!(!bench.gate.give_right("iqn.2026-01.test:old"), "given again nothing moves");
    assert!(bench.gate.admit_change(&old, 0, Class::Write).is_ok());
    assert_eq!(bench.gate.admit_change(&new, 0, Class::Write).unwrap_err(), Refused::Reserved);
    assert_eq!(bench.gate.close(&new, 0).unwrap_err(), Refused::Reserved);
    assert!(bench.gate.admit(&new, 0, Class::Read).is_ok());
    assert!(bench.gate.admit(&new, 0, Class::Write).is_ok(), "what changes no block, as MODE SENSE");
    assert!(bench.gate.give_right(""));
    assert!(bench.gate.admit_change(&new, 0, Class::Write).is_ok() && bench.gate.admit_change(&old, 0, Class::Write).is_ok());
}

#[test]
fn the_right_arrives_when_the_last_change_of_the_one_before_has_ended() {
    let bench = Bench::new();
    let (old, new) = (bench.gate.ticket(1, OLD.to_owned()), bench.gate.ticket(2, NEW.to_owned()));
    let under_way = bench.gate.admit_change(&old, 0, Class::Write).unwrap();
    let reading = bench.gate.admit(&old, 0, Class::Read).unwrap();
    bench.gate.give_right("iqn.2026-01.test:new");
    assert_eq!(bench.gate.admit_change(&old, 0, Class::Write).unwrap_err(), Refused::Reserved);
    assert_eq!(bench.gate.admit_change(&new, 0, Class::Write).unwrap_err(), Refused::Moving);
    drop(under_way);
    assert!(bench.gate.admit_change(&new, 0, Class::Write).is_ok(), "a reader is not waited for");
    drop(reading);
}
