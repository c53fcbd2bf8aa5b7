"""Archives as clients read them: the changes since a moment (rrdtool's xport) and whole archives (rrdtool's dump), each
as XML or JSON. Pieces come one by one, so that a large answer does not hold up everybody else."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from gespann.pool.rrd.archive import FUNCTIONS, KNOWN_PART, NAN, SHAPES, STEP_S, Ring, Rrd

HEARTBEAT_S = 300


def number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return f"{value:.10g}"


@dataclass(frozen=True)
class Updates:
    """``columns``: legend and ring of each. A row of the finest archive lies at the moment of its value, one of the
    others at the end of what it covers."""

    archive: int
    start_s: int
    end_s: int
    columns: list[tuple[str, Ring]]

    @property
    def step_s(self) -> int:
        return SHAPES[self.archive][0] * STEP_S

    def rows(self) -> Iterator[tuple[int, list[float]]]:
        """Newest first."""
        at_s = self.end_s
        for _ in range(SHAPES[self.archive][1]):
            if at_s < self.start_s:
                return
            row = at_s // self.step_s - (1 if self.archive else 0)
            yield at_s, [ring.get(row) for _, ring in self.columns]
            at_s -= self.step_s


def updates(
    objects: Sequence[tuple[str, Rrd]], start_s: int, interval_s: int, function: str | None, now_s: float
) -> Updates:
    """``objects``: (prefix of the legend, archives); ``function`` none: all three. The finest archive is taken whose
    step is at least the interval and which reaches back to the start."""
    if start_s < 0:
        start_s += int(now_s)
    archive = _choose(start_s, interval_s, now_s)
    step_s = SHAPES[archive][0] * STEP_S
    columns = [
        (f"{name}:{prefix}{series.source.name}", series.ring(archive, name))
        for prefix, rrd in objects
        for name in ([function] if function else FUNCTIONS)
        for series in rrd.series.values()
    ]
    return Updates(archive, start_s // step_s * step_s + step_s, int(now_s) // step_s * step_s, columns)


def _choose(start_s: int, interval_s: int, now_s: float) -> int:
    wide = [at for at, (steps, _) in enumerate(SHAPES) if steps * STEP_S >= interval_s] or [len(SHAPES) - 1]
    for at in wide:
        steps, rows = SHAPES[at]
        if start_s >= now_s - steps * rows * STEP_S:
            return at
    return wide[-1]


def updates_xml(found: Updates) -> Iterator[str]:
    rows = list(found.rows())
    legend = "".join(f"<entry>{escape(text)}</entry>" for text, _ in found.columns)
    yield (
        f"<xport><meta><start>{found.start_s}</start><step>{found.step_s}</step><end>{found.end_s}</end>"
        f"<rows>{len(rows)}</rows><columns>{len(found.columns)}</columns><legend>{legend}</legend></meta><data>"
    )
    for at_s, values in rows:
        yield f"<row><t>{at_s}</t>{''.join(f'<v>{number(value)}</v>' for value in values)}</row>"
    yield "</data></xport>"


def updates_json(found: Updates) -> Iterator[str]:
    """Values are texts, as in the original: JSON has no NaN."""
    rows = list(found.rows())
    meta = {
        "start": found.start_s,
        "step": found.step_s,
        "end": found.end_s,
        "rows": len(rows),
        "columns": len(found.columns),
        "legend": [text for text, _ in found.columns],
    }
    yield f'{{"meta":{json.dumps(meta)},"data":['
    for at, (at_s, values) in enumerate(rows):
        shown = json.dumps({"t": at_s, "values": [number(value) for value in values]})
        yield f"{',' if at else ''}{shown}"
    yield "]}"


def whole_xml(rrd: Rrd) -> Iterator[str]:
    yield f"<rrd><version>0003</version><step>{STEP_S}</step><lastupdate>{rrd.updated_s:.0f}</lastupdate>"
    for series in rrd.series.values():
        source = series.source
        shown = {
            "name": source.name,
            "type": "GAUGE",
            "minimal_heartbeat": f"{HEARTBEAT_S}.0000",
            "min": number(source.least),
            "max": number(source.most),
            "last_ds": number(series.last),
            "value": "0.0",
            "unknown_sec": "0",
        }
        yield f"<ds>{''.join(f'<{k}>{escape(v)}</{k}>' for k, v in shown.items())}</ds>"
    for archive, function, _, rows in _archives():
        yield (
            f"<rra><cf>{function}</cf><pdp_per_row>{SHAPES[archive][0]}</pdp_per_row>"
            f"<params><xff>{KNOWN_PART:.4f}</xff></params><cdp_prep>{_PREPARED * len(rrd.series)}</cdp_prep><database>"
        )
        rings = [series.ring(archive, function) for series in rrd.series.values()]
        for values in _rows(rings, rows):
            yield f"<row>{''.join(f'<v>{number(value)}</v>' for value in values)}</row>"
        yield "</database></rra>"
    yield "</rrd>"


_PREPARED = "<ds><primary_value>0.0</primary_value><secondary_value>0.0</secondary_value><value>0.0</value>"
_PREPARED += "<unknown_datapoints>0</unknown_datapoints></ds>"


def whole_json(rrd: Rrd) -> Iterator[str]:
    sources = [
        {
            "name": s.source.name,
            "type": "GAUGE",
            "minimal_heartbeat": f"{HEARTBEAT_S}.0000",
            "min": number(s.source.least),
            "max": number(s.source.most),
            "last_ds": number(s.last),
            "value": "0.0",
            "unknown_sec": "0",
        }
        for s in rrd.series.values()
    ]
    head = {"version": "0003", "step": str(STEP_S), "lastupdate": f"{rrd.updated_s:.0f}", "ds": sources}
    yield f'{json.dumps(head)[:-1]},"rra":['
    for at, (archive, function, _, rows) in enumerate(_archives()):
        rings = [series.ring(archive, function) for series in rrd.series.values()]
        shown: dict[str, Any] = {
            "cf": function,
            "pdp_per_row": str(SHAPES[archive][0]),
            "params": {"xff": f"{KNOWN_PART:.4f}"},
            "database": [[number(value) for value in values] for values in _rows(rings, rows)],
        }
        yield f"{',' if at else ''}{json.dumps(shown)}"
    yield "]}"


def _archives() -> Iterator[tuple[int, str, int, int]]:
    for archive, (steps, rows) in enumerate(SHAPES):
        for function in FUNCTIONS:
            yield archive, function, steps, rows


def _rows(rings: Sequence[Ring], rows: int) -> Iterator[list[float]]:
    """Oldest first, as many as the archive can have: those that it does not have yet are NaN."""
    newest = max((ring.newest for ring in rings), default=-1)
    for row in range(newest - rows + 1, newest + 1):
        yield [ring.get(row) if row >= 0 else NAN for ring in rings]
