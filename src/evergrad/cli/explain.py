"""``evergrad explain``: how likely a model finds a text, and where its attention goes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.text import Text

from evergrad import models

from . import _options as options
from ._output import JsonOption, err, out, print_json
from ._show import table
from ._verb import verb

EXAMPLES = (
    'evergrad explain "The capital of France is Rome." --model SmolLM2.gguf',
    'evergrad explain "def main(" --store run --layer 2 --head 0 --plot attention.png',
    'evergrad explain "The statement" --store run --json',
)
#: Backgrounds from unlikely to likely.
COLOURS = ("#8b1a1a", "#a8501f", "#94702a", "#6f7f2f", "#3f7d3a", "#1f6f4a")
#: Least probability of each but the first.
STEPS = (0.01, 0.05, 0.2, 0.5, 0.8)
SHADES = " ·░▒▓█"
#: Widest matrix that a terminal shows.
WIDEST = 48


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, explain, EXAMPLES)


def explain(
    text: Annotated[str, typer.Argument(help="The text to look at.", show_default=False)],
    store: options.StoreOption = options.DEFAULT_STORE,
    version: options.VersionOption = None,
    model: options.ModelOption = None,
    layer: Annotated[
        int | None,
        typer.Option("--layer", min=0, help="Attention of this layer; by default of the last."),
    ] = None,
    head: Annotated[
        int | None,
        typer.Option("--head", min=0, help="Of this head; by default the mean of all."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the attention as a heat map (PNG, SVG, PDF)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how likely a model finds each token of a text, and where its attention goes.

    Each token is coloured by its probability after those before it, from red (below 1 %) to green
    (above 80 %). The least expected ones are listed with what the model expected instead. Then
    attention: a row for each token, darker where it looks.
    """
    path, loaded = options.open_decoder(store, version, model)
    tokenizer = loaded.tokenizer
    with options.usage():
        found = models.explain(loaded, tokenizer.prompt(text))
        layers, heads = found.attention.shape[:2]
        layer = layers - 1 if layer is None else layer
        if layer >= layers:
            raise ValueError(f"--layer must lie below {layers}, got {layer}")
        if head is not None and head >= heads:
            raise ValueError(f"--head must lie below {heads}, got {head}")
        if plot is not None and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
            raise ValueError(f"--plot: expected a name that ends in .png, .svg or .pdf, got {plot}")
    tokens = [_shown(tokenizer.decode([token])) for token in found.ids.tolist()]
    chosen = found.attention[layer]
    weights = chosen.mean(axis=0) if head is None else chosen[head]
    title = f"layer {layer} of {layers}, " + ("mean of heads" if head is None else f"head {head}")
    if as_json:
        print_json({
            "model": path,
            "tokens": tokens,
            "ids": found.ids.tolist(),
            "log_likelihood": found.log_likelihood.tolist(),
            "bits_per_token": _bits(found.log_likelihood),
            "layer": layer,
            "head": head,
            "attention": weights.tolist(),
        })  # fmt: skip
    else:
        _show_likelihoods(tokens, found, tokenizer)
        _show_attention(tokens, weights, title)
    if plot is not None:
        draw(plot, tokens, weights, title)
        err.print(f"wrote {plot}")


def _shown(piece: str) -> str:
    """A token on one line."""
    return piece.replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")


def _bits(log_likelihood: np.ndarray) -> float:
    return float(-np.nanmean(log_likelihood) / math.log(2)) if log_likelihood.size > 1 else math.nan


def _show_likelihoods(tokens: list[str], found: Any, tokenizer: Any) -> None:
    coloured = Text()
    for token, value in zip(tokens, found.log_likelihood, strict=True):
        if math.isnan(value):
            coloured.append(token, style="dim")
        else:
            step = sum(math.exp(value) >= least for least in STEPS)
            coloured.append(token, style=f"white on {COLOURS[step]}")
    out.print(coloured, soft_wrap=True)
    if len(tokens) < 2:
        return
    out.print(f"\n[dim]{_bits(found.log_likelihood):.2f} bits per token[/dim]\n")
    least = np.argsort(found.log_likelihood[1:], kind="stable")[:8] + 1
    made = table("least expected", "at", "probability", "expected instead")
    for at in least.tolist():
        instead = "  ".join(
            f"{_shown(tokenizer.decode([token]))!r} {math.exp(value):.0%}"
            for token, value in zip(
                found.likeliest[at].tolist(), found.likeliest_log_likelihood[at], strict=True
            )
        )
        probability = math.exp(found.log_likelihood[at])
        made.add_row(escape(repr(tokens[at])), str(at), f"{probability:.2%}", escape(instead))
    out.print(made)


def _show_attention(tokens: list[str], weights: np.ndarray, title: str) -> None:
    """A character for each pair of tokens: a share of the largest weight of the row."""
    out.print(f"\nAttention, {title}", markup=False)
    if len(tokens) > WIDEST:
        out.print(f"[dim]{len(tokens)} tokens are too wide to show here; see --plot[/dim]")
        return
    width = min(max(map(len, tokens)), 16)
    largest = weights.max(axis=1, keepdims=True)
    levels = np.ceil(weights / np.maximum(largest, 1e-30) * (len(SHADES) - 1)).astype(int)
    for token, row in zip(tokens, levels, strict=True):
        cells = "".join(2 * SHADES[level] for level in row)
        out.print(f"{token[:width]:>{width}} {cells}", markup=False, soft_wrap=True)


def draw(path: Path, tokens: list[str], weights: np.ndarray, title: str) -> None:
    """The same as a picture, with the tokens along both sides."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "the package `matplotlib` is needed for the picture: pip install 'evergrad[plot]'"
        ) from error
    size = min(4 + 0.22 * len(tokens), 24)
    figure = Figure(figsize=(size + 1, size), dpi=120, layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(weights, cmap="Blues", vmin=0)
    # A dollar sign would begin a formula.
    labels = [token.replace("$", r"\$") for token in tokens]
    panel.set_xticks(range(len(tokens)), labels, rotation=90, fontsize=8)
    panel.set_yticks(range(len(tokens)), labels, fontsize=8)
    panel.set_xlabel("looks at")
    panel.set_title(f"Attention, {title}", loc="left", fontsize=10)
    figure.colorbar(image, ax=panel, shrink=0.6, label="weight")
    figure.savefig(path)
