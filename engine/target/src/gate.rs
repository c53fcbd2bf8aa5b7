//! Admission: the one place where it is decided whether a command may touch a volume.
//!
//! Every session has a [`Ticket`] with the generation in force at its login. A command is admitted under the volume's
//! lock, only if its ticket is not revoked, its generation is the volume's current one, and it was received after the
//! last reset. What is admitted is known until it has finished. So, after `revoke` and then `drain`, no command of that
//! session can change the volume any more, without any clock and without trust in the initiator.

mod right;

use crate::sanitize::Sanitizing;
use gespann_scsi::persistent::{Class, Reservations};
use right::Right;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What keeps late writes away from the next owner's data. The tests of leases take out one at a time, and look for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Generation,
    Drop,
    Drain,
    Right,
}

#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    /// Changes only under the lock; a command that is being received looks at it without.
    resets: AtomicU64,
    finished: Condvar,
    /// Held from reading persistent reservations to putting their next state in force.
    pub reserving: Mutex<()>,
    pub sanitizing: Sanitizing,
    #[cfg(test)]
    pub taken_out: Mutex<Option<Rule>>,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    next_number: u64,
    /// Numbers of the admitted commands; each session runs one at a time, so there are few.
    running: Vec<u64>,
    drains: usize,
    /// Only the one that closed it may touch the volume.
    closed: bool,
    /// The one of `running` that closed it. It outlives its session.
    closed_by: Option<u64>,
    reserved_by: Option<u64>,
    persistent: Reservations,
    right: Right,
}

/// A session's right to have commands admitted. `revoked` changes only under the gate's lock.
#[derive(Debug)]
pub struct Ticket {
    pub session: u64,
    pub generation: u64,
    /// Name of the initiator port, for persistent reservations.
    pub port: String,
    /// Times that another initiator has aborted what this session had under way.
    aborts: AtomicU64,
    revoked: AtomicBool,
    /// Its generation has passed: stays so even if the same number is set again.
    outdated: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Dropped, or of another generation: the session is over.
    Revoked,
    /// A reset came between receiving the command and running it.
    Aborted,
    /// Another session holds a reservation, or another initiator the right to write.
    Reserved,
    /// The right to write has moved here, and what the one before had begun has not ended.
    Moving,
    /// The volume is being sanitized, or that has failed.
    Closed,
}

/// One admitted command; it has finished when this is dropped.
#[derive(Debug)]
pub struct Permit<'a> {
    gate: &'a Gate,
    number: u64,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.gate.finish(self.number);
    }
}

/// The volume to oneself: like a [`Permit`], while nobody else gets one. Dropping it does not open the gate.
#[derive(Debug)]
pub struct Closing {
    gate: Arc<Gate>,
    number: u64,
}

impl Closing {
    /// Waits until what was admitted before has finished.
    pub fn wait_for_others(&self) {
        let mut state = self.gate.state();
        state.drains += 1;
        while state.running.iter().any(|number| *number != self.number) {
            state = self.gate.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.drains -= 1;
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.gate.state().closed_by = None;
        self.gate.finish(self.number);
    }
}

impl Ticket {
    /// The initiator's name is the front of its port's, in small letters; iSCSI names hold no comma.
    fn initiator(&self) -> &str {
        self.port.split(',').next().unwrap_or_default()
    }

    pub fn revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Could a command of it still be admitted?
    pub fn alive(&self) -> bool {
        !self.revoked() && !self.outdated.load(Ordering::Acquire)
    }
}

impl Gate {
    pub fn new(generation: u64, persistent: Reservations) -> Self {
        let state = State { generation, persistent, ..State::default() };
        Self {
            state: Mutex::new(state),
            resets: AtomicU64::new(0),
            finished: Condvar::new(),
            reserving: Mutex::new(()),
            sanitizing: Sanitizing::default(),
            #[cfg(test)]
            taken_out: Mutex::default(),
        }
    }

