//! Seeded random and damaged bytes against the decoder, the login phase and a session: no panic, bounded memory. The seed
//! is in the panic's text, should there be one.

use gespann_iscsi::chap::Secret;
use gespann_iscsi::login::Identity;
use gespann_iscsi::pdu::{Bhs, header, opcode};
use gespann_iscsi::session::{Begun, Step};
use gespann_iscsi::{Budget, Decoder, Established, Gatekeeper, Login, LoginStatus, LoginStep, Out, Parameters, Session};

const RUNS: u64 = 500;

/// xorshift64*: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

struct Open;

impl Gatekeeper for Open {
    fn chap_required(&mut self, _: &Identity) -> Result<bool, LoginStatus> {
        Ok(false)
    }
    fn secret(&mut self, _: &str) -> Option<Secret> {
        Some(Secret::new(b"secret".to_vec()))
    }
    fn mutual(&mut self) -> Option<(String, Secret)> {
        Some(("group".to_owned(), Secret::new(b"other".to_vec())))
    }
    fn fill_random(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
    fn establish(&mut self, _: &Identity) -> Result<u16, LoginStatus> {
        Ok(1)
    }
}

fn decoded(bytes: &[u8], mut each: impl FnMut(gespann_iscsi::pdu::Pdu<'_>) -> bool) {
    let mut decoder = Decoder::new(8192);
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = decoder.space();
        let count = space.len().min(rest.len());
        space[..count].copy_from_slice(&rest[..count]);
        decoder.filled(count);
        rest = &rest[count..];
        loop {
            match decoder.next() {
                Ok(Some(pdu)) if each(pdu) => {}
                Ok(None) => break,
                _ => return,
            }
        }
    }
}

const TEXTS: [&str; 6] = [
    "InitiatorName=iqn.2026-01.test:a\0TargetName=iqn.2026-01.test:t\0AuthMethod=CHAP,None\0",
    "CHAP_A=5,7\0",
    "CHAP_N=u\0CHAP_R=0x00\0CHAP_I=1\0CHAP_C=0x0707\0",
    "HeaderDigest=CRC32C\0MaxBurstLength=512\0InitialR2T=No\0",
    "SessionType=Discovery\0InitiatorName=iqn.2026-01.test:a\0",
    "=\0\0x\0A=0x\0",
];

#[test]
fn login_survives_anything() {
    let mut done = 0;
    for seed in 1..=RUNS {
        let mut chance = Chance(seed);
        let mut stream = Out::default();
        for _ in 0..1 + chance.below(6) {
            let stage = chance.below(4) as u8;
            let mut bhs = header(opcode::LOGIN | 0x40, stage << 2 | chance.below(4) as u8 | (chance.below(4) as u8) << 6, 1);
            if chance.below(8) == 0 {
                bhs = chance.bytes(48).try_into().unwrap();
            }
            stream.pdu(&bhs, TEXTS[chance.below(6) as usize].as_bytes());
        }
        let mut bytes = stream.bytes().to_vec();
        for _ in 0..chance.below(4) {
            let at = chance.below(bytes.len() as u64) as usize;
            bytes[at] = chance.next() as u8;
        }
        let (mut login, mut out) = (Login::new(), Out::default());
        decoded(&bytes, |pdu| match login.receive(&pdu, &mut Open, &mut out) {
            LoginStep::Continue => true,
            LoginStep::Done(_) => {
                done += 1;
                false
            }
            LoginStep::Refused(..) => false,
        });
        assert!(out.len() < 1 << 20, "seed {seed}");
    }
    assert!(done > 0, "not one of {RUNS} logins came through: the test is not testing");
}

fn established() -> Established {
    let parameters = Parameters { initial_r2t: false, max_outstanding_r2t: 3, ..Parameters::default() };
    let identity = Identity { target: Some("iqn.2026-01.test:t".to_owned()), ..Identity::default() };
    Established { identity, parameters, exp_cmd_sn: 1, stat_sn: 1 }
}

fn random_pdu(chance: &mut Chance, cmd_sn: &mut u32, asked: &[(u32, u32, u32, u32)]) -> (Bhs, Vec<u8>) {
    let codes = [0x00, 0x01, 0x01, 0x01, 0x02, 0x04, 0x05, 0x05, 0x05, 0x10, 0x1f];
    let mut bhs: Bhs = chance.bytes(48).try_into().unwrap();
    bhs[0] = codes[chance.below(codes.len() as u64) as usize];
    bhs[4] = 0;
    bhs[16..20].copy_from_slice(&(chance.below(4) as u32).to_be_bytes());
    bhs[20..24].copy_from_slice(&(chance.below(40_000) as u32).to_be_bytes());
    if bhs[0] != 0x05 {
        bhs[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
        *cmd_sn += 1;
    }
    let mut data = chance.below(600) as usize;
    if bhs[0] == 0x05 && !asked.is_empty() && chance.below(4) > 0 {
        // Mostly what was asked for, so that transfers come to their end.
        let (tag, transfer_tag, offset, length) = asked[chance.below(asked.len() as u64) as usize];
        for (at, value) in [(16, tag), (20, transfer_tag), (36, 0), (40, offset)] {
            bhs[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        data = length.min(8192) as usize;
    }
    (bhs, vec![0x5a; data])
}

#[test]
fn a_session_survives_anything() {
    let mut complete = 0;
    for seed in 1..=RUNS {
        let mut chance = Chance(seed);
        let mut session: Session<u32> = Session::new(&established(), Budget::new(1 << 20));
        let (mut out, mut cmd_sn, mut asked) = (Out::default(), 1, Vec::new());
        for _ in 0..60 {
            let (bhs, data) = random_pdu(&mut chance, &mut cmd_sn, &asked);
            let mut wire = Out::default();
            wire.pdu(&bhs, &data);
            let mut open = true;
            decoded(wire.bytes(), |pdu| {
                open = match session.receive(pdu, &mut out) {
                    Step::Command(command) => {
                        let wanted = chance.below(70_000) as u32;
                        !matches!(session.begin_write(&command, wanted, 0, &mut out), Begun::Close(_))
                    }
                    Step::DataComplete(transfer) => {
                        assert_eq!(transfer.data().len(), transfer.wanted_bytes as usize, "seed {seed}");
                        complete += 1;
                        true
                    }
                    Step::Close(_) | Step::Logout => false,
                    _ => true,
                };
                open
            });
            if !open {
                break;
            }
            decoded(out.bytes(), |pdu| {
                if pdu.opcode() == opcode::R2T {
                    asked.push((pdu.initiator_task_tag(), pdu.target_transfer_tag(), pdu.word(40), pdu.word(44)));
                }
                true
            });
            out.clear();
            assert!(session.waiting() <= 136, "seed {seed}");
        }
    }
    assert!(complete > 0, "not one transfer came to its end: the test is not testing");
}
