//! iSCSI (RFC 7143) without I/O: bytes in, steps and bytes out. No sockets, no clock, no random source of its own.
//!
//! [`decoder`] cuts bytes into PDUs; [`login`] takes a connection from its first byte to full feature phase, asking a
//! [`login::Gatekeeper`] who may come in; [`session`] is the full feature phase of one connection. Error recovery level
//! 0, one connection a session.

pub mod arriving;
pub mod budget;
pub mod chap;
pub mod data_in;
pub mod decoder;
pub mod login;
pub mod negotiation;
pub mod out;
pub mod parameters;
pub mod parts;
pub mod pdu;
pub mod session;
pub mod text;
pub mod transfer;

pub use budget::Budget;
pub use decoder::{DecodeError, Decoder};
pub use login::{Established, Gatekeeper, Login, LoginStatus, LoginStep};
pub use out::Out;
pub use parameters::Parameters;
pub use session::{Command, Session, Step};
