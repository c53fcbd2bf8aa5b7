//! One TCP connection, from its first byte to its end, on its own thread.
//!
//! All PDUs that one read brings are served before anything is sent, so many answers leave with one write. Files are read
//! and written here, in place: there is no hand-over to another thread.

use crate::engine::Engine;
use crate::execute::{Outcome, execute, read_sense};
use crate::gate::Refused;
use crate::gatekeeper::Door;
use crate::log;
use crate::persistent;
use crate::portal::Waiting;
use crate::sessions::{SessionEntry, attention};
use gespann_iscsi::login::Identity;
use gespann_iscsi::pdu::{Pdu, reject};
use gespann_iscsi::session::{Begun, ReadAnswer, Residual, TaskManagement, task};
use gespann_iscsi::transfer::Transfer;
use gespann_iscsi::{Command, DecodeError, Decoder, Established, Login, LoginStep, Out, Session, Step, text};
use gespann_scsi::persistent::{Class, class_of};
use gespann_scsi::{Lun, Plan, Range, Sense, plan, plan_for_absent_lun, status};
use gespann_store::Volume;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Answers are sent when this much has gathered, or nothing more is to be read.
const FLUSH_BYTES: usize = 256 * 1024;
const READ_PIECE_BYTES: u32 = 512 * 1024;
/// Buffers of a silent session shrink to this.
const IDLE_BUFFER_BYTES: usize = 64 * 1024;
const LOGIN_DATA_BYTES: usize = 8192;
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// A discovery session asks one question.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub login: Duration,
    pub ping_after: Duration,
    pub missed_pings: u32,
}

/// Why a connection ends, for the log. `None`: in order.
type End = Option<String>;

pub fn serve(engine: &Engine, stream: TcpStream, peer: SocketAddr, timing: Timing, logging_in: Waiting) {
    let stream = Arc::new(stream);
    let mut wire = Wire { stream: stream.clone(), decoder: Decoder::new(LOGIN_DATA_BYTES), out: Out::default() };
    let mut door = Door { engine, address: peer.ip().to_canonical(), stream: &stream, entry: None };
    let result =
        wire.prepare().map_err(|error| Some(error.to_string())).and_then(|()| log_in(&mut wire, &mut door, peer, timing));
    // A discovery session has proved nothing: it stays among those that have yet to log in, and does not last.
    let _discovering = door.entry.is_none().then_some(logging_in);
    let entered = door.entry.take().map(|entry| Entered { engine, entry });
    let end = match result {
        Ok(established) => {
            let entry = entered.as_ref().map(|entered| entered.entry.clone());
            FullFeature::run(engine, wire, &established, entry, peer, timing)
        }
        Err(end) => end,
    };
    if let Some(Entered { entry, .. }) = &entered {
        log!(Info, "session {} of {} ended: {}", entry.ticket.session, entry.initiator, end.as_deref().unwrap_or("logged out"));
    } else if let Some(reason) = end {
        log!(Info, "{peer}: {reason}");
    }
}

/// A session that is entered with the engine; it leaves when this is dropped, should its thread panic as well: a volume
/// for one host must not stay taken by nobody.
struct Entered<'a> {
    engine: &'a Engine,
    entry: Arc<SessionEntry>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.engine.sessions.remove(&self.entry);
    }
}

/// The socket with what was read and what is to be sent.
#[derive(Debug)]
struct Wire {
    stream: Arc<TcpStream>,
    decoder: Decoder,
    out: Out,
}

impl Wire {
    fn prepare(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.set_write_timeout(Some(SEND_TIMEOUT))
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            (&*self.stream).write_all(self.out.bytes())?;
            self.out.clear();
        }
        Ok(())
    }

    /// False at the end of the stream.
    fn read(&mut self) -> io::Result<bool> {
        loop {
            match (&*self.stream).read(self.decoder.space()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.decoder.filled(count);
                    return Ok(count > 0);
                }
            }
        }
    }
}

