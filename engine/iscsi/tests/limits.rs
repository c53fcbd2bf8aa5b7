//! Each limit of the protocol side at its edge: the last that is taken, and what is said to the first that is not.

use gespann_iscsi::chap::Secret;
use gespann_iscsi::login::Identity;
use gespann_iscsi::pdu::{Bhs, header, opcode, put, reject};
use gespann_iscsi::session::{Begun, COMMAND_WINDOW, Step};
use gespann_iscsi::{Budget, Decoder, Established, Gatekeeper, Login, LoginStatus, LoginStep, Out, Parameters, Session};
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const IMMEDIATE: u8 = 0x40;
const WHO: &str = "InitiatorName=iqn.2026-01.test:a\0SessionType=Discovery\0";

struct Open;

impl Gatekeeper for Open {
    fn chap_required(&mut self, _: &Identity) -> Result<bool, LoginStatus> {
        Ok(false)
    }
    fn secret(&mut self, _: &str) -> Option<Secret> {
        None
    }
    fn mutual(&mut self) -> Option<(String, Secret)> {
        None
    }
    fn fill_random(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
    fn establish(&mut self, _: &Identity) -> Result<u16, LoginStatus> {
        Ok(1)
    }
}

/// Headers and data of all PDUs that were laid into `out`.
fn sent(out: &mut Out) -> Vec<(Bhs, Vec<u8>)> {
    let mut decoder = Decoder::new(1 << 20);
    let (mut rest, mut pdus) = (out.bytes(), Vec::new());
    while !rest.is_empty() {
        let space = decoder.space();
        let count = space.len().min(rest.len());
        space[..count].copy_from_slice(&rest[..count]);
        decoder.filled(count);
        rest = &rest[count..];
        while let Some(pdu) = decoder.next().unwrap() {
            pdus.push((*pdu.bhs, pdu.data.to_vec()));
        }
    }
    out.clear();
    pdus
}

struct Bench {
    session: Session<u32>,
    out: Out,
    cmd_sn: u32,
    tag: u32,
}

impl Bench {
    fn new(budget: &Arc<Budget>, parameters: Parameters) -> Self {
        let identity = Identity { target: Some("iqn.2026-01.test:t".to_owned()), ..Identity::default() };
        let established = Established { identity, parameters, exp_cmd_sn: 1, stat_sn: 1 };
        Self { session: Session::new(&established, budget.clone()), out: Out::default(), cmd_sn: 1, tag: 0 }
    }

    /// What a write of `bytes` is answered with at once. `flags`: of the opcode, and the F bit.
    fn write(&mut self, bytes: u32, immediate: u8, last: bool) -> &'static str {
        self.tag += 1;
        let mut bhs = header(opcode::SCSI_COMMAND | immediate, 0x20 | if last { 0x80 } else { 0 }, self.tag);
        put(&mut bhs, 20, bytes);
        put(&mut bhs, 24, self.cmd_sn);
        if immediate == 0 {
            self.cmd_sn += 1;
        }
        match self.receive(&bhs, &[], bytes) {
            Some(Begun::Full) => "full",
            Some(Begun::Close(reason)) => reason,
            Some(_) => "waiting",
            None => "no command",
        }
    }

    fn receive(&mut self, bhs: &Bhs, data: &[u8], wanted: u32) -> Option<Begun<'static>> {
        let pdu = gespann_iscsi::pdu::Pdu { bhs, ahs: &[], data };
        let Step::Command(command) = self.session.receive(pdu, &mut self.out) else { return None };
        Some(match self.session.begin_write(&command, wanted, 0, &mut self.out) {
            Begun::Ready(_) => Begun::Ready(&[]),
            Begun::Waiting => Begun::Waiting,
            Begun::Full => Begun::Full,
            Begun::Close(reason) => Begun::Close(reason),
        })
    }

    fn asked_bytes(&mut self) -> u64 {
        let lengths = sent(&mut self.out).into_iter().filter(|(bhs, _)| bhs[0] == opcode::R2T);
        lengths.map(|(bhs, _)| u64::from(u32::from_be_bytes(bhs[44..48].try_into().unwrap()))).sum()
    }
}

fn unsolicited() -> Parameters {
    Parameters { initial_r2t: false, ..Parameters::default() }
}

