"""Who may log in, how, and what a refusal says (RFC 7143 11.12.5)."""

from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import Access, ChapPut, ChapUser, Configure, SessionList, Target, TargetPut
from tests.product.engine.conftest import NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.initiator import Initiator, Refused
from tests.product.engine.test_limits import wait_until

pytestmark = pytest.mark.engine
Connect = Callable[..., Initiator]
Serve = Callable[..., Target]
SECRET = "a-secret-of-vm1"


def chap_only(control: Control, mutual: ChapUser | None = None) -> None:
    target = Target(volume=VOLUME, name=NAME, online=True, access=[Access(chap_user="vm1")])
    users = [ChapUser(user="vm1", secret=SECRET), ChapUser(user="vm2", secret="another-secret")]
    control.call(Configure(targets=[target], chap_users=users, mutual=mutual))


def status_of(call: Callable[[], object]) -> int:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.status


def test_nobody_gets_in_before_the_group_has_configured(control: Control, connect: Connect) -> None:
    assert control.hello.configured is False
    assert status_of(lambda: connect().login(NAME)) == 0x0301
    assert connect().login(None).send_targets() == []


@pytest.mark.parametrize("algorithm", ["5", "6", "7", "8"])
def test_chap_with_every_algorithm(control: Control, connect: Connect, algorithm: str) -> None:
    chap_only(control)
    connect().login(NAME, user="vm1", secret=SECRET, algorithms=f"99,{algorithm}")
    assert [session.chap_user for session in control.call(SessionList()).sessions] == ["vm1"]


def test_wrong_secret_wrong_user_or_no_chap_is_refused(control: Control, connect: Connect) -> None:
    chap_only(control)
    assert status_of(lambda: connect().login(NAME, user="vm1", secret="wrong")) == 0x0201
    assert status_of(lambda: connect().login(NAME, user="nobody", secret=SECRET)) == 0x0201
    assert status_of(lambda: connect().login(NAME)) == 0x0201
    assert status_of(lambda: connect().login(NAME, user="vm2", secret="another-secret")) == 0x0202
    assert control.call(SessionList()).sessions == []


def test_chap_cannot_be_left_out_by_going_straight_to_the_operational_stage(control: Control, connect: Connect) -> None:
    chap_only(control)
    keys = {"InitiatorName": "iqn.2026-01.test:host1", "TargetName": NAME}
    assert status_of(lambda: connect().login_request(keys, 1, 3)) == 0x0201
    assert status_of(lambda: connect().login_request(keys, 0, 3)) == 0x0201


def test_the_group_proves_itself_when_asked(control: Control, connect: Connect) -> None:
    chap_only(control, ChapUser(user="group", secret="secret-of-the-group"))
    connect().login(NAME, user="vm1", secret=SECRET, mutual_secret="secret-of-the-group", algorithms="7")


def test_a_challenge_sent_back_is_not_answered(control: Control, connect: Connect) -> None:
    chap_only(control, ChapUser(user="group", secret="secret-of-the-group"))
    initiator = connect()
    initiator.challenge_to_send = b"reflect"
    assert (
        status_of(lambda: initiator.login(NAME, user="vm1", secret=SECRET, mutual_secret="secret-of-the-group"))
        == 0x0201
    )


def test_mutual_chap_that_is_not_set_up_is_refused(control: Control, connect: Connect) -> None:
    chap_only(control)
    assert status_of(lambda: connect().login(NAME, user="vm1", secret=SECRET, mutual_secret="x")) == 0x0201


def test_a_changed_secret_shuts_the_old_one_out(control: Control, connect: Connect) -> None:
    chap_only(control)
    control.call(ChapPut(user="vm1", secret="the-next-secret"))
    assert status_of(lambda: connect().login(NAME, user="vm1", secret=SECRET)) == 0x0201
    connect().login(NAME, user="vm1", secret="the-next-secret")


def test_a_record_must_match_in_all_its_fields(connect: Connect, serve: Serve) -> None:
    serve(Access(initiator="iqn.2026-01.test:host1", address="127.0.0.*"), Access(address="10.*.*.*"))
    connect().login(NAME)
    assert status_of(lambda: connect(name="iqn.2026-01.test:host2").login(NAME)) == 0x0202


def test_unknown_and_offline_targets_are_not_found(control: Control, connect: Connect, serve: Serve) -> None:
    serve()
    assert status_of(lambda: connect().login(NAME + "x")) == 0x0203
    control.call(TargetPut(target=Target(volume=VOLUME, name=NAME, online=False, access=[Access()])))
    assert status_of(lambda: connect().login(NAME)) == 0x0203


def test_only_one_initiator_name_at_a_time_unless_multihost(connect: Connect, serve: Serve) -> None:
    serve()
    connect().login(NAME)
    connect().login(NAME)  # another path of the same host
    assert status_of(lambda: connect(name="iqn.2026-01.test:host2").login(NAME)) == 0x0202
    serve(multihost=True)
    connect(name="iqn.2026-01.test:host2").login(NAME)


def test_the_same_port_logging_in_again_takes_its_sessions_place(
    control: Control, connect: Connect, serve: Serve
) -> None:
    serve()
    isid = bytes.fromhex("800000000001")
    first = connect(isid=isid).login(NAME)
    connect(isid=isid).login(NAME)
    with pytest.raises(ConnectionResetError):
        first.receive()
    assert len(control.call(SessionList()).sessions) == 1


def test_discovery_shows_only_what_the_asker_may_use(connect: Connect, serve: Serve) -> None:
    serve(Access(initiator="iqn.2026-01.test:host1"))
    shown = connect().login(None).send_targets()
    assert shown[0] == ("TargetName", NAME)
    assert shown[1][0] == "TargetAddress"
    assert shown[1][1].endswith(",1")
    assert connect().login(None).send_targets(NAME) == shown
    assert connect().login(None).send_targets("iqn.2026-01.test:other") == []
    assert connect(name="iqn.2026-01.test:host2").login(None).send_targets() == []


def test_login_text_may_come_in_pieces(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME, pieces=7, keys={"MaxBurstLength": "65536", "X-org.example.key": "1"})
    assert initiator.agreed["MaxBurstLength"] == "65536"
    assert initiator.agreed["X-org.example.key"] == "NotUnderstood"
    assert initiator.read10(0, 1) == bytes(512)


def test_secrets_are_not_in_the_log(control: Control, connect: Connect, engine: EngineProcess) -> None:
    chap_only(control)
    connect().login(NAME, user="vm1", secret=SECRET)
    assert wait_until(lambda: "vm1" in engine.log.read_text())  # written after the answer
    assert SECRET not in engine.log.read_text()
