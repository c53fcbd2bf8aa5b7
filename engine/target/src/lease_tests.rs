//! Leases from end to end: an initiator on a real socket writes to a volume that stands still, its right is revoked, its
//! session dropped, the volume drained, and the next owner writes. No write of the first may land after that. When a machine
//! moves to another host while it runs, nobody is dropped: the right to write moves, and the first may go on reading.
//!
//! The same is then done with one rule taken out at a time: a late write must be found, or these tests would prove nothing.

use crate::api;
use crate::connection::Timing;
use crate::engine::Engine;
use crate::engine::one_volume::{A, OneVolume};
use crate::gate::Rule;
use crate::portal::{self, Limits};
use gespann_control::{Reply, Request};
use gespann_iscsi::pdu::{header, opcode, put};
use gespann_iscsi::{Decoder, Out};
use gespann_store::faulty::{Faults, FaultyVolume};
use gespann_store::memory::MemoryVolume;
use gespann_store::{BlockError, Extent, Volume};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const OLD: (&str, u8) = ("iqn.2026-01.test:start-1", 0xaa);
const NEW: (&str, u8) = ("iqn.2026-01.test:start-2", 0xbb);
const TARGET: &str = "iqn.2026-01.test:a";
const DEADLINE: Duration = Duration::from_secs(60);

/// Sees each write when it lands.
#[derive(Debug)]
struct Judge {
    volume: MemoryVolume,
    granted: AtomicBool,
    in_time: AtomicUsize,
    late: AtomicUsize,
}

impl Volume for Judge {
    fn size_bytes(&self) -> u64 {
        self.volume.size_bytes()
    }
    fn thick(&self) -> bool {
        true
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlockError> {
        self.volume.read_at(buffer, offset)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let landed = if self.granted.load(Ordering::SeqCst) { &self.late } else { &self.in_time };
        landed.fetch_add(usize::from(data[0] == OLD.1), Ordering::SeqCst);
        self.volume.write_at(data, offset)
    }
    fn zero(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        self.volume.zero(offset, length)
    }
    fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }
    fn extent(&self, offset: u64) -> Result<Extent, BlockError> {
        self.volume.extent(offset)
    }
    fn or_write(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        self.volume.or_write(data, offset)
    }
    fn compare_and_write(&self, offset: u64, expected: &[u8], new: &[u8]) -> Result<Option<usize>, BlockError> {
        self.volume.compare_and_write(offset, expected, new)
    }
}

/// An initiator of so few words that each can be seen.
struct Initiator {
    socket: TcpStream,
    value: u8,
}

impl Initiator {
    fn log_in(portal: SocketAddr, (name, value): (&str, u8)) -> Self {
        let socket = TcpStream::connect(portal).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut this = Self { socket, value };
        let mut bhs = header(opcode::LOGIN | 0x40, 0x87, 1);
        put(&mut bhs, 24, 1);
        let mut out = Out::default();
        out.pdu(&bhs, format!("InitiatorName={name}\0TargetName={TARGET}\0InitialR2T=Yes\0").as_bytes());
        this.socket.write_all(out.bytes()).unwrap();
        assert_eq!(this.answer(36), 0, "login status");
        this
    }