    #[cfg(not(test))]
    pub fn keeps(&self, _: Rule) -> bool {
        true
    }

    #[cfg(test)]
    pub fn keeps(&self, rule: Rule) -> bool {
        *self.taken_out.lock().unwrap() != Some(rule)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_generation(&self, generation: u64) {
        self.state().generation = generation;
    }

    /// Only this initiator may change the volume from now on, and not before the changes of others that are under way have
    /// ended; empty: whoever is logged in. True if that is new.
    pub fn give_right(&self, writer: &str) -> bool {
        let mut state = self.state();
        let from = state.next_number;
        state.right.give(writer, from)
    }

    /// A ticket of the generation in force.
    pub fn ticket(&self, session: u64, port: String) -> Ticket {
        Ticket {
            session,
            port,
            aborts: AtomicU64::new(0),
            generation: self.state().generation,
            revoked: AtomicBool::new(false),
            outdated: AtomicBool::new(false),
        }
    }

    /// From the return of this call on nothing of this ticket is admitted. True if it was not revoked before.
    pub fn revoke(&self, ticket: &Ticket) -> bool {
        let mut state = self.state();
        if state.reserved_by == Some(ticket.session) {
            state.reserved_by = None;
        }
        !ticket.revoked.swap(true, Ordering::AcqRel)
    }

    /// Makes a ticket of a past generation useless for ever, without counting as a drop.
    pub fn outdate(&self, ticket: &Ticket) {
        let mut state = self.state();
        if ticket.generation != state.generation {
            ticket.outdated.store(true, Ordering::Release);
            if state.reserved_by == Some(ticket.session) {
                state.reserved_by = None; // nobody could release it any more
            }
        }
    }

    /// Number of resets and aborts so far: a command received now is admitted as long as it stays so.
    pub fn resets(&self, ticket: &Ticket) -> u64 {
        self.resets.load(Ordering::Acquire) + ticket.aborts.load(Ordering::Acquire)
    }

    pub fn admit(&self, ticket: &Ticket, resets: u64, class: Class) -> Result<Permit<'_>, Refused> {
        let mut state = self.state();
        self.check(&state, ticket, resets, class)?;
        if state.closed && class != Class::Free {
            return Err(Refused::Closed);
        }
        Ok(Permit { gate: self, number: Self::enter(&mut state) })
    }

    /// For what may change blocks of the volume: also asks whose the right to write is.
    pub fn admit_change(&self, ticket: &Ticket, resets: u64, class: Class) -> Result<Permit<'_>, Refused> {
        let mut state = self.state();
        self.check_change(&state, ticket, resets, class)?;
        if state.closed {
            return Err(Refused::Closed);
        }
        let number = Self::enter(&mut state);
        state.right.begin(number);
        Ok(Permit { gate: self, number })
    }

    /// Admitted as a change; from now on nothing else is, until `open`.
    pub fn close(self: &Arc<Self>, ticket: &Ticket, resets: u64) -> Result<Closing, Refused> {
        let mut state = self.state();
        self.check_change(&state, ticket, resets, Class::Write)?;
        self.close_at(&mut state).ok_or(Refused::Closed)
    }

    /// Without a session: what an earlier engine had begun. None: it is closed by somebody.
    pub fn close_again(self: &Arc<Self>) -> Option<Closing> {
        self.close_at(&mut self.state())
    }

    fn close_at(self: &Arc<Self>, state: &mut State) -> Option<Closing> {
        if state.closed_by.is_some() {
            return None;
        }
        let number = Self::enter(state);
        state.right.begin(number);
        (state.closed, state.closed_by) = (true, Some(number));
        Some(Closing { gate: self.clone(), number })
    }

    pub fn keep_closed(&self) {
        self.state().closed = true;
    }

    pub fn open(&self) {
        self.state().closed = false;
    }

