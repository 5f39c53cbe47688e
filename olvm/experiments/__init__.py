"""Placement experiments: real traces, fleets to run them on, and later the runner and its reports."""
