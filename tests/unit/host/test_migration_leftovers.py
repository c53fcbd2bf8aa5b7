"""What an agent that died in a migration has left in its run directory."""

from pathlib import Path

from gespann.host.fake import FakeHypervisor
from gespann.host.server import AgentServer


async def test_the_way_to_the_other_host_goes_when_the_agent_starts_again(tmp_path: Path) -> None:
    (tmp_path / "peer").mkdir()
    left = tmp_path / "peer/268b6fc58d56.sock"
    left.touch()
    agent = AgentServer(FakeHypervisor(run_dir=tmp_path), tmp_path / "agent.sock")
    await agent.start()
    try:
        assert not left.exists()
    finally:
        await agent.stop()
