"""The training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evergrad import io, nn, ops, optim
from evergrad.text import Batch

from .checkpoint import RunState, has_checkpoints, load_checkpoint, save_checkpoint
from .config import FitConfig
from .data import Sampler
from .history import STEP_COLUMNS, History
from .progress import show_progress


class TrainingDiverged(RuntimeError):
    """Loss, gradient or a score became NaN or infinite.

    Where the loss or the gradient of a step did, the parameters are those before the step.
    """


def fit(
    model: Any,
    sample: Sampler,
    config: FitConfig,
    *,
    evaluate: Callable[[], dict[str, float]] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    label: str = "train",
) -> History:
    """Train a model with AdamW, linear warm-up and cosine decay.

    The loss of a step is the mean over all counted tokens of its `config.accumulate` micro-batches:
    they share one normalizer, so the gradient is that of a single batch that holds them all.

    Parameters
    ----------
    model : Module
        With flat parameters and ``loss(batch, normalizer) -> (loss, backward)``. Trained in place;
        left in evaluation mode.
    sample : callable
        ``sample(rng, batch_size, window) -> Batch``, such as `window_sampler` makes. All its
        randomness should come from `rng`, whose state the checkpoints keep.
    config : FitConfig
        Budget and settings.
    evaluate : callable, optional
        Gives named scores, lower is better, such as `bits_per_byte` on held-out text. Called
        before the first step, every `config.eval_every` steps, and after the last.
    checkpoint : path-like, optional
        Folder for checkpoints; the last two are kept. They are written every
        `config.checkpoint_every` steps and at the end, and are whole or absent whenever the process
        is killed. Before each, the last step is looked at by one more forward pass.
    resume : bool
        Go on from the newest checkpoint, bit for bit as if the run had not stopped; without one,
        begin.
    progress : bool
        Show a bar on a terminal (with `rich`), plain lines now and then elsewhere, on stderr.
    label : str
        Name of the run in the display and the history.

    Returns
    -------
    History
        A row for every step, those before the resumption included.

    Raises
    ------
    TrainingDiverged
        If the loss, the gradient's norm or a score is not finite: the step is not taken. Or if a
        step left parameters that a checkpoint or the end would keep and whose loss is not finite.
        The last checkpoint stays.
    FileExistsError
        If `checkpoint` holds checkpoints and `resume` is not set.
    OSError
        If `checkpoint` is or lies in a file (NotADirectoryError), or the disk refuses.
    CheckpointMismatchError
        If the checkpoint to resume from has another model or other settings.
    TypeError
        If `sample` is no function, or `config` no `FitConfig`.
    ValueError
        If `resume` lacks `checkpoint`, `config.patience` lacks `evaluate`, all parameters of
        `model` are frozen, some are in few bits, or a batch has nothing to predict.

    References
    ----------
    Loshchilov and Hutter, Decoupled weight decay regularization, 2019. Pascanu et al., On the
    difficulty of training recurrent neural networks, 2013 (clipping by the norm).

    Examples
    --------
    >>> from evergrad.models import GPT2, GPT2Config
    >>> from evergrad.train import window_sampler
    >>> model = GPT2(GPT2Config(vocab_size=8, context=8, layers=1, heads=1, dim=8))
    >>> sample = window_sampler(np.arange(64) % 8)
    >>> history = fit(model, sample, FitConfig(steps=40, window=8, lr=0.02), progress=False)
    >>> history.rows[-1]["loss"] < 0.5 * history.rows[0]["loss"]
    True
    """
    if not callable(sample):
        made = "a function, such as window_sampler(ids) makes"
        raise TypeError(f"fit: sample: expected {made}, got {type(sample).__name__}")
    if not isinstance(config, FitConfig):
        raise TypeError(f"fit: config: expected a FitConfig, got {type(config).__name__}")
    if resume and checkpoint is None:
        raise ValueError("fit: resume needs checkpoint, the folder to resume from")
    if config.patience is not None and evaluate is None:
        raise ValueError("fit: config.patience needs evaluate, the scores to watch")
    # It would take all its time and leave the model as it was, or nearly so.
    weights = [parameter.data for parameter in model.parameters()]
    few_bits = {weight.kind for weight in weights if isinstance(weight, ops.QuantizedWeight)}
    if few_bits:
        raise ValueError(
            f"fit: model has weights in few bits ({', '.join(sorted(few_bits))}), which cannot "
            "learn: load it with dtype='float32'"
        )
    if model.flat.data.size == 0:
        raise ValueError("fit: model has nothing to learn: all its parameters are frozen")
    optimizer = optim.AdamW(
        model.flat, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
    )
    rng = np.random.default_rng(config.seed)
    folder = None if checkpoint is None else Path(checkpoint)
    state = _first_state(folder, resume, config, model, optimizer, rng)

    with show_progress(label, progress) as display:
        if not state.rows and evaluate is not None:
            row = {"step": 0, "seconds": 0.0, "tokens": 0}
            state.rows.append(row | _scores(model, evaluate, 0))
            _watch(state, config, model)
            display.update(0.0, state.rows[-1])
        model.train()
        while not _finished(state, config):
            started = time.perf_counter()
            row, batch = _step(model, optimizer, sample, config, state, rng)
            state.seconds += time.perf_counter() - started
            row["seconds"] = state.seconds
            state.rows.append(row)

            if evaluate is not None and _due(config.eval_every, state, config):
                row |= _scores(model, evaluate, state.step)
                _watch(state, config, model)
                model.train()
            display.update(config.fraction(state.step, state.seconds), row)
            if _due(config.checkpoint_every, state, config):
                _expect_finite(model, batch, state.step)
                if folder is not None:
                    save_checkpoint(folder, config, state, model, optimizer, rng)

    if config.patience is not None and state.best is not None:
        model.flat.data[...] = state.best
    model.eval()
    return History(label, state.rows)


def _first_state(
    folder: Path | None,
    resume: bool,
    config: FitConfig,
    model: Any,
    optimizer: Any,
    rng: np.random.Generator,
) -> RunState:
    if folder is None:
        return RunState()
    try:
        folder.mkdir(parents=True, exist_ok=True)  # what forbids it is better known before the work
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"fit: checkpoint: expected a folder, got {folder}, where a file is in the way"
        ) from error
    io.clean_leftovers(folder)
    if resume:
        return load_checkpoint(folder, config, model, optimizer, rng) or RunState()
    if has_checkpoints(folder):
        raise FileExistsError(
            f"{folder} holds the checkpoints of a run: resume it, or use another folder"
        )
    return RunState()


def _step(
    model: Any,
    optimizer: Any,
    sample: Sampler,
    config: FitConfig,
    state: RunState,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], Batch]:
    """One optimizer step, its row and last batch; nothing is changed when it is not finite."""
    batches = [sample(rng, config.batch_size, config.window) for _ in range(config.accumulate)]
    counted = sum(batch.counted for batch in batches)
    if counted == 0:
        raise ValueError(f"fit: the batch of step {state.step + 1} has nothing to predict")
    used = config.fraction(state.step + 1, state.seconds)
    floor = config.min_lr_ratio * config.lr
    optimizer.lr = optim.linear_warmup_cosine(used, 1.0, config.warmup, config.lr, floor)

    optimizer.zero_grad()
    loss = 0.0
    for batch in batches:
        loss += model.loss_and_gradients(batch, normalizer=counted)
        if not math.isfinite(loss):
            break
    norm, scale = optim.clip_scale(model.flat.grad, config.clip)
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise TrainingDiverged(
            f"step {state.step + 1}: loss {loss}, gradient norm {norm}, learning rate"
            f" {optimizer.lr:.3g}; the parameters are those of step {state.step}."
            " A lower lr, a longer warmup or a smaller clip may help"
        )
    optimizer.step(grad_scale=scale)

    state.step += 1
    state.tokens += sum(batch.input_ids.size for batch in batches)
    row = {
        "step": state.step,
        "seconds": 0.0,  # known when the step has been timed
        "tokens": state.tokens,
        "loss": loss,
        "lr": optimizer.lr,
        "grad_norm": norm,
    }
    return row, batches[-1]


def _expect_finite(model: Any, batch: Batch, step: int) -> None:
    """Look at what a step made before it is kept: its own loss was that of the parameters before.

    Ruined parameters may all be finite, and too large: only a loss tells.
    """
    with nn.evaluating(model):
        loss, _ = model.loss(batch, normalizer=1.0)
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"step {step}: the loss after it is {loss}. A lower lr or a longer warmup may help"
        )


def _finished(state: RunState, config: FitConfig) -> bool:
    out_of_patience = config.patience is not None and state.waited >= config.patience
    return out_of_patience or config.fraction(state.step, state.seconds) >= 1


def _due(every: int | None, state: RunState, config: FitConfig) -> bool:
    return _finished(state, config) or (every is not None and state.step % every == 0)


def _scores(model: Any, evaluate: Callable[[], dict[str, float]], step: int) -> dict[str, float]:
    model.eval()
    scores = {name: float(value) for name, value in evaluate().items()}
    for name, value in scores.items():
        if name in STEP_COLUMNS:
            raise ValueError(f"fit: a score may not be called {name!r}: that is a column of steps")
        if not math.isfinite(value):
            raise TrainingDiverged(f"step {step}: the score {name!r} is {value}")
    return scores


def _watch(state: RunState, config: FitConfig, model: Any) -> None:
    """Early stopping: keep the best parameters, and count evaluations without a new best."""
    if config.patience is None:
        return
    scores = {name: v for name, v in state.rows[-1].items() if name not in STEP_COLUMNS}
    name = config.monitor or next(iter(scores), None)
    if name not in scores:
        raise ValueError(f"fit: patience watches {name!r}, evaluate gives {sorted(scores)}")
    if state.best_score is None or scores[name] < state.best_score:
        state.best_score, state.best, state.waited = scores[name], model.flat.data.copy(), 0
    else:
        state.waited += 1
