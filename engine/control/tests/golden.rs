//! The engine's side of seam 4 against the golden lines that `tests/seams/engine_socket/test_golden_lines.py` reads too.

use gespann_control::messages::{OPERATIONS, Refusal, Reply, Request};
use gespann_control::{Code, answer_line, parse_line};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/seams/engine_socket")
}

fn lines(op: &str) -> Vec<String> {
    let path = folder().join(format!("{op}.jsonl"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn every_operation_has_its_file_and_the_other_way_round() {
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".jsonl").map(str::to_owned))
        .collect();
    let mut operations = OPERATIONS.to_vec();
    files.sort();
    operations.sort_unstable();
    assert_eq!(files, operations);
}

#[test]
fn requests_are_understood_and_left_out_fields_have_the_full_lines_values() {
    for op in OPERATIONS {
        let mut by_id: BTreeMap<u64, Vec<Request>> = BTreeMap::new();
        for line in lines(op).iter().filter(|line| line.contains("\"op\"")) {
            let parsed = parse_line(line.as_bytes());
            let request = parsed.request.unwrap_or_else(|refusal| panic!("{line}: {refusal:?}"));
            by_id.entry(parsed.id.unwrap()).or_default().push(request);
        }
        assert!(!by_id.is_empty());
        for same in by_id.values() {
            assert!(same.iter().all(|request| *request == same[0]), "{op}: {same:?}");
        }
    }
}

#[test]
fn answers_are_written_as_in_the_golden_lines() {
    for op in OPERATIONS {
        for line in lines(op) {
            let value: Value = serde_json::from_str(&line).unwrap();
            let id = value["id"].as_u64();
            let answer: Result<Reply, Refusal> = match (value.get("ok"), value.get("error")) {
                (Some(ok), _) => Ok(serde_json::from_value(ok.clone()).unwrap()),
                (None, Some(error)) => Err(serde_json::from_value(error.clone()).unwrap()),
                _ => continue,
            };
            assert_eq!(String::from_utf8(answer_line(id, &answer)).unwrap(), format!("{line}\n"));
        }
    }
}

#[test]
fn malformed_lines_are_the_callers_mistake() {
    let text = std::fs::read_to_string(folder().join("malformed.txt")).unwrap();
    for line in text.lines() {
        let refusal = parse_line(line.as_bytes()).request.expect_err(line);
        assert_eq!(refusal.code, Code::BadRequest, "{line}");
    }
}

#[test]
fn secrets_do_not_show_in_debug_output_or_in_refusals() {
    let parsed = parse_line(br#"{"id":1,"op":"chap.put","args":{"user":"u","secret":"hunter2hunter2"}}"#);
    assert!(!format!("{parsed:?}").contains("hunter2"));
    let parsed = parse_line(br#"{"id":1,"op":"chap.put","args":{"user":1,"secret":"hunter2hunter2"}}"#);
    assert!(!format!("{parsed:?}").contains("hunter2"));
    let parsed = parse_line(br#"{"id":1,"op":"chap.put","args":{"user":"u","secret":["hunter2hunter2"]}}"#);
    assert!(!format!("{parsed:?}").contains("hunter2"));
}
