//! TCP portals: a thread accepts, a thread each serves a connection.

use crate::connection::{Timing, serve};
use crate::engine::{Engine, MAX_SESSIONS};
use crate::log;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const MAX_LOGGING_IN: usize = 256;
const MAX_CONNECTIONS: usize = MAX_SESSIONS + MAX_LOGGING_IN;
const STACK_BYTES: usize = 256 * 1024;

/// Counted while it lives.
#[derive(Debug)]
pub struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one_of(counter: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let counted = Self(counter.clone());
        (counter.fetch_add(1, Ordering::AcqRel) < most).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Clone, Default)]
pub struct Limits {
    connections: Arc<AtomicUsize>,
    logging_in: Arc<AtomicUsize>,
}

pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}

pub fn accept_all(engine: &Arc<Engine>, listener: &TcpListener, limits: &Limits, timing: Timing) {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                if let Err(reason) = start(engine, stream, peer, limits, timing) {
                    log!(Warning, "{peer}: connection refused: {reason}");
                }
            }
            Err(error) => {
                log!(Error, "cannot accept a connection: {error}");
                thread::sleep(Duration::from_millis(100)); // out of descriptors: do not spin
            }
        }
    }
}

fn start(engine: &Arc<Engine>, stream: TcpStream, peer: SocketAddr, limits: &Limits, timing: Timing) -> Result<(), String> {
    let connection = Counted::one_of(&limits.connections, MAX_CONNECTIONS).ok_or("too many connections")?;
    let logging_in =
        Counted::one_of(&limits.logging_in, MAX_LOGGING_IN).ok_or("too many connections that are not logged in")?;
    let engine = engine.clone();
    let run = move || {
        serve(&engine, stream, peer, timing, logging_in);
        drop(connection);
    };
    let thread = thread::Builder::new().name("session".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(run).map(drop).map_err(|error| error.to_string())
}
