"""Measurements: the engine against a peer, the product step by step. Results are kept in bench/results."""
