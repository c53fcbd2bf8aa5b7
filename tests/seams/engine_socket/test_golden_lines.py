"""The group's side of seam 4 against the golden lines; ``engine/control/tests/golden.rs`` is the engine's side."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gespann.seams.engine_socket import ERROR_CODES, REQUESTS, Request
from gespann.system.json_lines import encode_line

FOLDER = Path(__file__).parent
BY_OP: dict[str, type[Request]] = {request.op: request for request in REQUESTS}


def lines_of(op: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{op}.jsonl").read_text().splitlines()]


def requests_of(op: str) -> list[tuple[Request, dict[str, Any]]]:
    """Each request line of a file, decoded, with its raw form."""
    lines = [line for line in lines_of(op) if "op" in line]
    return [(msgspec.convert(line["args"], BY_OP[op]), line) for line in lines]


def test_every_operation_has_its_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == set(BY_OP)


@pytest.mark.parametrize("op", sorted(BY_OP))
def test_requests_are_written_as_in_the_golden_lines(op: str) -> None:
    text = (FOLDER / f"{op}.jsonl").read_text()
    decoded = requests_of(op)
    assert decoded
    for request, line in decoded:
        assert line["op"] == op
        assert encode_line({"id": line["id"], "op": op, "args": request}).decode() in text


@pytest.mark.parametrize("op", sorted(BY_OP))
def test_left_out_fields_have_the_values_of_the_full_line(op: str) -> None:
    by_id: dict[int, list[Request]] = {}
    for request, line in requests_of(op):
        by_id.setdefault(line["id"], []).append(request)
    for same in by_id.values():
        assert all(request == same[0] for request in same)


@pytest.mark.parametrize("op", sorted(BY_OP))
def test_answers_are_understood_and_complete(op: str) -> None:
    answers = [line["ok"] for line in lines_of(op) if "ok" in line]
    assert answers
    for answer in answers:
        reply = msgspec.convert(answer, BY_OP[op].reply)
        assert msgspec.to_builtins(reply) == answer


def test_every_refusal_code_is_shown_once_at_least() -> None:
    codes = {line["error"]["code"] for op in BY_OP for line in lines_of(op) if "error" in line}
    assert codes == ERROR_CODES
