//! The login phase of one connection (RFC 7143 sections 6.3 and 11.12).
//!
//! ```text
//!              first request                    T, NSG=1
//!   (start) ───────────────► security (CSG 0) ───────────► operational (CSG 1)
//!      │   CSG=1, no CHAP needed      │ T, NSG=3                 │ T, NSG=3
//!      └──────────────────────────────┼──► operational           │
//!                                     └──────────► full feature ◄┘
//! ```
//! Security: AuthMethod is chosen; with CHAP then CHAP_A, our challenge, the initiator's answer (and its own challenge,
//! if it wants us to prove ourselves). Whether the session may exist at all is asked from the [`Gatekeeper`] once more,
//! at the very end, in one step with making it: what was true at the first request may have been revoked meanwhile.

use crate::chap::{Algorithm, Challenge, Secret};
use crate::negotiation::{self, Answer};
use crate::out::Out;
use crate::parameters::{DEFAULT_MAX_RECV_BYTES, OUR_MAX_RECV_BYTES, Parameters};
use crate::pdu::{self, Pdu, header, opcode, put};
use crate::session::COMMAND_WINDOW;
use crate::text::{self, Pairs, TEXT_LIMIT_BYTES};

const MAX_LOGIN_PDUS: u32 = 64;

/// Status class and detail of a refused login (11.12.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginStatus(pub u16);

impl LoginStatus {
    pub const INITIATOR_ERROR: Self = Self(0x0200);
    pub const AUTHENTICATION_FAILED: Self = Self(0x0201);
    pub const FORBIDDEN: Self = Self(0x0202);
    pub const NOT_FOUND: Self = Self(0x0203);
    pub const UNSUPPORTED_VERSION: Self = Self(0x0205);
    pub const TOO_MANY_CONNECTIONS: Self = Self(0x0206);
    pub const MISSING_PARAMETER: Self = Self(0x0207);
    pub const SESSION_TYPE: Self = Self(0x0209);
    pub const NO_SUCH_SESSION: Self = Self(0x020a);
    pub const INVALID_DURING_LOGIN: Self = Self(0x020b);
    pub const TARGET_ERROR: Self = Self(0x0300);
    pub const UNAVAILABLE: Self = Self(0x0301);
    pub const OUT_OF_RESOURCES: Self = Self(0x0302);
}

/// Who is at the door. `chap_user` is set once it has been proved; no `target` means discovery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub initiator: String,
    pub target: Option<String>,
    pub chap_user: Option<String>,
    pub isid: [u8; 6],
    pub tsih: u16,
}

/// Decides who may come in. Implemented by the engine's policy; by a table in tests.
pub trait Gatekeeper {
    /// Before authentication: may this initiator try at all, and must it do CHAP?
    fn chap_required(&mut self, identity: &Identity) -> Result<bool, LoginStatus>;
    fn secret(&mut self, user: &str) -> Option<Secret>;
    /// Name and secret by which this side proves itself.
    fn mutual(&mut self) -> Option<(String, Secret)>;
    fn fill_random(&mut self, bytes: &mut [u8]);
    /// Checks everything and makes the session, in one step. Gives its handle (TSIH), never 0.
    fn establish(&mut self, identity: &Identity) -> Result<u16, LoginStatus>;
}

/// The way into full feature phase.
#[derive(Debug, Clone)]
pub struct Established {
    pub identity: Identity,
    pub parameters: Parameters,
    pub exp_cmd_sn: u32,
    pub stat_sn: u32,
}

