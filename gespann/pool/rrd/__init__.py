"""Figures of hosts and machines over time: gathered from agents, kept in round-robin archives, told to clients."""
