//! The Unix socket of seam 4: a thread for each connection, one more for each request that may take long.

use crate::engine::Engine;
use crate::portal::Counted;
use crate::{api, log};
use gespann_control::messages::Code;
use gespann_control::{LINE_LIMIT_BYTES, Refusal, Reply, Request, answer_line, parse_line};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

const MAX_CONNECTIONS: usize = 64;
const MAX_SLOW_REQUESTS: usize = 64;
const USUAL_LINE_BYTES: usize = 64 * 1024;

/// Binds under a temporary name with its mode set, then renames: at no time is there a socket that others could open,
/// and one left by an earlier engine is replaced (the lock of the data directory says that it is dead).
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    // SAFETY: umask cannot fail; no other thread runs yet.
    let mask = unsafe { libc::umask(0o177) };
    let listener = UnixListener::bind(&fresh);
    unsafe { libc::umask(mask) };
    let listener = listener?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

pub fn serve(engine: &Arc<Engine>, listener: &UnixListener) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                log!(Error, "control socket: {error}");
                thread::sleep(std::time::Duration::from_millis(100)); // out of descriptors: do not spin
                continue;
            }
        };
        let Some(counted) = Counted::one_of(&open, MAX_CONNECTIONS) else {
            log!(Warning, "control socket: more than {MAX_CONNECTIONS} connections, one refused");
            continue;
        };
        let engine = engine.clone();
        let spawned = thread::Builder::new().name("control".to_owned()).spawn(move || {
            if let Err(error) = Connection::new(&stream, engine).and_then(|mut connection| connection.run(&stream)) {
                log!(Debug, "control connection ended: {error}");
            }
            drop(counted);
        });
        if let Err(error) = spawned {
            log!(Error, "control socket: {error}");
        }
    }
}

struct Connection {
    engine: Arc<Engine>,
    writer: Arc<Mutex<UnixStream>>,
    greeted: bool,
    slow: Arc<AtomicUsize>,
}

fn send(writer: &Mutex<UnixStream>, id: Option<u64>, answer: &Result<Reply, Refusal>) -> io::Result<()> {
    writer.lock().unwrap_or_else(PoisonError::into_inner).write_all(&answer_line(id, answer))
}

/// A panic is a fault of ours, and its asker is not left waiting.
fn handle(engine: &Arc<Engine>, request: Request) -> Result<Reply, Refusal> {
    catch_unwind(AssertUnwindSafe(|| api::handle(engine, request)))
        .unwrap_or_else(|_| Err(Refusal::new(Code::Io, "a fault of the engine; its log has the place")))
}

impl Connection {
    fn new(stream: &UnixStream, engine: Arc<Engine>) -> io::Result<Self> {
        Ok(Self { engine, writer: Arc::new(Mutex::new(stream.try_clone()?)), greeted: false, slow: Arc::default() })
    }

    fn run(&mut self, stream: &UnixStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            let count = (&mut reader).take(LINE_LIMIT_BYTES as u64).read_until(b'\n', &mut line)?;
            if count == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                if count == LINE_LIMIT_BYTES {
                    let refusal = Refusal::bad_request(format!("a line is longer than {LINE_LIMIT_BYTES} bytes"));
                    send(&self.writer, None, &Err(refusal))?;
                }
                wipe(&mut line);
                return Ok(()); // half a line is no request
            }
            let parsed = parse_line(&line);
            wipe(&mut line);
            self.answer(parsed.id, parsed.request)?;
        }
    }

    fn answer(&mut self, id: Option<u64>, request: Result<Request, Refusal>) -> io::Result<()> {
        let request = match request {
            Ok(request) => request,
            Err(refusal) => return send(&self.writer, id, &Err(refusal)),
        };
        let is_hello = matches!(request, Request::Hello(_));
        if !is_hello && !self.greeted {
            return send(&self.writer, id, &Err(Refusal::bad_request("the first request must be hello")));
        }
        if !api::is_slow(&request) {
            let answer = handle(&self.engine, request);
            self.greeted |= is_hello && answer.is_ok();
            return send(&self.writer, id, &answer);
        }
        let Some(counted) = Counted::one_of(&self.slow, MAX_SLOW_REQUESTS) else {
            let refusal = Refusal::new(Code::Busy, "too many requests under way on this connection");
            return send(&self.writer, id, &Err(refusal));
        };
        let (engine, writer) = (self.engine.clone(), self.writer.clone());
        thread::Builder::new().name("request".to_owned()).spawn(move || {
            let answer = handle(&engine, request);
            // If the asker is gone it will ask again: every request may be repeated.
            let _ = send(&writer, id, &answer);
            drop(counted);
        })?;
        Ok(())
    }
}

/// Lines carry secrets: overwritten before the memory is used for something else.
fn wipe(line: &mut Vec<u8>) {
    zeroize::Zeroize::zeroize(line.as_mut_slice());
    line.clear();
    line.shrink_to(USUAL_LINE_BYTES);
}
