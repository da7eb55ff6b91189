"""The number of threads that this process was told to use.

The native module is told at once. Numba may not have been imported yet, and keeps a number for each
thread of Python: its kernels look here before they run.
"""

from __future__ import annotations

#: None: nobody has said.
wanted: int | None = None
