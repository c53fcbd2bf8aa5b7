//! Persistent reservations: registrations, reservations and preemptions of four ports, in any order.
//!
//! Input: steps of eight bytes: port (two bits), service action, scope and type, key, service action key, flags, length,
//! action of the report that follows.

use crate::input::Input;
use gespann_scsi::persistent::{Class, MAX_REGISTRANTS, Reservations};

const CLASSES: [Class; 5] = [Class::Free, Class::Told, Class::Read, Class::Write, Class::Reserve];

fn check(state: &Reservations) {
    assert!(state.registrants.len() <= MAX_REGISTRANTS);
    for (index, one) in state.registrants.iter().enumerate() {
        assert_ne!(one.key, 0, "a registrant without a key");
        assert!(state.registrants[..index].iter().all(|other| other.port != one.port), "a port twice");
    }
    if let Some((holder, kind)) = &state.reservation {
        assert!(!state.registrants.is_empty(), "reserved for nobody");
        assert!(kind.code() >= 7 || state.registrants.iter().any(|one| one.port == *holder), "the holder has not registered");
    }
}

fn check_report(state: &Reservations, action: u8) {
    let bytes = state.report(action);
    assert!(bytes.len() >= 8);
    let length = u32::from_be_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
    match action {
        2 => assert_eq!((bytes.len(), bytes[1]), (8, 8)),
        0 => assert_eq!((length, bytes.len()), (8 * state.registrants.len(), 8 + length)),
        _ => assert_eq!(bytes.len(), 8 + length),
    }
}

pub fn run(input: &[u8]) {
    let (mut input, mut state) = (Input(input), Reservations::default());
    while !input.is_empty() {
        let [port, action, kind, key, service_key, flags, length, report] = input.array();
        let port = format!("iqn.2026-01.test:{},i,0x800000000000", port & 3);
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[2], cdb[8]) = (0x5f, action & 0x1f, kind, 24);
        let mut parameters = [0; 24];
        (parameters[7], parameters[15], parameters[20]) = (key & 3, service_key & 3, flags);
        let before = state.clone();
        let given = if length == 0 { &parameters[..] } else { &parameters[..usize::from(length) % 25] };
        match state.change(&port, &cdb, given) {
            Ok(effects) => {
                assert!(effects.notices.iter().all(|(other, _)| *other != port), "told what it did itself");
            }
            Err(_) => assert_eq!(state, before, "refused, and yet changed"),
        }
        check(&state);
        check_report(&state, report & 7);
        for class in CLASSES {
            let free = matches!(class, Class::Free | Class::Told);
            assert!(!free || state.permits(&port, class), "what is always served is refused");
        }
    }
}
