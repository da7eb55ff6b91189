"""Pictures that are either whole or as they were."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

from .atomic import write_atomic


def write_picture(path: str | os.PathLike[str], figure: Any, **settings: Any) -> None:
    """Draw a figure of matplotlib into a file, atomically.

    Drawing takes seconds, and matplotlib empties the file before them: a process that is killed,
    or a disk that is full, would cost the picture that was there.

    Parameters
    ----------
    path : path-like
        The file, in the format of its suffix; without one, ".png" is added. Where a link leads, if
        it is one.
    figure : matplotlib.figure.Figure
        What to draw.
    **settings
        For `savefig`.

    Raises
    ------
    ValueError
        If matplotlib does not know the format.
    OSError
        As `write_atomic`.

    Examples
    --------
    >>> import tempfile
    >>> class Figure:
    ...     def savefig(self, file, format):
    ...         _ = file.write(format.encode())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_picture(Path(folder, "curve.svg"), Figure())
    ...     Path(folder, "curve.svg").read_text()
    'svg'
    """
    path = Path(path)
    if not path.suffix:
        path = path.with_name(f"{path.name}.png")
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower(), **settings)
    write_atomic(os.path.realpath(path), drawn.getvalue())