    /// So many writes of the first block, in one piece.
    fn send_writes(&mut self, count: u32) {
        let mut out = Out::default();
        for index in 0..count {
            let mut bhs = header(opcode::SCSI_COMMAND, 0xa0, 10 + index);
            put(&mut bhs, 20, 512);
            put(&mut bhs, 24, 1 + index);
            bhs[32..42].copy_from_slice(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
            out.pdu(&bhs, &[self.value; 512]);
        }
        self.socket.write_all(out.bytes()).unwrap();
    }

    /// The byte of the next answer's header at `position`.
    fn answer(&mut self, position: usize) -> u8 {
        let mut decoder = Decoder::new(8192);
        loop {
            if let Some(pdu) = decoder.next().unwrap() {
                return pdu.bhs[position];
            }
            let count = self.socket.read(decoder.space()).unwrap();
            assert!(count > 0, "the target closed the connection");
            decoder.filled(count);
        }
    }
}

struct Bench {
    engine: Arc<Engine>,
    faults: Arc<Faults>,
    judge: Arc<Judge>,
    portal: SocketAddr,
}

fn ask(engine: &Arc<Engine>, op: &str, args: Value) -> Reply {
    api::handle(engine, Request::from_parts(op, args).unwrap()).unwrap()
}

fn target(generation: u64) -> Value {
    // For several hosts, so that nothing but the three rules stands between the two.
    json!({"volume": A.to_string(), "name": TARGET, "online": true, "multihost": true, "generation": generation,
           "access": [{}]})
}

/// As for a machine that moves: both are logged in, and the right is of the new one.
fn move_right(engine: &Arc<Engine>) {
    let mut moved = target(1);
    moved["writer"] = json!(NEW.0);
    ask(engine, "target.put", json!({"target": moved}));
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

impl Bench {
    fn new(without: Option<Rule>) -> Self {
        let faults = Arc::new(Faults::default());
        let (granted, in_time, late) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let judge = Arc::new(Judge { volume: MemoryVolume::new(4096), granted, in_time, late });
        let volume = Arc::new(FaultyVolume { inner: judge.clone(), faults: faults.clone() });
        let engine = Arc::new(Engine::new(Arc::new(OneVolume { volume }), String::new()));
        ask(&engine, "configure", json!({"targets": [target(1)], "chap_users": []}));
        *engine.gate(A).taken_out.lock().unwrap() = without;
        let listener = portal::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let portal = listener.local_addr().unwrap();
        let serving = engine.clone();
        let timing =
            Timing { login: DEADLINE, ping_after: DEADLINE, missed_pings: 1, data: DEADLINE, busy_poll: Duration::ZERO };
        thread::spawn(move || portal::accept_all(&serving, &listener, &Limits::default(), timing));
        Self { engine, faults, judge, portal }
    }

    fn sessions_of_old(&self) -> usize {
        self.engine.sessions.of_volume(A).iter().filter(|entry| entry.initiator == OLD.0).count()
    }
}

/// How the first owner loses its right, while `writes` of it were sent and the first of them stands still.
struct Scenario {
    name: &'static str,
    writes: u32,
    steps: fn(&Arc<Engine>),
}

fn revoke(engine: &Arc<Engine>) {
    ask(engine, "target.put", json!({"target": target(2)}));
}

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "revoked, dropped, drained",
        writes: 1,
        steps: |engine| {
            revoke(engine);
            ask(engine, "session.drop", json!({"volume": A.to_string(), "below_generation": 2}));
        },
    },
    // As when who revoked it died before the next step.
    Scenario { name: "revoked, not dropped, drained", writes: 2, steps: revoke },
    // As for a client that knows no generations.
    Scenario {
        name: "dropped in its own generation, drained",
        writes: 2,
        steps: |engine| {
            ask(engine, "session.drop", json!({"volume": A.to_string(), "initiator": OLD.0}));
        },
    },
    Scenario { name: "right moved, drained", writes: 2, steps: move_right },
];

/// The number of writes of the first owner that landed after the grant.
fn late_writes(scenario: &Scenario, without: Option<Rule>) -> usize {
    let bench = Bench::new(without);
    let (faults, gate) = (&bench.faults, bench.engine.gate(A));
    let mut old = Initiator::log_in(bench.portal, OLD);
    faults.stall();
    old.send_writes(scenario.writes);
    faults.wait_for_stalled(1);
    let taking_over = {
        let (engine, steps) = (bench.engine.clone(), scenario.steps);
        thread::spawn(move || {
            steps(&engine);
            ask(&engine, "volume.drain", json!({"volume": A.to_string()}))
        })
    };
    wait_until("draining or drained", || gate.draining() || taking_over.is_finished());
    if !taking_over.is_finished() {
        faults.release_stalled(); // the first one lands; should another be admitted, it stands still too
    }
    taking_over.join().unwrap();
    bench.judge.granted.store(true, Ordering::SeqCst);
    faults.let_pass();
    let mut new = Initiator::log_in(bench.portal, NEW);
    new.send_writes(1);
    assert_eq!(new.answer(3), 0, "the next owner writes");
    old.socket.shutdown(Shutdown::Write).unwrap_or_default(); // dropped already, if all is well
    wait_until("the first owner is out, or its write stands still", || bench.sessions_of_old() == 0 || faults.stalled() > 0);
    faults.release();
    wait_until("the first owner is out", || bench.sessions_of_old() == 0);
    let (in_time, late) = (bench.judge.in_time.load(Ordering::SeqCst), bench.judge.late.load(Ordering::SeqCst));
    let mut block = [0; 1];
    bench.judge.read_at(&mut block, 0).unwrap();
    assert!(late > 0 || block[0] == NEW.1, "what is on the volume");
    assert!(in_time + late >= 1, "the write that was admitted has landed");
    late
}

#[test]
fn no_late_write_lands_after_the_grant() {
    for scenario in &SCENARIOS {
        assert_eq!(late_writes(scenario, None), 0, "{}", scenario.name);
    }
}

#[test]
fn without_any_one_of_the_rules_a_late_write_lands() {
    let found = |rule| SCENARIOS.each_ref().map(|scenario| late_writes(scenario, Some(rule)) > 0);
    assert_eq!(found(Rule::Drain), [true, true, true, true], "who does not wait is overtaken by what was admitted");
    assert_eq!(found(Rule::Generation), [false, true, false, false], "who is only revoked goes on writing");
    assert_eq!(found(Rule::Drop), [false, false, true, false], "who is not dropped goes on writing");
    assert_eq!(found(Rule::Right), [false, false, false, true], "who has lost only the right goes on writing");
}