#[test]
fn a_command_beyond_the_window_is_ignored() {
    let mut bench = Bench::new(&Budget::new(MIB), Parameters::default());
    for _ in 0..COMMAND_WINDOW {
        assert_eq!(bench.write(512, 0, true), "waiting");
    }
    bench.out.clear();
    assert_eq!(bench.write(512, 0, true), "no command", "beyond MaxCmdSN (RFC 7143 4.2.2.1)");
    assert!(bench.out.is_empty());
    assert_eq!(bench.session.waiting(), COMMAND_WINDOW as usize);
}

#[test]
fn a_command_number_that_is_skipped_ends_the_session() {
    let mut bench = Bench::new(&Budget::new(MIB), Parameters::default());
    let mut bhs = header(opcode::NOP_OUT, 0x80, 1);
    put(&mut bhs, 24, 2);
    let pdu = gespann_iscsi::pdu::Pdu { bhs: &bhs, ahs: &[], data: &[] };
    assert!(matches!(bench.session.receive(pdu, &mut bench.out), Step::Close(_)));
}

#[test]
fn one_immediate_command_too_many_is_rejected() {
    let mut bench = Bench::new(&Budget::new(MIB), Parameters::default());
    for _ in 0..COMMAND_WINDOW + 8 {
        assert_eq!(bench.write(512, IMMEDIATE, true), "waiting");
    }
    bench.out.clear();
    assert_eq!(bench.write(512, IMMEDIATE, true), "no command");
    let (bhs, bad) = sent(&mut bench.out).remove(0);
    assert_eq!((bhs[0], bhs[2]), (opcode::REJECT, reject::TOO_MANY_IMMEDIATE));
    assert_eq!(bad[16..20], bench.tag.to_be_bytes(), "the rejected header is sent back");
    assert_eq!(bench.write(512, 0, true), "full", "the window does not count them: the task set does");
}

