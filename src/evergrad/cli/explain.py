"""``evergrad explain``: how likely a model finds a text, and where its attention goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.cells import cell_len, set_cell_size
from rich.markup import escape
from rich.text import Text

from evergrad import io, models
from evergrad.text import pieces, tail

from . import _options as options
from ._output import JsonOption, UserError, print_json
from ._screen import out, wrote
from ._show import show, table
from ._verb import verb

EXAMPLES = (
    'evergrad explain "The capital of France is Rome." --model SmolLM2.gguf',
    'evergrad explain "def main(" --store run --layer 2 --head 0 --plot attention.png',
    'evergrad explain "The statement" --store run --json',
    'evergrad explain "The bank of the river" --model all-MiniLM-L6-v2/ --layer 0',
)
#: Backgrounds from unlikely to likely.
COLOURS = ("#8b1a1a", "#a8501f", "#94702a", "#6f7f2f", "#3f7d3a", "#1f6f4a")
#: Least probability of each but the first.
STEPS = (0.01, 0.05, 0.2, 0.5, 0.8)
SHADES = " ·░▒▓█"
#: Widest matrix that a terminal shows.
WIDEST = 48
#: Stands for a token that only begins a character.
PART = "…"
#: Characters that move the cursor, or worse, as marks.
CONTROLS = {
    **{code: chr(0x2400 + code) for code in range(32)},
    **{code: f"\\x{code:02x}" for code in range(127, 160)},
    ord("\n"): "↵",
    ord("\t"): "⇥",
}


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, explain, EXAMPLES)


def explain(
    context: typer.Context,
    text: Annotated[
        str,
        typer.Argument(callback=options.utf8, help="The text to look at.", show_default=False),
    ],
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
        typer.Option(
            "--plot",
            callback=options.picture,
            help="Draw the attention as a heat map (PNG, SVG, PDF).",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how likely a model finds each token of a text, and where its attention goes.

    Each token is coloured by its probability after those before it, from red (below 1 %) to green
    (above 80 %). The least expected ones are listed with what the model expected instead. Then
    attention: a row for each token, darker where it looks.

    A character of several tokens stands at the last of them, and has the colour of all of them
    together. Encoders such as BERT predict nothing: of these, only attention is shown.
    """
    options.one_source(context)
    path, loaded, tokenizer = options.open_model(store, version, model)
    if not hasattr(loaded, "blocks"):
        raise UserError(
            f"{path}: expected a GPT2, Llama or Bert; a {type(loaded).__name__} reads one text and"
            " writes another, which is not shown"
        )
    predicts = hasattr(loaded, "stream")
    layers, heads = loaded.config.layers, loaded.config.heads
    layer = layers - 1 if layer is None else layer
    with options.usage():
        if layer >= layers:
            raise ValueError(f"--layer must lie below {layers}, got {layer}")
        if head is not None and head >= heads:
            raise ValueError(f"--head must lie below {heads}, got {head}")
        ids = tokenizer.prompt(text) if predicts else tokenizer.encode(text, True)
        options.expect_known(path, loaded, ids)
        found = models.explain(loaded, ids)
    tokens = pieces(tokenizer, found.ids.tolist())
    labels = [_label(tokenizer, found.ids.tolist(), at) for at in range(len(tokens))]
    chosen = found.attention[layer]
    weights = chosen.mean(axis=0) if head is None else chosen[head]
    # The first token has no likelihood.
    if np.isnan(weights).any() or (predicts and np.isnan(found.log_likelihood[1:]).any()):
        raise UserError(f"{path}: the outcome holds NaN: the model's weights have diverged")
    title = f"layer {layer} of {layers}, " + ("mean of heads" if head is None else f"head {head}")
    if as_json:
        print_json({
            "model": path,
            "tokens": tokens,
            "ids": found.ids.tolist(),
            "log_likelihood": found.log_likelihood.tolist() if predicts else None,
            "bits_per_token": _bits(found.log_likelihood) if predicts else None,
            "layer": layer,
            "head": head,
            "attention": weights.tolist(),
        })  # fmt: skip
    else:
        if predicts:
            _show_likelihoods(tokens, labels, found, tokenizer)
        _show_attention(labels, weights, title)
    if plot is not None:
        draw(plot, labels, weights, title)
        wrote(plot)


