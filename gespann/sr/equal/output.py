"""What a group prints: tables, detail views, sizes. Pure functions, tolerant of what differs between firmware lines
(column widths, order and number of ``Key: value`` lines, sections that follow)."""

import re

from gespann.seams.sr_driver import Changes
from gespann.sr.equal.words import MIB, PAGE_BYTES

_DASHES = re.compile(r"-+( +-+)*\s*\Z")
_SECTION = re.compile(r"_+( .+ _+)?\s*\Z")
_PAIR = re.compile(r"(?P<key>[A-Za-z][A-Za-z0-9 /-]*):(?: (?P<value>.*)|)\Z")
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s?(?P<unit>[KMGTP]?B)\b")
_EVENT = re.compile(r"(?P<number>\d+):[^:]*:[^:]*:\S+ [\d:.]+:[A-Z]+::[\d.]+:(?P<text>.*)\Z")
_UNIT_BYTES = {"B": 1, "KB": 1024, "MB": MIB, "GB": 1024 * MIB, "TB": 1024 * 1024 * MIB, "PB": 1024**3 * MIB}


class NotThere(ValueError):
    """The output lacks something that every firmware prints."""


def table(lines: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows by lower-case column title. A cell that is too long goes on in the lines below, in its own column, two
    blanks in; those lines start with a blank, since a first column is never empty."""
    start = next((i for i, text in enumerate(lines) if _DASHES.match(text)), None)
    if start is None or start == 0:
        return []
    spans = [found.span() for found in re.finditer("-+", lines[start])]
    titles = [lines[start - 1][a:b].strip().lower() for a, b in _to_the_end(spans)]
    rows: list[dict[str, str]] = []
    for text in lines[start + 1 :]:
        if not text.strip() or _SECTION.match(text):
            break
        cells = [text[a:b] for a, b in _to_the_end(spans)]
        if text[0] == " " and rows:
            for title, cell in zip(titles, cells, strict=True):
                rows[-1][title] += cell[2:].rstrip()
        else:
            rows.append({title: cell.strip() for title, cell in zip(titles, cells, strict=True)})
    return rows


def _to_the_end(spans: list[tuple[int, int]]) -> list[tuple[int, int | None]]:
    """A column reaches to the next one; the last has no end."""
    starts = [a for a, _ in spans]
    return list(zip(starts, [*starts[1:], None], strict=True))


def detail(lines: tuple[str, ...]) -> dict[str, str]:
    """``Key: value`` pairs of the first section. Where a terminal's hard wrap broke a line at column 80 the rest is on
    the next line without indent: glued back."""
    pairs: dict[str, str] = {}
    key = ""
    for text in lines:
        if _SECTION.match(text) and text.strip():
            if pairs:
                break
            continue
        found = _PAIR.match(text.rstrip())
        if found:
            key = found["key"]
            pairs.setdefault(key, (found["value"] or "").strip(" "))
        elif key and text.strip():
            pairs[key] += text.rstrip()
    return pairs


def changes(lines: tuple[str, ...], offset: int) -> Changes:
    """From ``offset`` on. NotThere unless all of it is there and makes sense: a bit too few would be lost data in
    somebody's backup."""
    said = detail(lines)
    head = next((i for i, text in enumerate(lines) if _DASHES.match(text)), len(lines))
    extents = [(int(offset), int(length)) for offset, length in (text.split() for text in lines[head + 1 :])]
    if len(extents) != int(said["Extents"]):
        raise NotThere(f"{said['Extents']} extents said, {len(extents)} listed")
    next_offset = None if said["NextOffset"] == "none" else int(said["NextOffset"])
    ends = [offset, *(start + length for start, length in extents)]
    starts = [*(start for start, _ in extents), *([] if next_offset is None else [next_offset])]
    if any(length <= 0 for _, length in extents) or any(a > b for a, b in zip(ends, starts, strict=False)):
        raise NotThere("extents in disorder")
    if next_offset is not None and not extents:
        raise NotThere("no extent, and yet more of them")
    return Changes(extents, next_offset)


def events(lines: tuple[str, ...]) -> list[tuple[int, str]]:
    """(number, text) of ``number:member:process:time:level::id:text``; the time has colons of its own."""
    found = (_EVENT.match(text) for text in lines)
    return [(int(one["number"]), one["text"]) for one in found if one]


def size_bytes(text: str) -> int:
    """``1035MB``, ``1.01GB``: binary units. In GB two decimals stand for a whole number of 15 MB pages, which they tell
    without doubt (half of 0.01GB is less than half a page). Whole MB are exact, which is why sessions ask for them; a
    firmware that cannot may leave a size of whole GB one page off."""
    found = _SIZE.search(text)
    if not found:
        raise NotThere(f"no size in {text!r}")
    exact = float(found["number"]) * _UNIT_BYTES[found["unit"]]
    if found["unit"] == "GB" and "." in found["number"]:
        return round(exact / PAGE_BYTES) * PAGE_BYTES
    return round(exact)


def volume_size_bytes(text: str) -> int:
    """What a guest sees: ``Size:`` shows what was asked for, and the array rounds that up to whole pages (a volume of
    1GB reads back as 1035 MB)."""
    return -(-size_bytes(text) // PAGE_BYTES) * PAGE_BYTES


def version(text: str) -> tuple[int, int] | None:
    """``V4.3.5 (R115269)`` -> (4, 3)."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None
