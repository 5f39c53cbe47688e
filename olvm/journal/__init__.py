"""The durable memory of a silo: one file, one writer, one transaction for each group of turns.

Names are imported from their modules; this package loads nothing by itself, so that the simulator does not
pay for DuckDB.
"""
