import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.sr.equal import metadata, names, words
from gespann.sr.equal.metadata import BadMetadata, Metadata

UUID = "22267eb7-23c0-4479-a063-f5c34916727d"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)


@given(st.uuids(), st.sampled_from(sorted(metadata.VDI_TYPES)), st.integers(0, 3), TEXT, TEXT)
def test_what_is_kept_comes_back(key: uuid.UUID, vdi_type: str, flags: int, name: str, text: str) -> None:
    given_ = Metadata(str(key), metadata.VDI_TYPES[vdi_type], flags, name, text)
    described = metadata.encode(given_)
    assert len(described.encode()) <= metadata.LIMIT_BYTES
    assert words.quoted(described)
    kept = metadata.decode(described)
    assert (kept.uuid, kept.vdi_type, kept.flags & 3) == (str(key), vdi_type, flags)
    assert name.startswith(kept.name_label)
    assert text.startswith(kept.name_description)
    assert kept.cut == ((kept.name_label, kept.name_description) != (name, text))
    assert metadata.encode(kept) == described or kept.cut


@given(st.text(max_size=200))
def test_any_description_is_read_or_refused(untrusted: str) -> None:
    try:
        kept = metadata.decode(untrusted)
    except BadMetadata:
        return
    assert re.fullmatch(r"[0-9a-f-]{36}", kept.uuid)


def test_the_form_that_people_see() -> None:
    described = metadata.encode(Metadata(UUID, "u", 0, "web1 0", "Root disk of web1"))
    assert described == f"{UUID}:u0:web1 0:Root disk of web1"
    assert metadata.encode(Metadata(UUID)) == f"{UUID}:u0"
    assert metadata.encode(Metadata(UUID, "s", 1, "", "Größe: 5_")) == f"{UUID}:s1::Gr_C3_B6_C3_9Fe_3A 5_5F"


def test_too_long_texts_are_cut_at_whole_characters() -> None:
    kept = metadata.decode(metadata.encode(Metadata(UUID, name_label="ü" * 100, name_description="lost")))
    assert (kept.name_label, kept.name_description, kept.cut) == ("ü" * 14, "los", True)
    kept = metadata.decode(metadata.encode(Metadata(UUID, name_label="n" * 80, name_description="d" * 80)))
    assert (len(kept.name_label), len(kept.name_description), kept.cut) == (80, 7, True)


@pytest.mark.parametrize(
    ("described", "deleted"),
    [(UUID, False), (f"UUID-{UUID}:DELETED-False", False), (f"UUID-{UUID}:DELETED-True", True)],
)
def test_older_forms(described: str, deleted: bool) -> None:
    assert metadata.decode(described) == Metadata(UUID, deleted=deleted)


@pytest.mark.parametrize(
    "described", ["", "SNAPSHOT", UUID[:-1], UUID.upper(), f"{UUID}:", f"{UUID}:u0:a:b:c", "x" * 128]
)
def test_what_is_not_ours(described: str) -> None:
    with pytest.raises(BadMetadata):
        metadata.decode(described)


def test_names_on_the_array() -> None:
    sr = "0ff867ef-3121-0e7c-5497-f5c34916727d"
    name = names.vdi_volume(sr, UUID)
    assert name == "XenStorage0ff867ef31210e7c5497f5c34916727d22267eb723c04479a063"  # as XenServer's own test has it
    assert len(name) <= 63
    assert names.is_vdi_volume(name, sr.upper())
    assert not names.is_vdi_volume(name, UUID)
    management = names.management_volume(sr)
    assert names.sr_of_management_volume(management) == sr
    assert names.sr_of_management_volume(name) is None
    assert not names.is_vdi_volume(management, sr)
