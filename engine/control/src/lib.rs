//! Seam 4, the engine's side: requests and replies of the control socket, and their lines.
//!
//! The other side of the same contract is `gespann/seams/engine_socket.py`; golden lines that both are tested against
//! are in `tests/seams/engine_socket/`. One JSON object a line; no I/O here.

pub mod line;
pub mod messages;

pub use line::{LINE_LIMIT_BYTES, ParsedLine, answer_line, parse_line};
pub use messages::{Code, Refusal, Reply, Request};
