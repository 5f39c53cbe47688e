"""Planted bugs: what the oracles must find. Each is a change of a few words in one module."""
