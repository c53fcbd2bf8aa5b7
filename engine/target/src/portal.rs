//! TCP portals: a thread accepts, a thread each serves a connection.

use crate::connection::{Timing, serve};
use crate::engine::{Engine, MAX_SESSIONS};
use crate::log;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const MAX_LOGGING_IN: usize = 256;
/// Of one address: no one host keeps the others from logging in.
const MAX_LOGGING_IN_OF_ADDRESS: usize = 128;
const MAX_CONNECTIONS: usize = MAX_SESSIONS + MAX_LOGGING_IN;
const STACK_BYTES: usize = 256 * 1024;

/// Counted while it lives.
#[derive(Debug)]
pub struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub fn one_of(counter: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let counted = Self(counter.clone());
        (counter.fetch_add(1, Ordering::AcqRel) < most).then_some(counted)
    }
}

/// A connection that has not logged in, counted while it lives: in all, and of its address.
#[derive(Debug)]
pub struct Waiting {
    _in_all: Counted,
    addresses: Addresses,
    address: IpAddr,
}

type Addresses = Arc<Mutex<HashMap<IpAddr, usize>>>;

impl Waiting {
    fn one_of(limits: &Limits, address: IpAddr) -> Option<Self> {
        let in_all = Counted::one_of(&limits.logging_in, MAX_LOGGING_IN)?;
        let mut counts = limits.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= MAX_LOGGING_IN_OF_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Self { _in_all: in_all, addresses: limits.addresses.clone(), address })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut counts = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(self.address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
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
    addresses: Addresses,
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
    let logging_in = Waiting::one_of(limits, peer.ip().to_canonical()).ok_or("too many connections that are not logged in")?;
    let engine = engine.clone();
    let run = move || {
        serve(&engine, stream, peer, timing, logging_in);
        drop(connection);
    };
    let thread = thread::Builder::new().name("session".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(run).map(drop).map_err(|error| error.to_string())
}
