"""The table of op cases, and measuring against the limits of the machine and against peers."""
