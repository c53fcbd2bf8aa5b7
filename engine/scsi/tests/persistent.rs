//! Persistent reservations: what each type lets whom do, and rules that no sequence of requests may break.

use gespann_scsi::Sense;
use gespann_scsi::persistent::{Class, Effects, Fault, Notice, Reservations, class_of};

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const REGISTER_AND_IGNORE: u8 = 6;
const TYPES: [u8; 6] = [1, 3, 5, 6, 7, 8];

fn ask(state: &mut Reservations, port: &str, action: u8, kind: u8, key: u64, service_key: u64) -> Result<Effects, Fault> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[2]) = (0x5f, action, kind);
    let mut parameters = [0; 24];
    parameters[..8].copy_from_slice(&key.to_be_bytes());
    parameters[8..16].copy_from_slice(&service_key.to_be_bytes());
    state.change(port, &cdb, &parameters)
}

/// "a" with key 1 and "b" with key 2 registered, "a" holding a reservation of this type.
fn held(kind: u8) -> Reservations {
    let mut state = Reservations::default();
    ask(&mut state, "a", REGISTER, 0, 0, 1).unwrap();
    ask(&mut state, "b", REGISTER, 0, 0, 2).unwrap();
    ask(&mut state, "a", RESERVE, kind, 1, 0).unwrap();
    state
}

/// SPC-4 table 66: type, what another registrant may (read, write), what a stranger may.
#[test]
fn each_type_lets_in_whom_it_should() {
    for (kind, registrant, stranger) in [
        (1, (true, false), (true, false)),
        (3, (false, false), (false, false)),
        (5, (true, true), (true, false)),
        (6, (true, true), (false, false)),
        (7, (true, true), (true, false)),
        (8, (true, true), (false, false)),
    ] {
        let state = held(kind);
        let may = |port| (state.permits(port, Class::Read), state.permits(port, Class::Write));
        assert_eq!((may("a"), may("b"), may("c")), ((true, true), registrant, stranger), "type {kind}");
        for port in ["a", "b", "c"] {
            assert!(state.permits(port, Class::Free) && state.permits(port, Class::Told));
            assert!(!state.permits(port, Class::Reserve), "RESERVE(6) beside registrations");
        }
    }
}

#[test]
fn commands_are_of_the_right_class() {
    for (bytes, class) in [
        (&[0x12][..], Class::Free),
        (&[0x00], Class::Told),
        (&[0x28], Class::Read),
        (&[0x9e, 0x12], Class::Read),
        (&[0x9e, 0x10], Class::Told),
        (&[0x2a], Class::Write),
        (&[0x42], Class::Write),
        (&[0x35], Class::Write),
        (&[0x1b, 0, 0, 0, 1], Class::Told),
        (&[0x1b, 0, 0, 0, 0], Class::Write),
        (&[0x16], Class::Reserve),
        (&[0xff], Class::Write),
    ] {
        let mut cdb = [0; 16];
        cdb[..bytes.len()].copy_from_slice(bytes);
        assert_eq!(class_of(&cdb), class, "{bytes:x?}");
    }
}

#[test]
fn only_the_right_key_changes_anything() {
    let mut state = held(1);
    let before = state.clone();
    for (port, action, key) in [("a", RESERVE, 9), ("b", RESERVE, 2), ("c", RESERVE, 0), ("c", CLEAR, 1), ("b", REGISTER, 1)] {
        assert_eq!(ask(&mut state, port, action, 1, key, 5), Err(Fault::Conflict), "{port} {action}");
    }
    assert_eq!(ask(&mut state, "a", RELEASE, 3, 1, 0), Err(Fault::Check(Sense::INVALID_RELEASE)));
    assert_eq!(ask(&mut state, "a", RESERVE, 2, 1, 0), Err(Fault::Check(Sense::INVALID_FIELD_IN_CDB)));
    assert_eq!(ask(&mut state, "a", RESERVE, 0x11, 1, 0), Err(Fault::Check(Sense::INVALID_FIELD_IN_CDB)), "scope");
    assert_eq!(ask(&mut state, "b", PREEMPT, 1, 2, 77), Err(Fault::Conflict), "a key that nobody has");
    assert_eq!(ask(&mut state, "b", PREEMPT, 1, 2, 0), Err(Fault::Check(Sense::INVALID_FIELD_IN_PARAMETERS)));
    assert_eq!(state.change("a", &[0x5f; 16], &[0; 23]), Err(Fault::Check(Sense::PARAMETER_LIST_LENGTH)));
    ask(&mut state, "b", RELEASE, 1, 2, 0).unwrap(); // not the holder: nothing happens
    assert_eq!(state, before);
}