def _label(tokenizer: Any, ids: Sequence[int], at: int) -> str:
    """What a token adds to those before it, on one line; … where it ends within a character."""
    near = tail(tokenizer, ids[: at + 1])
    return pieces(tokenizer, near)[-1].replace("\ufffd", PART).translate(CONTROLS) or PART


def _bits(log_likelihood: np.ndarray) -> float:
    return float(-np.nanmean(log_likelihood) / math.log(2)) if log_likelihood.size > 1 else math.nan


def _show_likelihoods(
    tokens: Sequence[str], labels: Sequence[str], found: Any, tokenizer: Any
) -> None:
    out.print(_coloured(tokens, found.log_likelihood), soft_wrap=True)
    if len(tokens) < 2:
        return
    out.print(f"\n[dim]{_bits(found.log_likelihood):.2f} bits per token[/dim]\n")
    least = np.argsort(found.log_likelihood[1:], kind="stable")[:8] + 1
    made = table("least expected", "at", "probability", "expected instead")
    ids = found.ids.tolist()
    for at in least.tolist():
        instead = "  ".join(
            f"{_label(tokenizer, [*ids[:at], token], at)!r} {math.exp(value):.0%}"
            for token, value in zip(
                found.likeliest[at].tolist(), found.likeliest_log_likelihood[at], strict=True
            )
        )
        probability = math.exp(found.log_likelihood[at])
        name = repr(labels[at])
        if not tokens[at]:  # of which character it is a part
            name += f" of {''.join(tokens[at:])[:1]!r}"
        made.add_row(escape(name), str(at), f"{probability:.2%}", escape(instead))
    show(made)


def _coloured(tokens: Sequence[str], log_likelihood: np.ndarray) -> Text:
    """The text as it was given, on backgrounds that tell the probability of each piece."""
    coloured, total = Text(), 0.0
    for token, value in zip(tokens, log_likelihood.tolist(), strict=True):
        total += value  # of a character's tokens; NaN where the first one of the text is among them
        if not token:
            continue
        step = sum(math.exp(total) >= least for least in STEPS)
        style = "dim" if math.isnan(total) else f"white on {COLOURS[step]}"
        coloured.append(token.translate({**CONTROLS, ord("\n"): "↵\n"}), style=style)
        total = 0.0
    return coloured


def _show_attention(labels: Sequence[str], weights: np.ndarray, title: str) -> None:
    """A character for each pair of tokens: a share of the largest weight of the row."""
    out.print(f"\nAttention, {title}", markup=False)
    if len(labels) > WIDEST:
        out.print(f"[dim]{len(labels)} tokens are too wide to show here; see --plot[/dim]")
        return
    width = min(max(map(cell_len, labels)), 16)
    largest = weights.max(axis=1, keepdims=True)
    levels = np.ceil(weights / np.maximum(largest, 1e-30) * (len(SHADES) - 1)).astype(int)
    for label, row in zip(labels, levels, strict=True):
        cells = "".join(2 * SHADES[level] for level in row)
        shown = set_cell_size(label, min(cell_len(label), width))
        indent = " " * (width - cell_len(shown))
        out.print(f"{indent}{shown} {cells}", markup=False, soft_wrap=True)


def draw(path: Path, labels: Sequence[str], weights: np.ndarray, title: str) -> None:
    """The same as a picture, with the tokens along both sides."""
    from matplotlib.figure import Figure

    size = min(4 + 0.22 * len(labels), 24)
    figure = Figure(figsize=(size + 1, size), dpi=120, layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(weights, cmap="Blues", vmin=0)
    places, written = range(len(labels)), _written(labels)
    # A dollar sign would begin a formula.
    panel.set_xticks(places, written, rotation=90, fontsize=8, parse_math=False)
    panel.set_yticks(places, written, fontsize=8, parse_math=False)
    panel.set_xlabel("looks at")
    panel.set_title(f"Attention, {title}", loc="left", fontsize=10)
    figure.colorbar(image, ax=panel, shrink=0.6, label="weight")
    io.write_picture(path, figure)


def _written(labels: Sequence[str]) -> list[str]:
    """Labels in the characters that matplotlib's fonts have; others as Python escapes them."""
    from matplotlib import font_manager, rcParams

    fonts = [
        font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=[name])))
        for name in rcParams["font.family"]
    ]
    missing = {
        ord(each): each.encode("unicode_escape").decode()
        for each in set("".join(labels))
        if not any(font.get_char_index(ord(each)) for font in fonts)
    }
    return [label.translate(missing) for label in labels]
