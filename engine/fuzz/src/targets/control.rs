//! A line of the control socket. The input is the line, without its newline.

use gespann_control::{answer_line, parse_line};
use serde_json::Value;

pub fn run(input: &[u8]) {
    let parsed = parse_line(input);
    let named = serde_json::from_slice::<Value>(input).ok().and_then(|value| value.get("id").and_then(Value::as_u64));
    assert!(parsed.id.is_none() || parsed.id == named, "an answer with another's number");
    if let Ok(request) = &parsed.request {
        assert!(parsed.id.is_some(), "a request without a number is no request");
        let shown = format!("{request:?}");
        assert!(!shown.contains("hunter22"), "a secret is shown: {shown}");
    }
    let Err(refusal) = parsed.request else { return };
    let line = answer_line(parsed.id, &Err(refusal));
    let (last, text) = line.split_last().expect("an answer is not empty");
    assert_eq!((*last, text.contains(&b'\n')), (b'\n', false), "an answer is one line");
    let answer: Value = serde_json::from_slice(text).expect("an answer is JSON");
    assert_eq!(answer["id"].as_u64(), parsed.id);
    assert!(answer["error"]["code"].is_string() && answer["error"]["message"].is_string());
}
