"""The agent inside a guest. Empty until its issue."""
