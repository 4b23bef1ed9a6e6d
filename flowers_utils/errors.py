"""The two kinds of error that the lesson raises on purpose, each written for its reader."""

from transfer_learning_config import ConfigError

__all__ = ["ConfigError", "FlowersError"]


class FlowersError(RuntimeError):
    """Something the student can act on: what happened, why, and what to do next."""
