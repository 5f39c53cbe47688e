"""The deterministic simulator. Empty until its issue: the actors that will run in it are in `actors/`."""
