//! A session after its login: PDUs in, answers out, and what is no SCSI command.

use super::busy_poll::BusyPoll;
use super::wire::{SEND_TIMEOUT, Wait, Wire, is_timeout};
use super::{End, Timing};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::gate::Refused;
use crate::log;
use crate::sanitize;
use crate::sessions::{SessionEntry, attention};
use gespann_iscsi::login::Identity;
use gespann_iscsi::pdu::{Pdu, reject};
use gespann_iscsi::session::{Residual, TaskManagement, task};
use gespann_iscsi::{DecodeError, Decoder, Established, Session, Step, text};
use gespann_scsi::mode::Settings;
use gespann_scsi::persistent::Class;
use gespann_scsi::{Lun, Plan, Sense};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Answers are sent when this much has gathered, or nothing more is to be read.
const FLUSH_BYTES: usize = 256 * 1024;
/// Buffers of a silent session shrink to this.
const IDLE_BUFFER_BYTES: usize = 64 * 1024;
/// A discovery session asks one question.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(60);

/// How often a session that waits for room looks whether there is some, or one that owes an answer whether it can be given.
const HELD_BACK_POLL: Duration = Duration::from_millis(5);

/// What is kept of a command while its data is on the way.
#[derive(Debug)]
pub struct Pending {
    pub plan: Plan,
    pub class: Class,
    pub lun: Arc<Lun>,
    pub resets: u64,
    pub command_bytes: u64,
    /// If it waits for data.
    pub begun: Option<Instant>,
    /// How it has ended before all of its data is here: the rest is received, and not looked at.
    pub ended: Option<Result<Outcome, Refused>>,
}

/// A command that was begun and is answered when it ends; meanwhile the session goes on.
#[derive(Debug)]
pub struct Deferred {
    pub initiator_task_tag: u32,
    pub expected_bytes: u32,
    pub residual: Residual,
    pub ends: Arc<sanitize::Outcome>,
}

/// What a normal session has and a discovery session has not.
#[derive(Debug)]
pub struct Disk {
    pub entry: Arc<SessionEntry>,
    pub lun: Arc<Lun>,
    version: u64,
    pub resets: u64,
}

pub struct FullFeature<'a> {
    pub engine: &'a Engine,
    pub wire: Wire,
    pub session: Session<Pending>,
    pub deferred: Vec<Deferred>,
    identity: Identity,
    peer: SocketAddr,
    pub disk: Option<Disk>,
    busy_poll: BusyPoll<'a>,
    /// Of what was read last, what went straight to its place.
    placed_bytes: usize,
}

impl<'a> FullFeature<'a> {
    pub fn run(
        engine: &'a Engine,
        mut wire: Wire,
        established: &Established,
        entry: Option<Arc<SessionEntry>>,
        peer: SocketAddr,
        timing: Timing,
    ) -> End {
        let parameters = &established.parameters;
        (wire.out.header_digest, wire.out.data_digest) = (parameters.header_digest, parameters.data_digest);
        (wire.decoder.header_digest, wire.decoder.data_digest) = (parameters.header_digest, parameters.data_digest);
        wire.decoder.max_data_bytes = parameters.target_max_recv_bytes as usize;
        let identity = established.identity.clone();
        if let Some(entry) = &entry {
            let (name, user) = (&entry.export.target().name, &entry.chap_user);
            let session = entry.ticket.session;
            log!(
                Info,
                "session {session}: {} from {peer} on {name}, CHAP user {user:?}, generation {}",
                entry.initiator,
                entry.ticket.generation
            );
        }
        wire.volume = entry.as_ref().map(|entry| entry.export.volume.clone());
        let disk = entry.map(|entry| Disk {
            lun: own(&entry.export.lun()),
            version: 0,
            resets: entry.export.gate.resets(&entry.ticket),
            entry,
        });
        let (session, deferred) = (Session::new(established, engine.write_data.clone()), Vec::new());
        let busy_poll = BusyPoll::new(&engine.pollers, timing.busy_poll);
        let mut this = Self { engine, wire, session, deferred, identity, peer, disk, busy_poll, placed_bytes: 0 };
        this.serve(timing)
    }