    fn enter(state: &mut State) -> u64 {
        let number = state.next_number;
        state.next_number += 1;
        state.running.push(number);
        number
    }

    fn finish(&self, number: u64) {
        let mut state = self.state();
        if let Some(index) = state.running.iter().position(|other| *other == number) {
            state.running.swap_remove(index);
        }
        state.right.end(number);
        if state.drains > 0 {
            self.finished.notify_all();
        }
    }

    fn check(&self, state: &State, ticket: &Ticket, resets: u64, class: Class) -> Result<(), Refused> {
        let outdated = || !ticket.alive() || ticket.generation != state.generation;
        if ticket.revoked() || (self.keeps(Rule::Generation) && outdated()) {
            return Err(Refused::Revoked);
        }
        if resets != self.resets(ticket) {
            return Err(Refused::Aborted);
        }
        if class != Class::Free && state.reserved_by.is_some_and(|holder| holder != ticket.session) {
            return Err(Refused::Reserved);
        }
        if !state.persistent.permits(&ticket.port, class) {
            return Err(Refused::Reserved);
        }
        Ok(())
    }

    fn check_change(&self, state: &State, ticket: &Ticket, resets: u64, class: Class) -> Result<(), Refused> {
        self.check(state, ticket, resets, class)?;
        if self.keeps(Rule::Right) && !state.right.is_of(ticket.initiator()) {
            return Err(Refused::Reserved);
        }
        if self.keeps(Rule::Drain) && state.right.is_moving() {
            return Err(Refused::Moving);
        }
        Ok(())
    }

    /// Waits until everything admitted before this call has finished; false if that takes longer than `timeout`.
    pub fn drain(&self, timeout: Duration) -> bool {
        if !self.keeps(Rule::Drain) {
            return true;
        }
        self.wait_for_running(timeout, false)
    }

    /// The same without a sanitizing, which no reset ends: for those who only want commands to be over.
    pub fn drain_commands(&self, timeout: Duration) -> bool {
        self.wait_for_running(timeout, true)
    }

    fn wait_for_running(&self, timeout: Duration, but_closing: bool) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.state();
        let first_later = state.next_number;
        state.drains += 1;
        let drained = loop {
            let excepted = if but_closing { state.closed_by } else { None };
            if state.running.iter().all(|number| *number >= first_later || Some(*number) == excepted) {
                break true;
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break false;
            }
            state = self.finished.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.drains -= 1;
        drained
    }

    #[cfg(test)]
    pub fn draining(&self) -> bool {
        self.state().drains > 0
    }

    pub fn idle(&self) -> bool {
        self.state().running.is_empty()
    }

    /// Voids every command received but not yet admitted, and a reservation.
    pub fn reset(&self, releases_reservation: bool) {
        let mut state = self.state();
        self.resets.fetch_add(1, Ordering::AcqRel);
        if releases_reservation {
            state.reserved_by = None;
        }
    }

    pub fn persistent(&self) -> Reservations {
        self.state().persistent.clone()
    }

    /// With `reserving` held. What `aborted` have received but not begun is void.
    pub fn set_persistent<'a>(&self, persistent: Reservations, aborted: impl Iterator<Item = &'a Ticket>) {
        let mut state = self.state();
        state.persistent = persistent;
        aborted.for_each(|ticket| {
            ticket.aborts.fetch_add(1, Ordering::AcqRel);
        });
    }

    /// SPC-2 reservation of the whole unit; admission has already refused everybody but the holder.
    /// A ticket that was revoked while this command was under way reserves nothing.
    pub fn reserve(&self, ticket: &Ticket) {
        let mut state = self.state();
        if ticket.alive() && ticket.generation == state.generation {
            state.reserved_by = Some(ticket.session);
        }
    }

    pub fn release(&self, session: u64) {
        let mut state = self.state();
        if state.reserved_by == Some(session) {
            state.reserved_by = None;
        }
    }
}

#[cfg(test)]
mod tests;
