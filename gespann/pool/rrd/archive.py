"""Round-robin archives of one host or machine: a value per source every ``STEP_S``, kept finely for minutes and ever
more coarsely for up to a year. The archives are those of the original:

    step      5 s    1 min    1 h    1 day
    rows      120    120      168    366
    kept      10 min 2 h      1 week 1 year

A row of a coarser archive is the average, least and greatest of the finer one's rows that it covers, as soon as all
of them are over; NaN if fewer than half of them are known. Rows lie at multiples of their step since the epoch, so that
those of all objects fall together.
"""

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

STEP_S = 5
#: steps in a row, rows
SHAPES = ((1, 120), (12, 120), (720, 168), (17_280, 366))
FUNCTIONS = ("AVERAGE", "MIN", "MAX")
#: a row is known if at least this part of what it covers is
KNOWN_PART = 0.5
NAN = math.nan


@dataclass(frozen=True)
class Source:
    """``standard``: recorded unless told otherwise."""

    name: str
    description: str
    units: str
    least: float = 0.0
    most: float = math.inf
    standard: bool = True


class Ring:
    """The newest ``rows`` values, each in the place of its absolute row number. Grows as it fills."""

    __slots__ = ("_values", "newest", "rows")

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.newest = -1  # row number of the last value; -1: none yet
        self._values = array("d")

    def put(self, row: int, value: float) -> None:
        """Rows that were passed over are NaN; one that has been is not changed any more."""
        if row <= self.newest:
            return
        skipped = row - self.newest - 1 if self.newest >= 0 else 0
        if skipped >= self.rows:
            self._values = array("d")
            skipped = 0
            self.newest = row - 1
        for number in range(row - skipped, row):
            self._write(number, NAN)
        self._write(row, value)

    def _write(self, row: int, value: float) -> None:
        if len(self._values) < self.rows:
            self._values.append(value)
            if len(self._values) == self.rows:  # from now on by place
                turn = (row + 1) % self.rows
                self._values = self._values[self.rows - turn :] + self._values[: self.rows - turn]
        else:
            self._values[row % self.rows] = value
        self.newest = row

    def get(self, row: int) -> float:
        back = self.newest - row
        if not 0 <= back < len(self._values):
            return NAN
        if len(self._values) < self.rows:
            return self._values[len(self._values) - 1 - back]
        return self._values[row % self.rows]

    def stored(self) -> tuple[int, list[float]]:
        """Newest row number, and values up to it, oldest first."""
        return self.newest, [self.get(row) for row in range(self.newest - len(self._values) + 1, self.newest + 1)]

    def restore(self, newest: int, values: Iterable[float]) -> None:
        kept = list(values)[-self.rows :]
        for at, value in enumerate(kept):
            self.put(newest - len(kept) + 1 + at, value)


@dataclass
class Series:
    """One source's values. The finest archive has one value a row, whatever the function."""

    source: Source
    fine: Ring = field(default_factory=lambda: Ring(SHAPES[0][1]))
    coarse: list[dict[str, Ring]] = field(
        default_factory=lambda: [{name: Ring(rows) for name in FUNCTIONS} for _, rows in SHAPES[1:]]
    )
    last: float = NAN

    def ring(self, archive: int, function: str) -> Ring:
        return self.fine if archive == 0 else self.coarse[archive - 1][function]

    def put(self, slot: int, value: float) -> None:
        self.last = value
        self.fine.put(slot, value)
        for archive in range(1, len(SHAPES)):
            ratio = SHAPES[archive][0] // SHAPES[archive - 1][0]
            row = (self.ring(archive - 1, "AVERAGE").newest + 1) // ratio - 1  # the last whose finer rows are all over
            if row <= self.ring(archive, "AVERAGE").newest:
                return
            self._consolidate(archive, row, ratio)

    def _consolidate(self, archive: int, row: int, ratio: int) -> None:
        for name, combine in (("AVERAGE", _average), ("MIN", min), ("MAX", max)):
            finer = self.ring(archive - 1, name)
            known = [v for v in (finer.get(row * ratio + at) for at in range(ratio)) if not math.isnan(v)]
            value = combine(known) if known and len(known) >= ratio * KNOWN_PART else NAN
            self.ring(archive, name).put(row, value)


def _average(values: list[float]) -> float:
    return math.fsum(values) / len(values)


class Rrd:
    """All sources of one object. ``updated_s``: when, in seconds since the epoch."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        self.forgotten: set[str] = set()  # sources that somebody does not want recorded
        self.offered: dict[str, tuple[Source, float]] = {}  # what the last update had, recorded or not
        self.updated_s = 0.0

    def update(self, now_s: float, values: Mapping[str, tuple[Source, float]]) -> None:
        """Sources that are not among the values have none now."""
        slot = int(now_s // STEP_S)
        self.offered = dict(values)
        self.updated_s = now_s
        for name, (source, value) in values.items():
            if name in self.forgotten:
                continue
            if name not in self.series:
                self.series[name] = Series(source)
            self.series[name].put(slot, value)
        for name, series in self.series.items():
            if name not in values:
                series.put(slot, NAN)

    def record(self, name: str) -> bool:
        """Records a source from now on. False: there is none of that name."""
        if name not in self.offered:
            return False
        self.forgotten.discard(name)
        return True

    def forget(self, name: str) -> bool:
        """Drops what was recorded of a source, and records it no more. False: there is none of that name."""
        if name not in self.offered and name not in self.series:
            return False
        self.forgotten.add(name)
        self.series.pop(name, None)
        return True
