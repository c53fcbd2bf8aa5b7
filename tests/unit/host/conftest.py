from fake_agent import agent

__all__ = ["agent"]
