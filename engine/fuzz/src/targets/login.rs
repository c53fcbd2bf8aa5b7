//! The login phase: negotiation, CHAP in both directions.
//!
//! Input: a byte for what the gatekeeper wants, then requests: a byte of [`fix`], the flags of the header (stages, T, C), and
//! counted text. `CHAP_R=?` in the text becomes the right response, and `CHAP_C=?` the target's own challenge.

use super::wire::{sent, word};
use crate::input::Input;
use gespann_iscsi::chap::{Algorithm, Secret};
use gespann_iscsi::login::Identity;
use gespann_iscsi::parameters::{OUR_MAX_BURST_BYTES, OUR_MAX_OUTSTANDING_R2T};
use gespann_iscsi::pdu::{Bhs, Pdu, RESERVED_TAG, header, opcode, put};
use gespann_iscsi::{Gatekeeper, Login, LoginStatus, LoginStep, Out, Parameters, text};

const USER: &str = "user";
const SECRET: &[u8] = b"secretsecret";
/// What an initiator takes in a login answer, before it has said anything else (RFC 7143 13.12).
const LONGEST_ANSWER: usize = 8192;

mod fix {
    pub const WHOLE_HEADER: u8 = 1;
    pub const RIGHT_RESPONSE: u8 = 2;
    pub const OWN_CHALLENGE: u8 = 4;
    pub const OTHER_TAG: u8 = 8;
}

struct Door {
    wants_chap: bool,
    mutual: bool,
    full: bool,
    random: u8,
    entered: Option<Identity>,
}

impl Gatekeeper for Door {
    fn chap_required(&mut self, identity: &Identity) -> Result<bool, LoginStatus> {
        Ok(self.wants_chap && identity.target.is_some())
    }
    fn secret(&mut self, user: &str) -> Option<Secret> {
        (user == USER).then(|| Secret::new(SECRET.to_vec()))
    }
    fn mutual(&mut self) -> Option<(String, Secret)> {
        self.mutual.then(|| ("group".to_owned(), Secret::new(b"anothersecret".to_vec())))
    }
    fn fill_random(&mut self, bytes: &mut [u8]) {
        // Of the whole input, so that an answer found by trying is not the answer next time.
        bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = self.random.wrapping_add(index as u8));
    }
    fn establish(&mut self, identity: &Identity) -> Result<u16, LoginStatus> {
        self.entered = Some(identity.clone());
        if self.full { Err(LoginStatus::OUT_OF_RESOURCES) } else { Ok(7) }
    }
}

/// The target's challenge, as its answers show it.
#[derive(Default)]
struct Seen {
    algorithm: Option<Algorithm>,
    identifier: u8,
    challenge: Vec<u8>,
    stat_sn: Option<u32>,
}

impl Seen {
    fn note(&mut self, answer: &[u8], security_stage: bool) {
        let pairs = text::parse(answer).expect("an answer is text that can be parsed");
        // In the other stage these keys are not understood.
        for (key, value) in pairs.into_iter().filter(|_| security_stage) {
            match key.as_str() {
                "CHAP_A" => self.algorithm = Algorithm::choose(&value),
                "CHAP_I" => self.identifier = value.parse().expect("a number of one byte"),
                "CHAP_C" => self.challenge = text::binary(&value, 64).expect("a binary value"),
                _ => {}
            }
        }
    }

    fn put_in(&self, text: &[u8], fixes: u8) -> Vec<u8> {
        let mut text = text.to_vec();
        let response = self.algorithm.map(|one| one.response(self.identifier, &Secret::new(SECRET.to_vec()), &self.challenge));
        let asked =
            [(fix::RIGHT_RESPONSE, "CHAP_R=?", response), (fix::OWN_CHALLENGE, "CHAP_C=?", Some(self.challenge.clone()))];
        for (bit, pattern, bytes) in asked {
            let at = text.windows(pattern.len()).position(|part| part == pattern.as_bytes());
            if let (Some(at), Some(bytes), true) = (at, bytes, fixes & bit != 0) {
                text.splice(at + pattern.len() - 1..at + pattern.len(), text::hex(&bytes).into_bytes());
            }
        }
        text
    }
}