#[test]
fn data_is_asked_for_as_far_as_there_is_room_for_all_sessions() {
    let budget = Budget::new(16 * MIB);
    let mut first = Bench::new(&budget, Parameters { max_burst_bytes: 1 << 20, ..Parameters::default() });
    let mut second = Bench::new(&budget, Parameters { max_burst_bytes: 1 << 20, ..Parameters::default() });
    for _ in 0..16 {
        assert_eq!(first.write(MIB as u32, 0, true), "waiting");
    }
    assert_eq!(first.asked_bytes(), 16 * MIB, "to the last byte");
    assert_eq!(second.write(1, 0, true), "waiting");
    assert_eq!(second.asked_bytes(), 0);
    assert!(second.session.held_back() && budget.contended());
    first.session.abort_all();
    second.session.ask_for_data(&mut second.out);
    assert_eq!(second.asked_bytes(), 1);
    assert!(!second.session.held_back() && !budget.contended());
    drop(second);
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn data_that_nobody_asked_for_is_refused_when_half_is_used() {
    let budget = Budget::new(16 * MIB);
    let mut bench = Bench::new(&budget, Parameters { first_burst_bytes: 1 << 20, ..unsolicited() });
    for _ in 0..8 {
        assert_eq!(bench.write(4 * MIB as u32, 0, false), "waiting");
    }
    assert_eq!(bench.write(4 * MIB as u32, 0, false), "full");
    assert_eq!(bench.write(4 * MIB as u32, 0, true), "waiting", "this one can be held back");
    assert_eq!(bench.session.waiting(), 9);
}

#[test]
fn commands_that_each_hold_a_part_never_wait_for_each_other() {
    let budget = Budget::new(16 * MIB);
    let parameters = Parameters { first_burst_bytes: 1 << 20, max_burst_bytes: 8 << 20, ..unsolicited() };
    let mut benches: Vec<_> = (0..8).map(|_| Bench::new(&budget, parameters.clone())).collect();
    for bench in &mut benches {
        assert_eq!(bench.write(8 * MIB as u32, 0, false), "waiting");
    }
    for bench in &mut benches {
        let mut bhs = header(opcode::DATA_OUT, 0x80, bench.tag);
        put(&mut bhs, 20, 0xffff_ffff);
        assert!(bench.receive(&bhs, &[0; 1 << 20], 0).is_none());
    }
    let asked: Vec<_> = benches.iter_mut().map(Bench::asked_bytes).collect();
    assert_eq!(asked.iter().filter(|bytes| **bytes == 7 * MIB).count(), 1, "one of them comes to its end: {asked:?}");
    assert!(benches.iter().all(|bench| bench.session.held_back() || bench.session.oldest().is_some()));
}

/// A command whose data is bad gives its room to the next.
#[test]
fn room_of_a_command_that_failed_is_used_at_once() {
    let mut bench = Bench::new(&Budget::new(64 * MIB), Parameters { max_burst_bytes: 16 << 20, ..Parameters::default() });
    assert_eq!(bench.write(16 * MIB as u32, 0, true), "waiting");
    assert_eq!(bench.asked_bytes(), 16 * MIB);
    assert_eq!(bench.write(512, 0, true), "waiting");
    assert_eq!(bench.asked_bytes(), 0, "one session asks for 16 MiB at a time");
    let mut bhs = header(opcode::DATA_OUT, 0x80, 1);
    put(&mut bhs, 36, 7); // DataSN out of order
    let pdu = gespann_iscsi::pdu::Pdu { bhs: &bhs, ahs: &[], data: &[0; 512] };
    assert!(matches!(bench.session.receive(pdu, &mut bench.out), Step::DataBad(_)));
    assert_eq!(bench.asked_bytes(), 512);
}

fn log_in(texts: &[&str]) -> u16 {
    let (mut login, mut out) = (Login::new(), Out::default());
    for (index, text) in texts.iter().enumerate() {
        let last = index == texts.len() - 1;
        let bhs = header(opcode::LOGIN | IMMEDIATE, if last { 0x87 } else { 0x44 }, 1);
        let pdu = gespann_iscsi::pdu::Pdu { bhs: &bhs, ahs: &[], data: text.as_bytes() };
        match login.receive(&pdu, &mut Open, &mut out) {
            LoginStep::Continue => assert!(!last),
            LoginStep::Done(_) => return 0,
            LoginStep::Refused(status, _) => return status.0,
        }
    }
    unreachable!("the last request is answered for good")
}

fn pieces(text: &str) -> Vec<&str> {
    text.as_bytes().chunks(8192).map(|piece| std::str::from_utf8(piece).unwrap()).collect()
}

#[test]
fn login_text_ends_at_its_limits() {
    let padded = |bytes: usize| format!("{WHO}X-pad={}\0", "x".repeat(bytes - WHO.len() - 7));
    assert_eq!(padded(65_536).len(), 65_536);
    assert_eq!(log_in(&pieces(&padded(65_536))), 0);
    assert_eq!(log_in(&pieces(&padded(65_537))), 0x0200);
    let many = |count: usize| [WHO].into_iter().chain(std::iter::repeat_n("", count - 1)).collect::<Vec<_>>();
    assert_eq!((log_in(&many(64)), log_in(&many(65))), (0, 0x0200), "login requests");
    let keys = |count: usize| (2..count).fold(WHO.to_owned(), |text, index| format!("{text}X-{index}=1\0"));
    assert_eq!((log_in(&[&keys(256)]), log_in(&[&keys(257)])), (0, 0x0200), "keys");
    let key = |bytes: usize| format!("{WHO}{}=1\0", "k".repeat(bytes));
    assert_eq!((log_in(&[&key(63)]), log_in(&[&key(64)])), (0, 0x0200), "the length of a key");
    let name = |bytes: usize| format!("InitiatorName=iqn.{}\0SessionType=Discovery\0", "n".repeat(bytes - 4));
    assert_eq!((log_in(&[&name(223)]), log_in(&[&name(224)])), (0, 0x0200), "the length of a name");
}

#[test]
fn text_of_a_session_ends_at_its_limit() {
    for (bytes, expected) in [(65_536, opcode::TEXT_RESPONSE), (65_537, opcode::REJECT)] {
        let mut bench = Bench::new(&Budget::new(MIB), Parameters::default());
        let text = format!("X-pad={}\0", "x".repeat(bytes - 7));
        let pieces = pieces(&text);
        let mut last_answer = 0;
        for (index, piece) in pieces.iter().enumerate() {
            let last = index == pieces.len() - 1;
            let bhs = header(opcode::TEXT | IMMEDIATE, if last { 0x80 } else { 0x40 }, 1);
            let pdu = gespann_iscsi::pdu::Pdu { bhs: &bhs, ahs: &[], data: piece.as_bytes() };
            assert!(matches!(bench.session.receive(pdu, &mut bench.out), Step::Nothing));
            last_answer = sent(&mut bench.out)[0].0[0];
        }
        assert_eq!(last_answer, expected, "{bytes} bytes");
    }
}
