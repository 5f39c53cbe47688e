"""Placement, without a cluster actor around it."""