fn log_in(wire: &mut Wire, door: &mut Door<'_>, peer: SocketAddr, timing: Timing) -> Result<Box<Established>, End> {
    let deadline = Instant::now() + timing.login;
    let mut login = Login::new();
    let failed = |error: io::Error| Some(format!("the connection was lost during login: {error}"));
    loop {
        match wire.decoder.next() {
            Err(_) => return Err(Some("bytes that are no login request".to_owned())),
            Ok(Some(pdu)) => {
                let step = login.receive(&pdu, door, &mut wire.out);
                wire.flush().map_err(failed)?;
                match step {
                    LoginStep::Continue => {}
                    LoginStep::Done(established) => return Ok(established),
                    LoginStep::Refused(status, reason) => {
                        let Identity { initiator, target, .. } = login.identity();
                        return Err(Some(format!(
                            "login of {initiator:?} to {target:?} refused with {:#06x}: {reason}",
                            status.0
                        )));
                    }
                }
            }
            Ok(None) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Some(format!("no login within {} s", timing.login.as_secs())));
                }
                wire.stream.set_read_timeout(Some(left)).map_err(failed)?;
                match wire.read() {
                    Ok(true) => {}
                    Ok(false) => return Err((wire.decoder.received() > 0).then(|| format!("{peer} left during login"))),
                    Err(error) if is_timeout(&error) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// What is kept of a command while its data is on the way.
#[derive(Debug)]
struct Pending {
    plan: Plan,
    class: Class,
    lun: Arc<Lun>,
    resets: u64,
    command_bytes: u64,
}

/// What a normal session has and a discovery session has not.
#[derive(Debug)]
struct Disk {
    entry: Arc<SessionEntry>,
    lun: Arc<Lun>,
    version: u64,
    resets: u64,
}

struct FullFeature<'a> {
    engine: &'a Engine,
    wire: Wire,
    session: Session<Pending>,
    identity: Identity,
    peer: SocketAddr,
    disk: Option<Disk>,
}

impl<'a> FullFeature<'a> {
    fn run(
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
        let disk = entry.map(|entry| Disk {
            lun: entry.export.lun(),
            version: 0,
            resets: entry.export.gate.resets(&entry.ticket),
            entry,
        });
        let mut this = Self { engine, wire, session: Session::new(established), identity, peer, disk };
        this.serve(timing)
    }

    fn serve(&mut self, timing: Timing) -> End {
        let lost = |error: io::Error| Some(format!("the connection was lost: {error}"));
        if let Err(error) = self.wire.stream.set_read_timeout(Some(timing.ping_after)) {
            return lost(error);
        }
        let mut unanswered = 0;
        let started = Instant::now();
        loop {
            if self.disk.is_none() && started.elapsed() > DISCOVERY_LIMIT {
                return Some("a discovery session that lasted too long".to_owned());
            }
            let verdict = self.serve_received();
            if let Err(error) = self.wire.flush() {
                return lost(error);
            }
            if let Err(end) = verdict {
                return end;
            }
            match self.wire.read() {
                Ok(true) => {
                    unanswered = 0;
                    self.disk.iter().for_each(|disk| disk.entry.note_pdu());
                }
                Ok(false) if self.revoked() => return Some("dropped".to_owned()),
                Ok(false) => return Some("the initiator closed the connection".to_owned()),
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

    fn revoked(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.entry.ticket.revoked())
    }

    /// Serves every whole PDU that is there.
    fn serve_received(&mut self) -> Result<(), End> {
        // The decoder leaves for the time being, so that a PDU may borrow from it while the rest is at work.
        let mut decoder = std::mem::replace(&mut self.wire.decoder, Decoder::new(0));
        let result = loop {
            match decoder.next() {
                Ok(None) => break Ok(()),
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

    fn serve_pdu(&mut self, pdu: Pdu<'_>) -> Result<(), End> {
        match self.session.receive(pdu, &mut self.wire.out) {
            Step::Nothing => {}
            Step::Command(command) => self.command(&command)?,
            Step::DataComplete(transfer) => self.data_complete(transfer)?,
            Step::DataBad(transfer) => {
                self.check(transfer.initiator_task_tag, transfer.expected_bytes, Sense::DATA_LENGTH);
            }
            Step::TaskManagement(request) => self.task_management(&request)?,
            Step::SendTargets { initiator_task_tag, value } => self.send_targets(initiator_task_tag, &value),
            Step::Logout => return Err(None),
            Step::Close(reason) => return Err(Some(reason.to_owned())),
        }
        if self.wire.out.len() >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), End> {
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

    fn check(&mut self, initiator_task_tag: u32, expected_bytes: u32, sense: Sense) {
        let residual = Residual::of(expected_bytes, 0);
        self.session.respond(&mut self.wire.out, initiator_task_tag, status::CHECK_CONDITION, &sense.encode(), residual);
    }

    /// Looks at what has changed since the last command: settings of the disk, resets by others.
    fn catch_up(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        let export = &disk.entry.export;
        let version = export.version();
        if version != disk.version {
            (disk.version, disk.lun) = (version, export.lun());
        }
        let resets = export.gate.resets(&disk.entry.ticket);
        if resets != disk.resets {
            disk.resets = resets;
            self.session.abort_all();
        }
    }

    /// The unit attention to report in place of this command, if one is waiting (SPC-4 5.14).
    fn attention(&self, cdb: &[u8; 16]) -> Option<Sense> {
        const TOLD_ANYWAY: [u8; 3] = [0x03, 0x12, 0xa0]; // REQUEST SENSE, INQUIRY, REPORT LUNS
        let entry = &self.disk.as_ref()?.entry;
        if entry.attentions.load(Ordering::Acquire) == 0 || TOLD_ANYWAY.contains(&cdb[0]) {
            return None;
        }
        entry.take_attention()
    }

    fn command(&mut self, command: &Command<'_>) -> Result<(), End> {
        self.catch_up();
        let Some(disk) = &self.disk else { return Err(Some("a SCSI command in a discovery session".to_owned())) };
        let (lun, resets) = (disk.lun.clone(), disk.resets);
        let (tag, expected) = (command.initiator_task_tag, command.expected_bytes);
        let plan = if command.extended || (command.reads && command.writes) {
            Plan::Refuse(Sense::INVALID_OPCODE)
        } else if command.lun != 0 {
            plan_for_absent_lun(&command.cdb, &lun)
        } else if let Some(sense) = self.attention(&command.cdb) {
            Plan::Refuse(sense)
        } else {
            plan(&command.cdb, &lun)
        };
        let class = class_of(&command.cdb);
        disk.entry.in_flight.store(self.session.waiting() as u32 + 1, Ordering::Relaxed);
        let result = match plan {
            Plan::Refuse(sense) => {
                self.check(tag, expected, sense);
                Ok(())
            }
            // Blocks are sent, but the command says that there are none.
            Plan::CompareAndWrite { range, .. } if range.length == 0 && expected > 0 => {
                self.check(tag, expected, Sense::INVALID_FIELD_IN_CDB);
                Ok(())
            }
            Plan::Read(range) => self.read(command, range, resets, class),
            plan => {
                let command_bytes = plan.data_out_bytes(lun.block_size) as u64;
                if command_bytes == 0 {
                    self.finish(tag, expected, &Pending { plan, class, lun, resets, command_bytes }, &[])
                } else {
                    self.begin_write(command, Pending { plan, class, lun, resets, command_bytes })
                }
            }
        };
        if let Some(disk) = &self.disk {
            disk.entry.in_flight.store(self.session.waiting() as u32, Ordering::Relaxed);
        }
        result
    }

    fn begin_write(&mut self, command: &Command<'_>, pending: Pending) -> Result<(), End> {
        let wanted = if command.writes { u32::try_from(pending.command_bytes).unwrap_or(u32::MAX) } else { 0 };
        let (tag, expected) = (command.initiator_task_tag, if command.writes { command.expected_bytes } else { 0 });
        if command.immediate.len() >= wanted.min(expected) as usize && command.last {
            // All is here: not even a copy is made.
            self.session.check_immediate(command).map_err(|reason| Some(reason.to_owned()))?;
            let data = &command.immediate[..wanted.min(expected) as usize];
            return self.finish(tag, expected, &pending, data);
        }
        match self.session.begin_write(command, wanted, pending, &mut self.wire.out) {
            Begun::Waiting => Ok(()),
            Begun::Ready(_) => Err(Some("internal: data was complete after all".to_owned())),
            Begun::Close(reason) => Err(Some(reason.to_owned())),
        }
    }

    fn data_complete(&mut self, transfer: Transfer<Pending>) -> Result<(), End> {
        let Some(disk) = &self.disk else { return Ok(()) };
        disk.entry.in_flight.store(self.session.waiting() as u32 + 1, Ordering::Relaxed);
        let writes = transfer.context.class == Class::Write && !matches!(transfer.context.plan, Plan::ModeSelect { .. });
        if writes && disk.entry.export.lun().refuses_writes() {
            // Made read-only while its data was on the way.
            self.check(transfer.initiator_task_tag, transfer.expected_bytes, Sense::WRITE_PROTECTED);
            return Ok(());
        }
        let result = self.finish(transfer.initiator_task_tag, transfer.expected_bytes, &transfer.context, &transfer.data);
        self.session.recycle(transfer.data);
        if let Some(disk) = &self.disk {
            disk.entry.in_flight.store(self.session.waiting() as u32, Ordering::Relaxed);
        }
        result
    }

    /// Runs a command all of whose data is here, and answers it.
    fn finish(&mut self, tag: u32, expected: u32, pending: &Pending, data: &[u8]) -> Result<(), End> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let entry = disk.entry.clone();
        let result = match &pending.plan {
            Plan::PersistentOut { cdb, .. } => persistent::reserve_out(self.engine, &entry, pending.resets, cdb, data),
            _ => carry_out(&entry, pending, data),
        };
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(refused) => return self.refused(refused, tag, expected),
        };
        match outcome {
            Outcome::Check(sense) => self.check(tag, expected, sense),
            Outcome::Data(bytes) => return self.answer(tag, expected, &bytes),
            Outcome::WriteProtect(on) => {
                if entry.export.write_protect(on) {
                    self.engine.attend(entry.export.id, attention::MODE, Some(entry.ticket.session));
                }
                self.session.respond(&mut self.wire.out, tag, status::GOOD, &[], Residual::of(expected, pending.command_bytes));
            }
            Outcome::Good => match &pending.plan {
                Plan::Answer(bytes) => return self.answer(tag, expected, bytes),
                Plan::TellSense { allocation_length } => {
                    let sense = entry.take_attention().unwrap_or(Sense::NO_SENSE).encode();
                    return self.answer(tag, expected, &sense[..sense.len().min(*allocation_length)]);
                }
                _ => {
                    if matches!(pending.plan, Plan::Write { .. } | Plan::OrWrite { .. } | Plan::CompareAndWrite { .. }) {
                        entry.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                    }
                    let residual = Residual::of(expected, pending.command_bytes);
                    self.session.respond(&mut self.wire.out, tag, status::GOOD, &[], residual);
                }
            },
        }
        Ok(())
    }

    fn refused(&mut self, refused: Refused, tag: u32, expected: u32) -> Result<(), End> {
        match refused {
            Refused::Revoked => return Err(Some("its lease is over".to_owned())),
            Refused::Aborted => {} // no answer: a reset has aborted it
            Refused::Reserved => {
                let residual = Residual::of(expected, 0);
                self.session.respond(&mut self.wire.out, tag, status::RESERVATION_CONFLICT, &[], residual);
            }
        }
        Ok(())
    }

    fn answer(&mut self, tag: u32, expected: u32, bytes: &[u8]) -> Result<(), End> {
        let residual = Residual::of(expected, bytes.len() as u64);
        let total = (bytes.len() as u32).min(expected);
        if total == 0 {
            self.session.respond(&mut self.wire.out, tag, status::GOOD, &[], residual);
            return Ok(());
        }
        let mut answer = ReadAnswer::new(tag, total, residual);
        let copy = |buffer: &mut [u8], offset: u32| {
            buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
            Ok::<(), ()>(())
        };
        let _ = self.session.send_data(&mut self.wire.out, &mut answer, u32::MAX, copy);
        Ok(())
    }

    /// Reads straight into the bytes to be sent. A long read is admitted anew for each piece, so that a slow initiator
    /// never holds up a drain.
    fn read(&mut self, command: &Command<'_>, range: Range, resets: u64, class: Class) -> Result<(), End> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let entry = disk.entry.clone();
        let (tag, expected) = (command.initiator_task_tag, if command.reads { command.expected_bytes } else { 0 });
        let residual = Residual::of(expected, range.length);
        let total = range.length.min(expected.into()) as u32;
        let mut answer = ReadAnswer::new(tag, total, residual);
        loop {
            let permit = match entry.export.gate.admit(&entry.ticket, resets, class) {
                Ok(permit) => permit,
                Err(refused) => return self.refused(refused, tag, command.expected_bytes),
            };
            if total == 0 {
                self.session.respond(&mut self.wire.out, tag, status::GOOD, &[], residual);
                return Ok(());
            }
            let volume: &dyn Volume = entry.export.volume.as_ref();
            let fill = |buffer: &mut [u8], offset: u32| volume.read_at(buffer, range.offset + u64::from(offset));
            let done = self.session.send_data(&mut self.wire.out, &mut answer, READ_PIECE_BYTES, fill);
            drop(permit);
            match done {
                Ok(true) => break,
                Ok(false) => self.flush()?,
                Err(error) => {
                    log!(Error, "volume {}: cannot read at {}: {error}", entry.export.id, range.offset);
                    self.check(tag, command.expected_bytes, read_sense(&error));
                    return Ok(());
                }
            }
        }
        entry.read_bytes.fetch_add(total.into(), Ordering::Relaxed);
        Ok(())
    }

    fn task_management(&mut self, request: &TaskManagement) -> Result<(), End> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let entry = disk.entry.clone();
        let names_lun = matches!(request.function, task::ABORT_TASK..=task::LUN_RESET);
        let answer = match request.function {
            _ if names_lun && request.lun != 0 => task::NO_SUCH_LUN,
            task::ABORT_TASK => {
                let found = self.session.abort(request.referenced_task_tag, &mut self.wire.out);
                if found { task::COMPLETE } else { task::NO_SUCH_TASK }
            }
            task::ABORT_TASK_SET => {
                self.session.abort_all();
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
            entry.export.write_protect(false); // not saved, so a reset brings the default back
        }
        self.engine.attend(entry.export.id, bits, except);
        self.catch_up();
        if gate.drain(SEND_TIMEOUT) { task::COMPLETE } else { REJECTED }
    }
}

fn carry_out(entry: &SessionEntry, pending: &Pending, data: &[u8]) -> Result<Outcome, Refused> {
    let _permit = entry.export.gate.admit(&entry.ticket, pending.resets, pending.class)?;
    Ok(execute(&entry.export, &entry.ticket, &pending.plan, &pending.lun, data))
}
