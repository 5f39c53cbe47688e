"""The deterministic simulator: the actors of `actors/` in one thread, virtual time and faults (docs/promises.md)."""