    fn serve(&mut self, timing: Timing) -> End {
        let lost = |error: io::Error| Some(format!("the connection was lost: {error}"));
        let (mut unanswered, mut patience) = (0, Duration::ZERO);
        let started = Instant::now();
        loop {
            if self.disk.is_none() && started.elapsed() > DISCOVERY_LIMIT {
                return Some("a discovery session that lasted too long".to_owned());
            }
            let verdict = self.serve_received();
            self.answer_deferred();
            if let Err(end) = self.flush() {
                return end;
            }
            if let Err(end) = verdict {
                return end;
            }
            if self.engine.write_data.contended() && self.oldest_data().is_some_and(|age| age > timing.data) {
                return Some("it did not send its data, and others wait for the room".to_owned());
            }
            let looks_again = self.session.held_back() || !self.deferred.is_empty();
            let wanted = if looks_again { HELD_BACK_POLL } else { timing.ping_after };
            if wanted != std::mem::replace(&mut patience, wanted) {
                if let Err(error) = self.wire.stream.set_read_timeout(Some(wanted)) {
                    return lost(error);
                }
            }
            match self.receive() {
                Ok(1..) => {
                    unanswered = 0;
                    self.disk.iter().for_each(|disk| disk.entry.note_pdu());
                }
                Ok(0) if self.revoked() => return Some("dropped".to_owned()),
                Ok(0) => return Some("the initiator closed the connection".to_owned()),
                Err(error) if is_timeout(&error) && self.session.held_back() => self.session.ask_for_data(&mut self.wire.out),
                Err(error) if is_timeout(&error) && !self.deferred.is_empty() => {}
                Err(error) if is_timeout(&error) => {
                    if unanswered >= timing.missed_pings {
                        return Some(format!("{unanswered} pings were not answered"));
                    }
                    unanswered += 1;
                    self.wire.decoder.shrink();
                    self.wire.out.shrink(IDLE_BUFFER_BYTES);
                    self.session.shrink();
                    self.session.ping(&mut self.wire.out);
                }
                Err(error) => return lost(error),
            }
        }
    }

    fn oldest_data(&self) -> Option<Duration> {
        self.session.oldest().and_then(|pending| pending.begun).map(|begun| begun.elapsed())
    }

