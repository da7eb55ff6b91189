"""The one error for a file that exists but cannot be read."""

from __future__ import annotations


class CorruptFileError(ValueError):
    """A file exists but its content is truncated or not what its name promises.

    The message begins with the path and says what is wrong with it.
    """
