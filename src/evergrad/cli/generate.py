"""``evergrad generate``: continue a text."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer

from evergrad import models

from . import _options as options
from ._output import JsonOption, print_json
from ._verb import verb

EXAMPLES = (
    'evergrad generate "The with statement" --store run',
    'evergrad generate "def main(" --store run --version 0001 --temperature 0.5 --seed 7',
    "evergrad generate --model run/versions/0001 --max-new-tokens 400",
)


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, generate, EXAMPLES)


def generate(
    prompt: Annotated[
        str,
        typer.Argument(help="Text to continue; without it the model begins a document."),
    ] = "",
    store: options.StoreOption = options.DEFAULT_STORE,
    version: options.VersionOption = None,
    model: options.ModelOption = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=0, help="Most tokens to add.", rich_help_panel="Sampling")
    ] = 200,
    temperature: Annotated[
        float,
        typer.Option(
            min=0,
            callback=options.finite,
            help="0: always the likeliest token; 1: as learned.",
            rich_help_panel="Sampling",
        ),
    ] = 0.8,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Draw from so many likeliest.", rich_help_panel="Sampling"),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0.0001,
            max=1,
            help="Draw from the fewest likeliest that have this probability together.",
            rich_help_panel="Sampling",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Same seed, same text.", rich_help_panel="Sampling")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Continue a text with the current version, and print it as it comes."""
    path, loaded, tokenizer = options.open_model(store, version, model)
    stream = TokenStream(tokenizer)
    if not as_json:
        typer.echo(prompt, nl=False)

    def on_token(token: int) -> None:
        piece = stream.add(token)
        if not as_json:
            typer.echo(piece, nl=False)

    # Documents were trained on with the end-of-text token in front.
    given = np.concatenate([[tokenizer.eot], tokenizer.encode(prompt)]).astype(np.int64)
    models.generate(
        loaded,
        given,
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop=tokenizer.eot,
        on_token=on_token,
    )
    rest = stream.finish()
    if as_json:
        print_json(
            {
                "model": path,
                "prompt": prompt,
                "text": stream.text,
                "tokens": stream.count,
                "seed": seed,
            }
        )
    else:
        typer.echo(rest)


class TokenStream:
    """Text from tokens as they come: a character is held back until all its bytes are there."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._held: list[int] = []
        self.text = ""
        self.count = 0

    def add(self, token: int) -> str:
        """The text that this token completes, often a word, sometimes nothing."""
        self.count += 1
        self._held.append(token)
        piece = self._tokenizer.decode(self._held)
        # U+FFFD at the end: the bytes of a character may still be coming (at most four make one).
        if piece.endswith("\ufffd") and len(self._held) < 4:
            return ""
        return self._release(piece)

    def finish(self) -> str:
        """What is still held back."""
        return self._release(self._tokenizer.decode(self._held)) if self._held else ""

    def _release(self, piece: str) -> str:
        self._held.clear()
        self.text += piece
        return piece
