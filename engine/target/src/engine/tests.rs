//! Logins against volumes that stand still.

use super::one_volume::{A, OneVolume};
use super::*;
use crate::gate::Refused;
use gespann_control::messages::Access;
use gespann_scsi::persistent::Class;
use gespann_store::faulty::{Faults, FaultyVolume};
use gespann_store::memory::MemoryVolume;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

fn target() -> Target {
    let access = vec![Access { initiator: String::new(), chap_user: String::new(), address: String::new() }];
    let fields = serde_json::json!({"volume": A.to_string(), "name": "iqn.2026-01.test:a", "online": true});
    Target { access, ..serde_json::from_value(fields).unwrap() }
}

fn log_in(engine: &Engine, isid: u8) -> Result<Arc<SessionEntry>, LoginStatus> {
    log_in_as(engine, isid, "iqn.2026-01.test:host", "127.0.0.1")
}

fn log_in_as(engine: &Engine, isid: u8, initiator: &str, address: &str) -> Result<Arc<SessionEntry>, LoginStatus> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let target = Some("iqn.2026-01.test:a".to_owned());
    let identity = Identity { initiator: initiator.to_owned(), target, isid: [isid; 6], ..Identity::default() };
    engine.establish(&identity, address.parse().unwrap(), &stream)
}

fn engine() -> (Arc<Engine>, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let volume = FaultyVolume { inner: Arc::new(MemoryVolume::new(4096)), faults: faults.clone() };
    let engine = Engine::new(Arc::new(OneVolume { volume: Arc::new(volume) }), String::new());
    let configure = serde_json::json!({"targets": [], "chap_users": []});
    engine.configure(Configure { targets: vec![target()], ..serde_json::from_value(configure).unwrap() }).unwrap();
    (Arc::new(engine), faults)
}

#[test]
fn a_session_is_replaced_only_when_its_last_write_has_landed() {
    let (engine, faults) = engine();
    let old = log_in(&engine, 1).unwrap();
    faults.stall();
    let late = {
        let old = old.clone();
        thread::spawn(move || {
            let permit = old.export.gate.admit(&old.ticket, 0, Class::Write).unwrap();
            old.export.volume.write_at(&[0xaa; 512], 0).unwrap();
            drop(permit);
        })
    };
    faults.wait_for_stalled(1);
    let (sender, receiver) = mpsc::channel();
    let again = engine.clone();
    let login = thread::spawn(move || sender.send(log_in(&again, 1).map(|_| ())).unwrap());
    while !old.ticket.revoked() {
        thread::yield_now();
    }
    // The old session cannot begin anything, and the new one is not there yet: nothing can be overtaken.
    assert_eq!(old.export.gate.admit(&old.ticket, 0, Class::Free).unwrap_err(), Refused::Revoked);
    assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "logged in beside a write that stands still");
    faults.release();
    assert_eq!(receiver.recv().unwrap(), Ok(()));
    late.join().unwrap();
    login.join().unwrap();
}

#[test]
fn while_ending_initiators_are_told_to_come_again() {
    let (engine, _faults) = engine();
    engine.close();
    engine.remove_target(A);
    assert_eq!(log_in(&engine, 1).unwrap_err(), LoginStatus::UNAVAILABLE, "not that the target is gone for good");
}

fn limited(session_limits: SessionLimits) -> Engine {
    let (engine, _faults) = engine();
    Engine { session_limits, ..Arc::try_unwrap(engine).unwrap() }
}

fn open_to_all(engine: &Engine) {
    engine.put_target(Target { multihost: true, ..target() }).unwrap();
}

#[test]
fn one_initiator_has_a_bounded_number_of_sessions() {
    let engine = limited(SessionLimits { of_initiator: 3, ..SessionLimits::default() });
    open_to_all(&engine);
    for isid in 0..3 {
        log_in(&engine, isid).unwrap();
    }
    assert_eq!(log_in(&engine, 200).unwrap_err(), LoginStatus::OUT_OF_RESOURCES);
    assert!(log_in(&engine, 0).is_ok(), "taking the place of a session is no further one");
    assert!(log_in_as(&engine, 0, "iqn.2026-01.test:other", "127.0.0.1").is_ok(), "others are not kept out");
}

#[test]
fn one_address_has_a_bounded_number_of_sessions() {
    let engine = limited(SessionLimits { of_address: 3, ..SessionLimits::default() });
    open_to_all(&engine);
    let entries: Vec<_> = (0..3).map(|isid| log_in(&engine, isid).unwrap()).collect();
    assert_eq!(log_in(&engine, 3).unwrap_err(), LoginStatus::OUT_OF_RESOURCES);
    assert!(log_in_as(&engine, 3, "iqn.2026-01.test:host", "127.0.0.2").is_ok(), "another address");
    engine.sessions.remove(&entries[0]);
    assert!(log_in(&engine, 3).is_ok(), "one has left");
}

#[test]
fn there_is_a_bounded_number_of_sessions_in_all() {
    let engine = limited(SessionLimits { in_all: 3, ..SessionLimits::default() });
    open_to_all(&engine);
    let log_in_host = |host: u8| log_in_as(&engine, 1, &format!("iqn.2026-01.test:host{host}"), &format!("10.0.0.{host}"));
    let entries: Vec<_> = (0..3).map(|host| log_in_host(host).unwrap()).collect();
    assert_eq!(log_in_host(3).unwrap_err(), LoginStatus::OUT_OF_RESOURCES);
    engine.sessions.remove(&entries[0]);
    assert!(log_in_host(3).is_ok(), "one has left");
}

#[test]
fn the_limits_leave_room_for_a_large_pool() {
    let limits = SessionLimits::default();
    assert!(limits.of_initiator < limits.of_address && limits.of_address < limits.in_all);
    assert!(limits.of_address >= 4000, "a host logs its disks in from one address");
}
