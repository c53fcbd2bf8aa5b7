"""Words, the tree of commands and tables, with random input."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gespann.array.commands.declare import Command, build_tree, command
from gespann.array.commands.parser import Parser, find_word, follow
from gespann.array.commands.registry import COMMANDS, ROOT
from gespann.array.commands.table import pairs, rule, table, title
from gespann.array.commands.volume_views import ACCESS_COLUMNS, VOLUME_COLUMNS
from gespann.array.commands.words import BadInput, Word, split_words
from gespann.array.model.refusals import Refusal

plain = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, blacklist_characters="'\"#"), min_size=1, max_size=20
)
quotable = st.text(st.characters(min_codepoint=32, max_codepoint=126, blacklist_characters="'"), max_size=30)


@given(st.lists(st.one_of(plain.map(lambda text: (text, text)), quotable.map(lambda text: (f"'{text}'", text)))))
def test_what_is_quoted_comes_out_as_it_went_in(words):
    line = "  ".join(written for written, _ in words)
    assert [word.text for word in split_words(line)] == [meant for _, meant in words]


@given(st.text())
def test_any_line_is_words_or_bad_input(line):
    try:
        words = split_words(line)
    except BadInput:
        return
    assert all(isinstance(word, Word) and word.text.isprintable() for word in words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("a # b", ["a"]),
        ("a#b", ["a"]),
        ("'a # b'", ["a # b"]),
        ('a "" b', ["a", "", "b"]),
        ("a'b c'd", ["ab cd"]),
        ("\ta \t b ", ["a", "b"]),
        ('"it\'s"', ["it's"]),
    ],
)
def test_lines(line, words):
    assert [word.text for word in split_words(line)] == words


class NoVolumes:
    """Stands where a parser would look up names: there is nothing."""

    def __getattr__(self, name):
        return self

    def __format__(self, how):
        return "group1"

    def get(self, name):
        raise Refusal(f"{name} does not exist.")

    def all(self):
        return []


vocabulary = sorted({step for one in COMMANDS for step in one.path if isinstance(step, str)})
vocabulary += sorted({option.word for one in COMMANDS for option in one.options})


@settings(max_examples=5 * settings().max_examples)
@given(
    st.lists(
        st.one_of(st.sampled_from([*vocabulary, "?", "v1", "1GB", "50%", "on", "iqn.2000-01.a:b"]), plain), max_size=9
    )
)
def test_any_words_are_a_command_a_selection_help_or_a_refusal(texts):
    try:
        parsed = Parser(NoVolumes(), [Word(text) for text in texts]).parse(ROOT)
    except Refusal as refusal:
        assert refusal.text.endswith(".")  # noqa: PT017
        return
    assert parsed.help_at is not None or isinstance(parsed.command, Command) or parsed.selected


def test_every_keyword_can_be_cut_to_where_it_is_alone():
    for word in ROOT.words:
        others = [other for other in ROOT.words if other != word]
        for length in range(1, len(word) + 1):
            short = word[:length]
            if not any(other.startswith(short) for other in others):
                assert find_word(list(ROOT.words), short) == word


def test_a_word_that_begins_another_is_itself():
    assert find_word(["thin", "thin-provision"], "thin") == "thin"
    with pytest.raises(BadInput, match="ambiguous"):
        find_word(["thin-min", "thin-provision"], "thin")


def test_the_same_path_twice_is_refused():
    async def run(session):
        return []

    one = command("a b", "x")(run)
    with pytest.raises(ValueError, match="twice"):
        build_tree([one, one])


def test_every_command_has_help_and_its_options_do_too():
    from gespann.array.commands.help import help_lines

    for declared in COMMANDS:
        assert declared.help.endswith("."), str(declared)
    assert [line for line in help_lines(ROOT) if "  " not in line] == []
    assert "help" in follow(ROOT)


cell = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80)


@given(st.lists(st.tuples(*[cell] * 6), max_size=5))
def test_tables_keep_their_columns_and_lose_nothing(rows):
    rows = [(f"{number}", *row[1:]) for number, row in enumerate(rows)]
    lines = table(ACCESS_COLUMNS, rows)
    assert lines[1] == "--- ----------------------------- --------------- ---------- ---------- --------"
    spans = [found.span() for found in re.finditer("-+", lines[1])]
    read: list[list[str]] = []
    for line in lines[2:]:
        cells = [line[a:b].rstrip() for a, b in spans]
        assert len(line) <= 80
        if cells[0]:
            read.append(cells)
        else:
            for column, text in enumerate(cells):
                assert text == "" or text.startswith("  ")
                read[-1][column] += text[2:]
    assert read == [list(row) for row in rows]


def test_access_table_of_a_real_array():
    rows = [(str(n), f"iqn.1998-01.com.vmware:xxxxxvm0{n}-4c08cb5e", "*.*.*.*", "none", "", "volume") for n in (1, 2)]
    assert table(ACCESS_COLUMNS, rows) == [
        "ID  Initiator                     Ipaddress       AuthMethod UserName   Apply-To",
        "--- ----------------------------- --------------- ---------- ---------- --------",
        "1   iqn.1998-01.com.vmware:xxxxxv *.*.*.*         none                  volume",
        "      m01-4c08cb5e",
        "2   iqn.1998-01.com.vmware:xxxxxv *.*.*.*         none                  volume",
        "      m02-4c08cb5e",
    ]


def test_volume_table_has_the_width_of_the_array():
    head, dashes = table(VOLUME_COLUMNS, [])
    assert head == "Name            Size       Snapshots Status  Permission Connections TP"
    assert dashes == "--------------- ---------- --------- ------- ---------- ----------- -"


@given(st.lists(st.tuples(plain, st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))))
def test_two_pairs_a_line_say_the_same_as_one(values):
    one = pairs(values, two_a_line=False)
    two = pairs(values, two_a_line=True)
    assert len(one) == len(values)
    assert "".join("".join(two).split()) == "".join("".join(one).split())


def test_titles_are_as_wide_as_rules():
    assert re.fullmatch("_+ Volume Information _+", title("Volume Information"))
    assert len(title("x")) == len(title("yy")) == len(rule()) == 79
