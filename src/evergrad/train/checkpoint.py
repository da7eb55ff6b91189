"""Everything that a run needs to go on as if it had never stopped, in folders that are whole.

``<folder>/step-00000020/state.safetensors`` holds the arrays, ``state.json`` the rest.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evergrad import io
from evergrad.models.weights import Pretrained

from .config import FitConfig
from .history import STEP_COLUMNS

FORMAT = 1
KEPT = 2
OUTDATED = "stopped"  # in checkpoints of former versions: whether patience, then, had run out
# These say how long to train and when to look; a resumed run may change them. All others are part
# of what the steps so far were made with.
MAY_CHANGE = {"steps", "seconds", "eval_every", "patience", "monitor", "checkpoint_every"}


class CheckpointMismatchError(ValueError):
    """A checkpoint was made with other settings, or of another model, than it is to go on with."""


@dataclass
class RunState:
    """What a run has reached, apart from model, optimizer and generator.

    Parameters
    ----------
    step, seconds, tokens
        Steps done, time spent in them, tokens seen.
    rows : list of dict
        Those of the `History`.
    best_score, best : float, ndarray
        The best score that early stopping has seen, and the trainable parameters that had it.
    waited : int
        Evaluations since.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best_score: float | None = None
    best: np.ndarray | None = None
    waited: int = 0


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """Find the newest checkpoint of a run that is whole.

    Checkpoints appear by a rename, so one that a killed process was writing is not there at all.
    One that was damaged later is passed over with a warning.

    Parameters
    ----------
    folder : path-like
        What `fit` was given as `checkpoint`.

    Returns
    -------
    Path or None
        The checkpoint's folder; None when the run has none yet.

    Raises
    ------
    io.CorruptFileError
        If there are checkpoints and none can be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     latest_checkpoint(folder) is None
    True
    """
    newest = next(_readable(Path(folder)), None)
    return None if newest is None else newest[0]


def save_checkpoint(
    folder: Path,
    config: FitConfig,
    state: RunState,
    model: Any,
    optimizer: Any,
    rng: np.random.Generator,
) -> None:
    """Write a checkpoint, then remove all but the last two."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    scalars = {}
    for name, value in optimizer.state_dict().items():
        if isinstance(value, np.ndarray):
            tensors[f"optimizer.{name}"] = value
        else:
            scalars[name] = value
    values = {name: value for name, value in vars(state).items() if name != "best"}
    if state.best is not None:
        tensors["best"] = state.best
    target = folder / f"step-{state.step:08d}"
    if target.exists():  # damaged, or the run would have started from it
        io.remove_folder(target)
    with io.atomic_folder(target) as temporary:
        io.save_safetensors(temporary / "state.safetensors", tensors)
        io.write_json(
            temporary / "state.json",
            {
                "format": FORMAT,
                "config": asdict(config),
                "model": _shape(model),
                "run": values,
                "optimizer": scalars,
                "generator": rng.bit_generator.state,
                "random_state": model.random_state(),
            },
            indent=None,
        )
    for old in _folders(folder)[KEPT:]:
        io.remove_folder(old)


def load_checkpoint(
    folder: Path, config: FitConfig, model: Any, optimizer: Any, rng: np.random.Generator
) -> RunState | None:
    """Set model, optimizer and generator to the newest checkpoint; None when there is none."""
    newest = next(_readable(folder), None)
    if newest is None:
        return None
    path, values, tensors = newest
    changed = _changed(_settings(config), values["config"])
    if "model" in values:  # former versions did not keep it
        changed += _changed(_shape(model), values["model"])
    if changed:
        raise CheckpointMismatchError(f"{path}: was made with other settings: {'; '.join(changed)}")

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }

    try:
        optimizer.load_state_dict({**values["optimizer"], **part("optimizer.")})
        model.load_state_dict(part("model."))
        model.load_random_state(values["random_state"])
        rng.bit_generator.state = values["generator"]
        run = {name: value for name, value in values["run"].items() if name != OUTDATED}
        state = RunState(**run, best=tensors.get("best"))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatchError(f"{path}: does not fit this model: {error}") from error
    if _watched(state, values["config"].get("monitor")) != _watched(state, config.monitor):
        # The best so far, and how long ago it was, are those of another score.
        state.best_score = state.best = None
        state.waited = 0
    return state


def has_checkpoints(folder: Path) -> bool:
    """Whether a run has left checkpoints here, whole or not."""
    return bool(_folders(folder))


def _folders(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted(folder.glob("step-" + "[0-9]" * 8), reverse=True)


def _readable(folder: Path) -> Iterator[tuple[Path, dict[str, Any], dict[str, np.ndarray]]]:
    """Checkpoints that are whole, newest first, with their values and arrays."""
    problem: Exception | None = None
    whole = 0
    for path in _folders(folder):
        try:
            values = io.read_json(path / "state.json")
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                found = values.get("format") if isinstance(values, dict) else None
                raise io.CorruptFileError(
                    f"{path / 'state.json'}: a checkpoint of format {FORMAT} is expected,"
                    f" got {found}"
                )
            tensors = io.load_safetensors(path / "state.safetensors")
        except (io.CorruptFileError, FileNotFoundError) as error:
            problem = error
            warnings.warn(f"checkpoint passed over: {error}", stacklevel=4)
            continue
        whole += 1
        yield path, values, tensors
    if problem is not None and not whole:
        raise io.CorruptFileError(f"{folder}: no checkpoint can be read: {problem}") from problem


def _watched(state: RunState, monitor: str | None) -> str | None:
    """The score that patience watches: by default the first one."""
    scores = (name for row in state.rows for name in row if name not in STEP_COLUMNS)
    return monitor or next(scores, None)


def _settings(config: FitConfig) -> dict[str, Any]:
    """What the steps so far were made with, as JSON has it."""
    settings = {name: v for name, v in asdict(config).items() if name not in MAY_CHANGE}
    return settings | {"betas": list(config.betas)}


def _shape(model: Any) -> dict[str, Any]:
    """What the weights do not tell, such as the number of heads; of a family's model alone."""
    return dict(model.config.to_dict()) if isinstance(model, Pretrained) else {}


def _changed(now: dict[str, Any], saved: dict[str, Any]) -> list[str]:
    return [
        f"{name} was {saved.get(name)}, is {value}"
        for name, value in now.items()
        if saved.get(name) != value
    ]
