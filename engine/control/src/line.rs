//! From a line to a request, from an answer to a line.

use crate::messages::{Refusal, Reply, Request};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A line with its newline.
pub const LINE_LIMIT_BYTES: usize = 16 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    id: u64,
    op: String,
    #[serde(default)]
    args: Option<Value>,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<&'a Reply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Refusal>,
}

/// `id` is none only if the line does not even have one.
#[derive(Debug)]
pub struct ParsedLine {
    pub id: Option<u64>,
    pub request: Result<Request, Refusal>,
}

pub fn parse_line(line: &[u8]) -> ParsedLine {
    match serde_json::from_slice::<Envelope>(line) {
        Ok(Envelope { id, op, args }) => {
            let request = match args.unwrap_or_else(|| Value::Object(serde_json::Map::default())) {
                args @ Value::Object(_) => Request::from_parts(&op, args),
                _ => Err(Refusal::bad_request("args must be an object")),
            };
            ParsedLine { id: Some(id), request }
        }
        Err(error) => {
            let id = serde_json::from_slice::<Value>(line).ok().and_then(|value| value.get("id").and_then(Value::as_u64));
            ParsedLine { id, request: Err(Refusal::bad_request(format!("not a request line: {error}"))) }
        }
    }
}

/// The answer with its newline.
pub fn answer_line(id: Option<u64>, answer: &Result<Reply, Refusal>) -> Vec<u8> {
    let answer = Answer { id, ok: answer.as_ref().ok(), error: answer.as_ref().err() };
    let mut line = serde_json::to_vec(&answer).expect("plain fields always encode");
    line.push(b'\n');
    line
}
