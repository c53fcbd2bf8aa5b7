import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.pool.steps.storage_door import refusal
from gespann.sr.equal import errors, words
from gespann.sr.equal.dialogue import Dialogue

GREETING = "\r\n  Welcome to Group Manager\r\n\r\n"
SHOW = words.volume_list()


def at_prompt(prompt: str = "group-1> ") -> Dialogue:
    dialogue = Dialogue()
    assert dialogue.receive(GREETING + prompt) is not None
    return dialogue


def test_the_group_name_is_learnt() -> None:
    assert at_prompt().group == "group-1"


def test_events_before_the_prompt() -> None:
    dialogue = Dialogue()
    event = "563:2:netmgtd:21-Nov-2023 01:55:08.490002:rcc_util.c:1024:INFO::25.2.9:CLI: Log.\r\n"
    assert dialogue.receive(GREETING + event) is None
    assert dialogue.receive("group-1> ") is not None


def test_only_the_groups_own_prompt_ends_an_answer() -> None:
    dialogue = at_prompt()
    dialogue.sent(SHOW)
    assert dialogue.receive("Name\r\nother-group> ") is None
    reply = dialogue.receive("\r\ngroup-1> ")
    assert reply is not None
    assert reply.lines == ("Name", "other-group> ")


def test_a_context_is_a_prompt_too() -> None:
    dialogue = at_prompt()
    dialogue.sent(SHOW)
    assert dialogue.receive("group-1(volume_v1)> ") is not None


def test_an_echo_is_no_answer() -> None:
    dialogue = at_prompt()
    dialogue.sent(SHOW)
    reply = dialogue.receive("volume show\r\nName\r\ngroup-1> ")
    assert reply is not None
    assert reply.lines == ("Name",)


def test_the_pager_gets_a_blank() -> None:
    dialogue = at_prompt()
    dialogue.sent(SHOW)
    assert dialogue.receive("one\r\nPress any key to continue (Q to quit)") is None
    assert dialogue.keys == " "
    reply = dialogue.receive("\r\ntwo\r\ngroup-1> ")
    assert reply is not None
    assert [line for line in reply.lines if line] == ["one", "two"]


def test_a_question_is_answered() -> None:
    dialogue = at_prompt()
    dialogue.sent(words.volume_delete("v1"))
    assert dialogue.receive("Do you really want to delete the volume and destroy 10GB of data? (y/n) [n] ") is None
    assert dialogue.keys == "y\r"
    assert dialogue.receive("\r\nVolume deletion succeeded.\r\ngroup-1> ") is not None


def test_bad_input_put_back_spoils_the_session() -> None:
    dialogue = at_prompt()
    dialogue.sent(SHOW)
    reply = dialogue.receive("% Error - Bad command\r\ngroup-1> volume show")
    assert reply is not None
    assert reply.spoilt
    assert reply.error == "% Error - Bad command"


def test_errors_in_their_shapes() -> None:
    for text in ("% Error - Volume v1 does not exist.", "Error: no", "Error", "  % Error - x"):
        dialogue = at_prompt()
        dialogue.sent(SHOW)
        reply = dialogue.receive(f"{text}\r\ngroup-1> ")
        assert reply is not None
        assert reply.error == text.strip()
    dialogue = at_prompt()
    dialogue.sent(SHOW)
    reply = dialogue.receive("Errors: 0\r\ngroup-1> ")
    assert reply is not None
    assert not reply.error


@given(st.text(max_size=400), st.lists(st.integers(1, 50), max_size=30))
def test_any_text_in_any_pieces(text: str, cuts: list[int]) -> None:
    """Nothing a group says breaks the reading of it, and the pieces it comes in do not matter."""
    whole, pieces = at_prompt(), at_prompt()
    for dialogue in (whole, pieces):
        dialogue.sent(SHOW)
    answer = text.replace(">", "").replace("(y/n)", "").replace("Press", "") + "\r\ngroup-1> "
    expected = whole.receive(answer)
    assert expected is not None
    got, start = None, 0
    for size in [*cuts, len(answer)]:
        got = pieces.receive(answer[start : start + size])
        start += size
        if got is not None or start >= len(answer):
            break
    assert got is not None
    assert "".join(got.lines).replace("\n", "") == "".join(expected.lines).replace("\n", "")


@pytest.mark.parametrize(
    "said",
    [
        "% Error - The data plane does not answer. Try again later.",
        "% Error - The data plane did not answer. The deletion of volume v1 is finished when it does.",
        "% Error - The change is recorded, but the data plane does not answer; it takes effect when it does.",
    ],
)
def test_what_may_yet_take_effect_is_nobodys_refusal(said: str) -> None:
    """So that whoever asked asks again, instead of taking it for undone."""
    failure = errors.CliRefusal("volume show", said).as_sr_error(errors.VDI_DELETE)
    assert refusal(failure, "OpaqueRef:sr").nobody_answered
    other = errors.CliRefusal("volume delete", "% Error - Volume v1 is online.").as_sr_error(errors.VDI_DELETE)
    assert not refusal(other, "OpaqueRef:sr").nobody_answered
