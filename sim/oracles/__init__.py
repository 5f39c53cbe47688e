"""Judges that stand outside of the system: each looks at what is so, and never asks an actor what it believes."""