#[derive(Debug)]
pub enum LoginStep {
    /// An answer is in `out`; go on reading.
    Continue,
    Done(Box<Established>),
    /// The refusal is in `out`; send it and close. The text is for the log.
    Refused(LoginStatus, &'static str),
}

#[derive(Debug)]
enum Security {
    Open,
    AlgorithmExpected,
    ResponseExpected(Challenge),
    Passed,
}

#[derive(Debug)]
pub struct Login {
    identity: Identity,
    parameters: Parameters,
    security: Security,
    chap_required: bool,
    started: bool,
    stage: u8,
    declared: bool,
    text: Vec<u8>,
    pdus: u32,
    stat_sn: u32,
    initiator_task_tag: u32,
    keys_seen: Vec<String>,
}

type Refusal = (LoginStatus, &'static str);
const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

fn wrong(reason: &'static str) -> Refusal {
    (LoginStatus::INITIATOR_ERROR, reason)
}

impl Default for Login {
    fn default() -> Self {
        Self::new()
    }
}

impl Login {
    pub fn new() -> Self {
        Self {
            identity: Identity::default(),
            parameters: Parameters::default(),
            security: Security::Open,
            chap_required: false,
            started: false,
            stage: SECURITY,
            declared: false,
            text: Vec::new(),
            pdus: 0,
            stat_sn: 1,
            initiator_task_tag: 0,
            keys_seen: Vec::new(),
        }
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes one PDU of the login phase; whatever it is, an answer is in `out` afterwards.
    pub fn receive(&mut self, pdu: &Pdu<'_>, gate: &mut dyn Gatekeeper, out: &mut Out) -> LoginStep {
        match self.request(pdu, gate, out) {
            Ok(step) => step,
            Err((status, reason)) => {
                let mut bhs = self.response(pdu, 0);
                bhs[36..38].copy_from_slice(&status.0.to_be_bytes());
                out.pdu(&bhs, &[]);
                LoginStep::Refused(status, reason)
            }
        }
    }

    fn response(&mut self, pdu: &Pdu<'_>, flags: u8) -> pdu::Bhs {
        let mut bhs = header(opcode::LOGIN_RESPONSE, flags, pdu.initiator_task_tag());
        bhs[8..14].copy_from_slice(&pdu.bhs[8..14]);
        bhs[14..16].copy_from_slice(&self.identity.tsih.to_be_bytes());
        put(&mut bhs, 24, self.stat_sn);
        put(&mut bhs, 28, pdu.cmd_sn());
        put(&mut bhs, 32, pdu.cmd_sn().wrapping_add(COMMAND_WINDOW - 1));
        self.stat_sn = self.stat_sn.wrapping_add(1);
        bhs
    }

    fn request(&mut self, pdu: &Pdu<'_>, gate: &mut dyn Gatekeeper, out: &mut Out) -> Result<LoginStep, Refusal> {
        let (current, next) = (pdu.flags() >> 2 & 3, pdu.flags() & 3);
        self.check_header(pdu, current, next)?;
        self.text.extend(pdu.data);
        if pdu.continues() {
            let bhs = self.response(pdu, current << 2);
            out.pdu(&bhs, &[]);
            return Ok(LoginStep::Continue);
        }
        let pairs = text::parse(&std::mem::take(&mut self.text)).map_err(wrong)?;
        let mut reply = Vec::new();
        if !self.started {
            self.start(pdu, &pairs, current, gate, &mut reply)?;
        }
        self.check_repeats(&pairs)?;
        if current == SECURITY {
            self.secure(&pairs, pdu.last(), gate, &mut reply)?;
        }
        self.negotiate(&pairs, current, &mut reply)?;
        if reply.len() > DEFAULT_MAX_RECV_BYTES as usize {
            return Err(wrong("more keys than can be answered at once"));
        }
        let granted = pdu.last() && (current == OPERATIONAL || matches!(self.security, Security::Passed));
        let mut flags = current << 2;
        if granted {
            flags |= 0x80 | next;
            self.stage = next;
        }
        if granted && next == FULL_FEATURE {
            self.check_complete()?;
            self.identity.tsih = gate.establish(&self.identity).map_err(|status| (status, "not admitted"))?;
        }
        let bhs = self.response(pdu, flags);
        out.pdu(&bhs, &reply);
        Ok(if granted && next == FULL_FEATURE { self.finish(pdu) } else { LoginStep::Continue })
    }

    fn finish(&mut self, pdu: &Pdu<'_>) -> LoginStep {
        LoginStep::Done(Box::new(Established {
            identity: std::mem::take(&mut self.identity),
            parameters: self.parameters.clone(),
            exp_cmd_sn: pdu.cmd_sn(),
            stat_sn: self.stat_sn,
        }))
    }

    fn check_header(&mut self, pdu: &Pdu<'_>, current: u8, next: u8) -> Result<(), Refusal> {
        self.pdus += 1;
        if pdu.opcode() != opcode::LOGIN || !pdu.ahs.is_empty() {
            return Err((LoginStatus::INVALID_DURING_LOGIN, "something else than a login request"));
        }
        if pdu.bhs[3] > 0 {
            return Err((LoginStatus::UNSUPPORTED_VERSION, "a later version of iSCSI only"));
        }
        let forward = !pdu.last() || (next > current && next != 2);
        if current > OPERATIONAL || !forward || (pdu.last() && pdu.continues()) {
            return Err(wrong("stages that do not exist or go back"));
        }
        if self.started && (current != self.stage || pdu.initiator_task_tag() != self.initiator_task_tag) {
            return Err(wrong("a stage or task tag other than agreed"));
        }
        if self.pdus > MAX_LOGIN_PDUS || self.text.len() + pdu.data.len() > TEXT_LIMIT_BYTES {
            return Err(wrong("too much text"));
        }
        Ok(())
    }

    /// The first complete request says who is asking for what.
    fn start(
        &mut self,
        pdu: &Pdu<'_>,
        pairs: &Pairs,
        current: u8,
        gate: &mut dyn Gatekeeper,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let find = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let initiator = find("InitiatorName").ok_or((LoginStatus::MISSING_PARAMETER, "no InitiatorName"))?;
        if !text::is_iscsi_name(initiator) {
            return Err(wrong("an InitiatorName that is no iSCSI name"));
        }
        let target = match find("SessionType") {
            None | Some("Normal") => {
                Some(find("TargetName").ok_or((LoginStatus::MISSING_PARAMETER, "no TargetName"))?.to_owned())
            }
            Some("Discovery") => None,
            Some(_) => return Err((LoginStatus::SESSION_TYPE, "an unknown SessionType")),
        };
        self.identity.initiator = initiator.to_owned();
        self.identity.target = target;
        self.identity.isid.copy_from_slice(&pdu.bhs[8..14]);
        let tsih = u16::from_be_bytes([pdu.bhs[14], pdu.bhs[15]]);
        if tsih != 0 {
            return Err((LoginStatus::NO_SUCH_SESSION, "another connection for a session"));
        }
        self.chap_required = gate.chap_required(&self.identity).map_err(|status| (status, "not admitted"))?;
        if current == OPERATIONAL && self.chap_required {
            return Err((LoginStatus::AUTHENTICATION_FAILED, "no authentication where CHAP is needed"));
        }
        (self.started, self.stage, self.initiator_task_tag) = (true, current, pdu.initiator_task_tag());
        if self.identity.target.is_some() {
            text::add(reply, "TargetPortalGroupTag", "1");
        }
        Ok(())
    }

    /// A key is negotiated once in a login.
    fn check_repeats(&mut self, pairs: &Pairs) -> Result<(), Refusal> {
        const DECLARED_AGAIN: [&str; 4] = ["InitiatorName", "TargetName", "SessionType", "InitiatorAlias"];
        for (key, _) in pairs.iter().filter(|(key, _)| !DECLARED_AGAIN.contains(&key.as_str())) {
            if self.keys_seen.contains(key) {
                return Err(wrong("a key that was negotiated before"));
            }
            self.keys_seen.push(key.clone());
        }
        if self.keys_seen.len() > 512 { Err(wrong("too many keys")) } else { Ok(()) }
    }

    fn secure(&mut self, pairs: &Pairs, last: bool, gate: &mut dyn Gatekeeper, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let find = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        match std::mem::replace(&mut self.security, Security::Open) {
            Security::Open if !last && find("AuthMethod").is_none() => Ok(()),
            Security::Open => self.choose_method(find("AuthMethod"), reply),
            Security::AlgorithmExpected => self.challenge(find("CHAP_A"), gate, reply),
            Security::ResponseExpected(challenge) => {
                self.verify(&challenge, &find, gate)?;
                self.security = Security::Passed;
                self.prove(&challenge, &find, gate, reply)
            }
            Security::Passed => {
                self.security = Security::Passed;
                Ok(())
            }
        }
    }

    /// The initiator's list is in its order of preference. No AuthMethod at all means None.
    fn choose_method(&mut self, offer: Option<&str>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let offered = offer.unwrap_or("None");
        let usable = |method: &&str| *method == "CHAP" || (*method == "None" && !self.chap_required);
        let Some(method) = offered.split(',').map(str::trim).find(usable) else {
            return Err((LoginStatus::AUTHENTICATION_FAILED, "no authentication method in common"));
        };
        if offer.is_some() {
            text::add(reply, "AuthMethod", method);
        }
        self.security = if method == "CHAP" { Security::AlgorithmExpected } else { Security::Passed };
        Ok(())
    }

    fn challenge(&mut self, offer: Option<&str>, gate: &mut dyn Gatekeeper, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let algorithm = offer.and_then(Algorithm::choose);
        let algorithm = algorithm.ok_or((LoginStatus::AUTHENTICATION_FAILED, "no CHAP algorithm in common"))?;
        let mut random = [0; 33];
        gate.fill_random(&mut random);
        let bytes = random[1..=algorithm.challenge_bytes()].to_vec();
        text::add(reply, "CHAP_A", &(algorithm as u8).to_string());
        text::add(reply, "CHAP_I", &random[0].to_string());
        text::add(reply, "CHAP_C", &text::hex(&bytes));
        self.security = Security::ResponseExpected(Challenge { algorithm, identifier: random[0], bytes });
        Ok(())
    }

    fn verify<'a>(
        &mut self,
        challenge: &Challenge,
        find: &dyn Fn(&str) -> Option<&'a str>,
        gate: &mut dyn Gatekeeper,
    ) -> Result<(), Refusal> {
        let failed = |reason| (LoginStatus::AUTHENTICATION_FAILED, reason);
        let user = find("CHAP_N").ok_or(failed("no CHAP_N"))?;
        let response = find("CHAP_R").and_then(|value| text::binary(value, 64)).ok_or(failed("no CHAP_R"))?;
        let secret = gate.secret(user);
        if !challenge.accepts(secret.as_ref(), &response) {
            return Err(failed("wrong CHAP user or secret"));
        }
        self.identity.chap_user = Some(user.to_owned());
        Ok(())
    }

    /// Answers the initiator's own challenge. Its challenge must not be ours sent back (12.1.3): answering that would
    /// hand out a response that somebody else could use.
    fn prove<'a>(
        &mut self,
        ours: &Challenge,
        find: &dyn Fn(&str) -> Option<&'a str>,
        gate: &mut dyn Gatekeeper,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let failed = |reason| (LoginStatus::AUTHENTICATION_FAILED, reason);
        let (Some(identifier), Some(challenge)) = (find("CHAP_I"), find("CHAP_C")) else { return Ok(()) };
        let identifier = text::number(identifier).and_then(|n| u8::try_from(n).ok()).ok_or(failed("a wrong CHAP_I"))?;
        let challenge = text::binary(challenge, 1024).ok_or(failed("a wrong CHAP_C"))?;
        if challenge == ours.bytes {
            return Err(failed("our own challenge sent back"));
        }
        let (name, secret) = gate.mutual().ok_or(failed("mutual CHAP is not set up"))?;
        text::add(reply, "CHAP_N", &name);
        text::add(reply, "CHAP_R", &text::hex(&ours.algorithm.response(identifier, &secret, &challenge)));
        Ok(())
    }

    fn negotiate(&mut self, pairs: &Pairs, current: u8, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        for (key, offer) in pairs {
            match key.as_str() {
                "InitiatorName" | "TargetName" | "SessionType" | "AuthMethod" => {}
                "CHAP_A" | "CHAP_N" | "CHAP_R" | "CHAP_I" | "CHAP_C" if current == SECURITY => {}
                _ => match negotiation::negotiate(&mut self.parameters, key, offer).map_err(wrong)? {
                    Answer::Silent => {}
                    Answer::Value(value) => text::add(reply, key, &value),
                    Answer::Other => text::add(reply, key, "NotUnderstood"),
                },
            }
        }
        if current == OPERATIONAL && !self.declared {
            self.declared = true;
            self.parameters.target_max_recv_bytes = OUR_MAX_RECV_BYTES;
            text::add(reply, "MaxRecvDataSegmentLength", &OUR_MAX_RECV_BYTES.to_string());
        }
        Ok(())
    }

    fn check_complete(&mut self) -> Result<(), Refusal> {
        if self.chap_required && self.identity.chap_user.is_none() {
            return Err((LoginStatus::AUTHENTICATION_FAILED, "no authentication where CHAP is needed"));
        }
        self.parameters.first_burst_bytes = self.parameters.first_burst_bytes.min(self.parameters.max_burst_bytes);
        Ok(())
    }
}