#[test]
fn preempting_takes_the_reservation_and_tells_the_loser() {
    for kind in [1, 3, 5, 6] {
        let mut state = held(kind);
        let effects = ask(&mut state, "b", PREEMPT_AND_ABORT, kind, 2, 1).unwrap();
        assert_eq!(effects.notices, [("a".to_owned(), Notice::RegistrationsPreempted)]);
        assert_eq!(effects.aborted, ["a"]);
        assert!(!state.permits("a", Class::Write) && state.permits("b", Class::Write));
        assert_eq!(state.registrants.len(), 1);
    }
    for kind in [7, 8] {
        let mut state = held(kind);
        ask(&mut state, "b", PREEMPT, 1, 2, 0).unwrap();
        assert_eq!(state.reservation.as_ref().map(|(holder, kind)| (holder.as_str(), kind.code())), Some(("b", 1)));
        assert!(!state.permits("a", Class::Write));
    }
}

#[test]
fn a_reservation_ends_with_its_holder_or_the_last_of_all() {
    for kind in TYPES {
        let mut state = held(kind);
        let effects = ask(&mut state, "a", REGISTER, 0, 1, 0).unwrap();
        assert_eq!(state.reservation.is_some(), kind >= 7, "type {kind}");
        let told = if matches!(kind, 5 | 6) { vec![("b".to_owned(), Notice::ReservationsReleased)] } else { Vec::new() };
        assert_eq!(effects.notices, told);
        ask(&mut state, "b", REGISTER_AND_IGNORE, 0, 0, 0).unwrap();
        assert_eq!((state.reservation, state.registrants.len()), (None, 0));
    }
}

/// Random requests of four ports: the holder is always registered, keys are never 0, ports are registered once, refused
/// requests change nothing, and the generation counts every change of registrations.
#[test]
fn no_sequence_breaks_the_rules() {
    let mut seed = 0x5eed_5eed_u64;
    let mut chance = move |limit: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % limit
    };
    let mut state = Reservations::default();
    for step in 0..200_000 {
        let port = ["a", "b", "c", "d"][chance(4) as usize];
        let before = state.clone();
        let kind = if chance(8) == 0 { chance(256) as u8 } else { TYPES[chance(6) as usize] };
        let result = ask(&mut state, port, chance(9) as u8, kind, chance(4), chance(4));
        if result.is_err() {
            assert_eq!(state, before, "step {step}");
        }
        if let Some((holder, kind)) = &state.reservation {
            let registered = state.registrants.iter().any(|one| one.port == *holder);
            assert!(registered || (kind.code() >= 7 && !state.registrants.is_empty()), "step {step}: {state:?}");
        }
        assert!(state.registrants.iter().all(|one| one.key != 0));
        let mut ports: Vec<_> = state.registrants.iter().map(|one| &one.port).collect();
        ports.sort();
        ports.dedup();
        assert_eq!(ports.len(), state.registrants.len());
        assert!(state.registrants == before.registrants || state.generation == before.generation.wrapping_add(1));
        for action in 0..4 {
            assert!(state.report(action).len() >= 8);
        }
    }
}

#[test]
fn registrants_are_bounded() {
    let mut state = Reservations::default();
    let results: Vec<_> = (0..200).map(|n| ask(&mut state, &format!("p{n}"), REGISTER, 0, 0, n + 1).is_ok()).collect();
    assert_eq!(results.iter().filter(|ok| **ok).count(), 128);
    assert_eq!(ask(&mut state, "late", REGISTER, 0, 0, 1), Err(Fault::Check(Sense::REGISTRATION_RESOURCES)));
}
