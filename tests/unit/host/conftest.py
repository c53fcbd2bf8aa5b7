from tests.unit.host.fake_agent import agent

__all__ = ["agent"]
