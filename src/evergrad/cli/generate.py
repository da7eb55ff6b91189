"""``evergrad generate``: continue a text."""

from __future__ import annotations

from typing import Annotated

import typer

from evergrad.text import TextStream

from . import _options as options
from ._output import JsonOption, print_json
from ._verb import verb

EXAMPLES = (
    'evergrad generate "The with statement" --store run',
    'evergrad generate "def main(" --store run --version 0001 --temperature 0.5 --seed 7',
    'evergrad generate "The capital of France is" --model SmolLM2.gguf --temperature 0 --stop .',
    "evergrad generate --model run/versions/0001 --max-new-tokens 400",
)


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, generate, EXAMPLES)


def generate(
    context: typer.Context,
    prompt: Annotated[
        str,
        typer.Argument(
            callback=options.utf8,
            help="Text to continue; without it the model begins a document.",
        ),
    ] = "",
    store: options.StoreOption = options.DEFAULT_STORE,
    version: options.VersionOption = None,
    model: options.ModelOption = None,
    max_new_tokens: options.NewTokensOption = 200,
    temperature: options.TemperatureOption = 0.8,
    top_k: options.TopKOption = None,
    top_p: options.TopPOption = None,
    min_p: options.MinPOption = 0.0,
    repetition_penalty: options.PenaltyOption = 1.0,
    stop: options.StopOption = None,
    seed: options.DrawSeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Continue a text, and print it as it comes.

    The model is a version of a store, or any that evergrad reads: a GGUF file, or a folder as
    Hugging Face's tools write it.
    """
    options.one_source(context)
    path, loaded = options.open_decoder(store, version, model)
    with options.usage():
        ids = loaded.tokenizer.prompt(prompt)
        options.expect_known(path, loaded, ids)
        text = TextStream(loaded.tokenizer, stop or (), ids.tolist())
        tokens = loaded.stream(
            ids, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=repetition_penalty, stop=stop, seed=seed,
        )  # fmt: skip
    if not as_json:
        typer.echo(prompt, nl=False)
    for token in tokens:
        piece = text.add(token)
        if not as_json:
            typer.echo(piece, nl=False)
    rest = text.finish()
    if as_json:
        print_json(
            {
                "model": path,
                "prompt": prompt,
                "text": text.text,
                "tokens": text.count,
                "seed": seed,
            }
        )
    else:
        typer.echo(rest)
