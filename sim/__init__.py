"""The simulator: rooms (what happens), engine (when it happens), metrics (what is seen)."""

__version__ = "0.1.0"