/// Exactly one answer, to this request, with the next number.
fn check_answer(out: &mut Out, request: &Bhs, seen: &mut Seen) -> Bhs {
    let mut pdus = sent(out);
    assert_eq!(pdus.len(), 1, "a request has one answer");
    let (bhs, data) = pdus.remove(0);
    assert_eq!(bhs[0], opcode::LOGIN_RESPONSE);
    assert_eq!(bhs[8..14], request[8..14], "ISID");
    assert_eq!(bhs[16..20], request[16..20], "task tag");
    assert!(seen.stat_sn.is_none_or(|last| word(&bhs, 24) == last.wrapping_add(1)), "StatSN");
    seen.stat_sn = Some(word(&bhs, 24));
    assert_eq!(word(&bhs, 28), word(request, 24), "login requests do not advance ExpCmdSN");
    assert!(data.len() <= LONGEST_ANSWER, "an answer of {} bytes", data.len());
    seen.note(&data, bhs[1] & 0x0c == 0);
    bhs
}

fn check_parameters(parameters: &Parameters) {
    let Parameters { first_burst_bytes, max_burst_bytes, max_outstanding_r2t, initiator_max_recv_bytes, .. } = *parameters;
    assert!((512..=OUR_MAX_BURST_BYTES).contains(&max_burst_bytes));
    assert!((512..=max_burst_bytes).contains(&first_burst_bytes), "FirstBurstLength is not above MaxBurstLength (13.14)");
    assert!((1..=OUR_MAX_OUTSTANDING_R2T).contains(&max_outstanding_r2t));
    assert!((512..=0xff_ffff).contains(&initiator_max_recv_bytes));
}

fn request(input: &mut Input<'_>, fixes: u8) -> Bhs {
    let mut bhs = header(opcode::LOGIN | 0x40, input.byte(), 1);
    put(&mut bhs, 24, 5);
    if fixes & fix::WHOLE_HEADER != 0 {
        bhs = input.array();
    }
    if fixes & fix::OTHER_TAG != 0 {
        put(&mut bhs, 16, RESERVED_TAG);
    }
    bhs
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mode = input.byte();
    let random = bytes.iter().fold(0, |sum: u8, byte| sum.rotate_left(3) ^ byte);
    let mut door = Door { wants_chap: mode & 1 != 0, mutual: mode & 2 != 0, full: mode & 4 != 0, random, entered: None };
    let (mut login, mut out, mut seen, mut proved) = (Login::new(), Out::default(), Seen::default(), false);
    while !input.is_empty() {
        let fixes = input.byte();
        let bhs = request(&mut input, fixes);
        let text = seen.put_in(input.counted(), fixes);
        proved |= fixes & fix::RIGHT_RESPONSE != 0 && seen.algorithm.is_some();
        let step = login.receive(&Pdu { bhs: &bhs, ahs: &[], data: &text }, &mut door, &mut out);
        let answer = check_answer(&mut out, &bhs, &mut seen);
        let status = u16::from_be_bytes([answer[36], answer[37]]);
        match step {
            LoginStep::Continue => assert_eq!((status, door.entered.is_none()), (0, true), "entered, but not told"),
            LoginStep::Refused(told, _) => {
                assert_eq!(status, told.0);
                assert!((0x0200..0x0400).contains(&status), "a refusal is an error of one side");
                return;
            }
            LoginStep::Done(established) => {
                assert_eq!((status, answer[1] & 0x83), (0, 0x83), "the last answer leads to full feature phase");
                let identity = door.entered.expect("let in without being asked for");
                assert_eq!(identity.initiator, established.identity.initiator);
                assert!(text::is_iscsi_name(&identity.initiator));
                assert!(!door.wants_chap || identity.target.is_none() || identity.chap_user.as_deref() == Some(USER));
                assert!(identity.chap_user.is_none() || proved, "let in as somebody without the secret");
                check_parameters(&established.parameters);
                return;
            }
        }
    }
}