    fn revoked(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.entry.ticket.revoked())
    }

    /// Serves every whole PDU that is there.
    fn serve_received(&mut self) -> Result<(), End> {
        if self.placed_bytes > 0 {
            let step = self.session.placed(std::mem::take(&mut self.placed_bytes), &mut self.wire.out);
            self.take_step(step)?;
        }
        // The decoder leaves for the time being, so that a PDU may borrow from it while the rest is at work.
        let mut decoder = std::mem::replace(&mut self.wire.decoder, Decoder::new(0));
        let result = loop {
            match decoder.next() {
                Ok(None) => {
                    self.session.arrive(&mut decoder);
                    break Ok(());
                }
                Ok(Some(pdu)) => {
                    if let Err(end) = self.serve_pdu(pdu) {
                        break Err(end);
                    }
                }
                Err(error) => break Err(self.undecodable(error)),
            }
        };
        self.wire.decoder = decoder;
        result
    }

    fn undecodable(&mut self, error: DecodeError) -> End {
        Some(match error {
            DecodeError::TooLong => "a data segment longer than agreed".to_owned(),
            DecodeError::HeaderDigest => "a header digest did not match".to_owned(),
            DecodeError::DataDigest(bhs) => {
                self.session.reject(&bhs, reject::DATA_DIGEST, &mut self.wire.out);
                "a data digest did not match".to_owned()
            }
        })
    }

    /// More of the stream: how many bytes. Data of a long Data-Out goes straight to its place.
    fn receive(&mut self) -> io::Result<usize> {
        if let Some(turn) = self.busy_poll.turn() {
            loop {
                match self.hear(Wait::Never) {
                    Err(error) if is_timeout(&error) => {}
                    heard => {
                        self.busy_poll.found();
                        return heard;
                    }
                }
                if !turn.goes_on() {
                    break;
                }
            }
            self.busy_poll.missed();
        }
        let begun = Instant::now();
        let heard = self.hear(Wait::Asleep);
        self.busy_poll.slept(begun.elapsed());
        heard
    }

    fn hear(&mut self, how: Wait) -> io::Result<usize> {
        let Some(place) = self.session.place() else { return self.wire.read(how) };
        let (count, placed) = self.wire.read_to(place, how)?;
        self.placed_bytes = placed;
        Ok(count)
    }

    fn serve_pdu(&mut self, pdu: Pdu<'_>) -> Result<(), End> {
        let step = self.session.receive(pdu, &mut self.wire.out);
        self.take_step(step)
    }

    fn take_step(&mut self, step: Step<'_, Pending>) -> Result<(), End> {
        match step {
            Step::Nothing => {}
            Step::Command(command) => self.command(&command)?,
            Step::DataComplete(transfer) => self.data_complete(transfer)?,
            Step::Part { initiator_task_tag } => self.write_part(initiator_task_tag)?,
            Step::DataBad(transfer) => {
                self.check(transfer.initiator_task_tag, transfer.expected_bytes, Sense::DATA_LENGTH);
            }
            Step::TaskManagement(request) => self.task_management(&request)?,
            Step::SendTargets { initiator_task_tag, value } => self.send_targets(initiator_task_tag, &value),
            Step::Logout => {
                // Before it is answered: whoever was told that it is over finds no trace of it, and a volume that others may use.
                if let Some(disk) = &self.disk {
                    disk.entry.export.gate.revoke(&disk.entry.ticket);
                }
                return Err(None);
            }
            Step::Close(reason) => return Err(Some(reason.to_owned())),
        }
        self.flush_if_full()
    }

    pub fn flush_if_full(&mut self) -> Result<(), End> {
        if self.wire.out.len() >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    pub fn flush(&mut self) -> Result<(), End> {
        self.wire.flush().map_err(|error| Some(format!("the connection was lost: {error}")))
    }

    fn send_targets(&mut self, initiator_task_tag: u32, value: &str) {
        let own = self.identity.target.clone();
        // In a normal session an empty value means its own target, and "All" is for discovery only (RFC 7143 appendix C).
        let wanted = match (value, own) {
            ("All", None) => "",
            ("", Some(_)) => self.identity.target.as_deref().unwrap_or_default(),
            ("" | "All", _) => "iqn.none",
            (name, _) => name,
        };
        let mut reply = Vec::new();
        if let Ok(local) = self.wire.stream.local_addr() {
            let address = self.peer.ip().to_canonical();
            for (name, portal) in self.engine.discover(&self.identity, address, local, wanted) {
                text::add(&mut reply, "TargetName", &name);
                text::add(&mut reply, "TargetAddress", &portal);
            }
        }
        self.session.send_text(initiator_task_tag, reply, &mut self.wire.out);
    }

    /// Looks at what has changed since the last command: settings of the disk, resets by others.
    pub fn catch_up(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        let export = &disk.entry.export;
        let version = export.version();
        if version != disk.version {
            (disk.version, disk.lun) = (version, own(&export.lun()));
        }
        let resets = export.gate.resets(&disk.entry.ticket);
        if resets != disk.resets {
            disk.resets = resets;
            self.session.abort_all();
            self.deferred.clear();
        }
    }

    fn task_management(&mut self, request: &TaskManagement) -> Result<(), End> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let entry = disk.entry.clone();
        let names_lun = matches!(request.function, task::ABORT_TASK..=task::LUN_RESET);
        let answer = match request.function {
            _ if names_lun && request.lun != 0 => task::NO_SUCH_LUN,
            task::ABORT_TASK => {
                let before = self.deferred.len();
                self.deferred.retain(|deferred| deferred.initiator_task_tag != request.referenced_task_tag);
                let was_deferred = self.deferred.len() < before;
                let found = self.session.abort(request.referenced_task_tag, &mut self.wire.out) || was_deferred;
                if found { task::COMPLETE } else { task::NO_SUCH_TASK }
            }
            task::ABORT_TASK_SET => {
                self.session.abort_all();
                self.deferred.clear();
                task::COMPLETE
            }
            task::CLEAR_TASK_SET => self.reset(&entry, attention::CLEARED, false, Some(entry.ticket.session)),
            task::LUN_RESET | task::TARGET_WARM_RESET | task::TARGET_COLD_RESET => {
                self.reset(&entry, attention::RESET, true, None)
            }
            _ => task::NOT_SUPPORTED,
        };
        self.session.answer_task_management(&mut self.wire.out, request.initiator_task_tag, answer);
        if request.function == task::TARGET_COLD_RESET {
            self.flush()?;
            log!(Info, "session {}: cold reset of its target", entry.ticket.session);
            self.engine.sessions.drop_where(entry.export.id, |_| true);
            return Err(Some("cold reset".to_owned()));
        }
        Ok(())
    }

    /// Voids what waits in all sessions and waits for what runs; then it is over and may be answered.
    /// A reset is told to every session, a cleared task set to the others (SAM-5 5.14, 6.3).
    fn reset(&mut self, entry: &SessionEntry, bits: u32, releases_reservation: bool, except: Option<u64>) -> u8 {
        const REJECTED: u8 = 255;
        let gate = &entry.export.gate;
        gate.reset(releases_reservation);
        if releases_reservation {
            entry.export.set_settings(Settings::default()); // not saved, so a reset brings the defaults back
        }
        self.engine.attend(entry.export.id, bits, except);
        self.catch_up();
        if gate.drain_commands(SEND_TIMEOUT) { task::COMPLETE } else { REJECTED }
    }
}

/// A copy that no other session counts references of: that would go from processor to processor with every command.
fn own(lun: &Lun) -> Arc<Lun> {
    Arc::new(lun.clone())
}
