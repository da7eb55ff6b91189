"""``adapt`` killed at random moments: the current version is always whole."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import textwrap
import time

import pytest

from evergrad.continual import VersionStore, begin
from evergrad.datasets import Domain, cpython_code, cpython_prose
from evergrad.models import GPT2, GPT2Config
from evergrad.text import Tokenizer
from evergrad.train import FitConfig, encode_domain

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

SEED = int(os.environ.get("EVERGRAD_SEED", "0"))
# The reference needs no compilation, of which numba would do a second or more per process.
ENVIRONMENT = os.environ | {"EVERGRAD_BACKEND": "reference", "EVERGRAD_NUM_THREADS": "1"}

# Adapts without end: two steps, then a version is written, so that most kills hit a write.
ADAPT = textwrap.dedent("""
    import itertools, sys
    from evergrad.continual import Replay, VersionStore, adapt
    from evergrad.datasets import Domain
    from evergrad.train import FitConfig, encode_domain

    store = VersionStore(sys.argv[1])
    tokenizer = store.current().load()[1]
    new = Domain("code", ["def f(x):\\n    return x + 1\\n" * 20], ["def g(y):\\n    return y\\n"])
    old = Domain("prose", ["The value is a number. " * 20], ["The number is a value."])
    new, old = (encode_domain(domain, tokenizer) for domain in (new, old))
    for seed in itertools.count():
        config = FitConfig(steps=2, batch_size=2, window=8, lr=0.01, seed=seed)
        print("adapting", flush=True)
        report = adapt(store, new, [old], config, max_forgetting=10, progress=False)
        print(report.version, "accepted" if report.accepted else "rejected", flush=True)
""")
KILLS_IN_LOOP, KILLS_OF_COMMAND = 14, 6


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A file of prose and one of code, from CPython."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "prose.txt").write_text("\n\n".join(cpython_prose().train[:8]))
    (folder / "code.py").write_text("\n\n".join(text[:4000] for text in cpython_code().train[:8]))
    return folder


@pytest.fixture
def store(texts, tmp_path):
    """A store whose version 0001 has seen some prose."""
    prose = (texts / "prose.txt").read_text()
    tokenizer = Tokenizer.train([prose], 300)
    domain = encode_domain(Domain("prose", [prose[:-2000]], [prose[-2000:]]), tokenizer)
    model = GPT2(GPT2Config(tokenizer.vocab_size, context=8, layers=1, heads=1, dim=8))
    store = VersionStore(tmp_path / "store")
    begin(store, model, tokenizer, domain, FitConfig(steps=5, window=8), progress=False)
    return store


def check(store, where):
    """Everything that bears a version's name is whole, and the current one works."""
    for version in store.list():
        version.verify()
    current = store.current()
    assert current.accepted, where
    model, tokenizer = current.load()
    assert model.logits(tokenizer.encode("The value")).shape[1] == tokenizer.vocab_size, where
    return current


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_while_versions_are_written(store):
    moments = random.Random(SEED)
    known = 1
    for kill in range(KILLS_IN_LOOP):
        lines, delay = moments.randint(1, 8), moments.uniform(0, 0.04)
        where = f"EVERGRAD_SEED={SEED}, kill {kill}: {lines} lines and {delay:.4f} s"
        command = [sys.executable, "-c", ADAPT, str(store.root)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        time.sleep(delay)
        process.kill()
        said += process.communicate()[0].splitlines()
        assert process.returncode != 0, where
        assert said[0] == "adapting\n", where

        current = check(store, where)
        # What was reported as done is there, and what was accepted is not lost.
        reported = [line.split() for line in said if line[0].isdigit()]
        numbers = [int(version.name) for version in store.list()]
        assert numbers == list(range(1, len(numbers) + 1)), where
        for name, verdict in reported:
            assert store.get(name).accepted == (verdict == "accepted"), where
            if verdict == "accepted":
                known = int(name)
        assert int(current.name) >= known, where
        known = int(current.name)
    assert len(store.list()) > 5, "the kills came before anything was written"
    store.rollback(to=1)
    assert not list(store.root.rglob(".evergrad-tmp*")), "the next writer cleans up"


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_command(store, texts):
    pytest.importorskip("typer")
    moments = random.Random(SEED)
    command = [sys.executable, "-m", "evergrad", "adapt", str(texts / "code.py")]
    command += ["--retain", str(texts / "prose.txt"), "--steps", "20", "--max-forgetting", "10"]

    def start():
        return subprocess.Popen(
            [*command, "--store", str(store.root)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )

    began = time.perf_counter()
    assert start().wait() in (0, 3), "unharmed, it ends by itself"
    length = time.perf_counter() - began
    shutil.rmtree(store.get(2).path)
    (store.root / "current").write_text("0001\n")

    for kill in range(KILLS_OF_COMMAND):
        delay = moments.uniform(0.2, 1) * length
        process = start()
        time.sleep(delay)
        process.kill()
        process.wait()
        check(store, f"EVERGRAD_SEED={SEED}, kill {kill}: after {delay:.3f} s of {length:.3f} s")
    assert start().wait() in (0, 3), "and it still works"
