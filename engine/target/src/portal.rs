//! TCP portals: a thread accepts, a thread each serves a connection.

use crate::connection::{Timing, serve};
use crate::engine::{Engine, MAX_SESSIONS};
use crate::log;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
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
    let listener = TcpListener::bind(address)?;
    if congestion_control(&listener)?.starts_with("bbr") {
        // If neither is allowed it stays as it is: slower, and nothing else.
        let changed = ["cubic", "reno"].iter().find(|name| set_congestion_control(&listener, name).is_ok());
        log!(Info, "portal {address}: congestion control {} in place of bbr", changed.unwrap_or(&"could not be set"));
    }
    Ok(listener)
}

/// The system's choice, which a connection inherits from its listener. BBR sends by timer; at the speeds of a storage
/// network that took four times the CPU of a long read (`docs/decisions/long-reads.md`), and it can only be changed before a
/// connection is there.
fn congestion_control(listener: &TcpListener) -> io::Result<String> {
    let mut name = [0_u8; 16]; // TCP_CA_NAME_MAX
    let mut length = name.len() as libc::socklen_t;
    // SAFETY: the address and the length are those of `name`.
    let done = unsafe {
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
        libc::getsockopt(listener.as_raw_fd(), level, option, name.as_mut_ptr().cast(), &mut length)
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
}

fn set_congestion_control(listener: &TcpListener, name: &str) -> io::Result<()> {
    // SAFETY: the address and the length are those of `name`.
    let done = unsafe {
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
        libc::setsockopt(listener.as_raw_fd(), level, option, name.as_ptr().cast(), name.len() as libc::socklen_t)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_never_paces_by_timer_where_it_may_choose() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let chosen = congestion_control(&listener).unwrap();
        let free = set_congestion_control(&listener, "reno").is_ok();
        assert!(!(free && chosen.starts_with("bbr")), "{chosen}");
        if set_congestion_control(&listener, "bbr").is_ok() {
            assert_eq!(congestion_control(&listener).unwrap(), "bbr", "the name is read whole");
        }
    }
}
