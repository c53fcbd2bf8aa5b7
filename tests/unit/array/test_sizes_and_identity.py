import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.array.model import names
from gespann.array.model.identity import naa_of_target, new_naa, target_name
from gespann.array.model.refusals import Mistake
from gespann.array.model.sizes import GB, GRANULE_BYTES, MB, TB, format_size, parse_size, parse_volume_size, real_size

# A target name of a real array, and the identifier that hosts show for it.
SAMPLE = ("6090a028a030f846d8d6546fbd0130c5", "iqn.2001-05.com.equallogic:0-8a0906-46f830a02-c53001bd6f54d6d8-vol")


def test_target_name_from_identity_and_back():
    naa, name = SAMPLE
    assert target_name(naa, "vol") == name
    assert naa_of_target(name) == naa


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("6090a0", "iqn.2001-05.com.equallogic:0-8a0906-83bcb3401-16e0002fd0a46f3d-rhel5-test"),
        ("603be8", "iqn.2001-05.com.equallogic:0-fe83b6-aaea957cc-b6e9d343a9758fdc-volume-x"),
        ("6019cb", "iqn.2001-05.com.equallogic:0-1cb196-fb073302b-cb0b10f86ba52caf-demovolume"),
        ("6090a0", "iqn.2001-05.com.equallogic:0-8a0906-19f91850c-067000000b4532c1-volume-74cf9c04"),
    ],
)
def test_names_of_real_arrays(head, name):
    naa = naa_of_target(name)
    assert naa.startswith(head)
    volume_name = name.split(":", 1)[1].split("-", 4)[4]
    assert target_name(naa, volume_name) == name


@given(st.binary(min_size=13, max_size=13))
def test_new_identity_has_the_form_that_host_tools_look_for(chance):
    source = io.BytesIO(chance)
    naa = new_naa(source.read)
    assert target_name(naa, "v").startswith("iqn.2001-05.com.equallogic:0-8a0906-")
    assert naa_of_target(target_name(naa, "v")) == naa


@pytest.mark.parametrize("name", ["iqn.2000-01.a:b", "iqn.2001-05.com.equallogic:x", ""])
def test_other_target_names_have_no_identity(name):
    with pytest.raises(ValueError, match="not a target name"):
        naa_of_target(name)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1GB", GB),
        ("1g", GB),
        ("10240", 10 * GB),
        ("1.5TB", 1536 * GB),
        ("15M", 15 * MB),
        ("0.5mb", MB),
        ("1.01GB", 1035 * MB),
    ],
)
def test_sizes_are_read(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "GB", "-1", "1 GB", "1KB", "1e9", "0x10", "٣GB", "1..5GB", "1GBGB", "nan", "9" * 16]
)
def test_what_is_no_size(text):
    with pytest.raises(Mistake):
        parse_size(text)


@pytest.mark.parametrize("text", ["0", "0GB", "15.01TB", "999999999999999TB"])
def test_sizes_that_no_volume_has(text):
    with pytest.raises(Mistake):
        parse_volume_size(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0MB"),
        (GB, "1GB"),
        (1035 * MB, "1.01GB"),
        (1000 * MB, "1000MB"),
        (10 * GB, "10GB"),
        (2_852_127 * MB, "2.72TB"),
    ],
)
def test_sizes_are_written(size_bytes, text):
    assert format_size(size_bytes) == text


@given(st.integers(min_value=1, max_value=15 * TB // MB))
def test_what_is_written_in_mb_is_read_back(mb):
    assert parse_size(format_size(mb * MB, in_mb=True)) == mb * MB
    assert abs(parse_size(format_size(mb * MB)) - mb * MB) <= max(mb * MB // 100, MB)
    real = real_size(mb * MB)
    assert real % GRANULE_BYTES == 0
    assert 0 <= real - mb * MB < GRANULE_BYTES


@given(st.text(max_size=70))
def test_names_never_carry_what_could_be_another_word(text):
    for check in (names.volume_name, names.pool_name, names.account_name, names.group_name):
        try:
            good = check(text)
        except Mistake:
            continue
        assert good == text
        assert good.isascii()
        assert not set(good) & set(" \t\r\n#'\"?>()")


@pytest.mark.parametrize(
    "text", ["1.2.3", "1.2.3.4.5", "256.1.1.1", "a.b.c.d", "*", "", "1.2.3.-4", "1.2.3. 4", "٣.1.1.1"]
)
def test_what_is_no_address_pattern(text):
    with pytest.raises(Mistake):
        names.address_pattern(text)


@pytest.mark.parametrize("text", ["10.0.0.1", "*.*.*.*", "192.168.*.*"])
def test_address_patterns(text):
    assert names.address_pattern(text) == text


def test_a_bad_secret_is_not_repeated():
    for secret in ("", "x" * 256, "tab\there"):
        with pytest.raises(Mistake) as refused:
            names.chap_secret(secret)
        assert not secret or secret not in refused.value.text
