"""What the lesson says when it cannot go on, and when you stop it.

Under an error a notebook shows 30 to 50 lines of traceback. That helps where the cause is unknown.
These two say themselves what happened and what to do next, so Jupyter shows their sentence alone.
All other errors keep their traceback.
"""


class _SentenceOnly:
    """Jupyter and IPython ask an error for this method before they print its traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class FlowersError(_SentenceOnly, RuntimeError):
    """Something that you can act on: what happened, why, and what to do next."""


class Stopped(_SentenceOnly, KeyboardInterrupt):
    """You pressed stop: what is saved, and how to go on.

    Still a KeyboardInterrupt, so that `except Exception` does not swallow it and Run All ends here.
    """
