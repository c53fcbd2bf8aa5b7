//! One file a target; each says at its top how it reads its input.

pub mod command;
pub mod control;
pub mod login;
pub mod reservations;
pub mod session;
mod wire;
