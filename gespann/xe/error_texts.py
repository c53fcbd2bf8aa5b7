"""What people read when the XenAPI refuses: a sentence and its parameters by name, or code and parameters."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.api import NULL_REF
from gespann.xe.tables import Tables

_SENTENCES = Path(__file__).parent / "facts" / "error_texts.json"
# Classes whose references appear in errors most often, looked at first; then all others that have a uuid.
_LIKELY_CLASSES = ("VM", "VDI", "SR", "host", "VBD", "network", "VIF", "PIF", "PBD", "task", "pool")


@cache
def sentences() -> dict[str, str]:
    """Error code -> one or more sentences in our own words."""
    return dict(json.loads(_SENTENCES.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class ErrorText:
    """``sentence`` and a line per parameter; for a code that no sentence is written for None and the bare values."""

    sentence: str | None
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(([self.sentence] if self.sentence else []) + self.lines)


def error_text(code: str, params: list[str]) -> ErrorText:
    """``name: value`` per parameter; ``<unknown>`` where the server gave too few, ``<extra>`` where too many."""
    names, sentence = datamodel.error_params().get(code), sentences().get(code)
    if names is None or sentence is None:
        return ErrorText(None, params)
    lines = [f"{name}: {params[i] if i < len(params) else '<unknown>'}" for i, name in enumerate(names)]
    lines += [f"<extra>: {value}" for value in params[len(names) :]]
    return ErrorText(sentence, lines)


async def describe_refs(error: XenApiError, tables: Tables) -> list[str]:
    """The parameters, with references of live objects replaced by ``uuid (name-label)``."""
    wanted = {param for param in error.params if param.startswith("OpaqueRef:") and param != NULL_REF}
    others = [name for name in datamodel.classes() if name not in _LIKELY_CLASSES]
    for name in (*_LIKELY_CLASSES, *others):
        wanted -= {ref for records in tables.fetched.values() for ref in records}
        if not wanted:
            break
        if "get_all_records" in datamodel.classes()[name].messages:
            try:
                await tables.fetch([name])
            except XenApiError:  # the session may be what is wrong: then the reference stays as it is
                break
    return [tables.describe(param) for param in error.params]
