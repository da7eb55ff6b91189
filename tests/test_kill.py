"""Processes that are killed at random moments, and what they leave behind."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time

import pytest

from evergrad import io, train

pytest.importorskip("safetensors")

SEED = int(os.environ.get("EVERGRAD_SEED", "0"))

# Every step says so, then is followed by a checkpoint: most of the time goes into writing.
TRAIN = textwrap.dedent("""
    import sys
    import numpy as np
    from evergrad.models import GPT2, GPT2Config
    from evergrad.train import FitConfig, fit, window_sampler

    model = GPT2(GPT2Config(vocab_size=12, context=16, layers=1, heads=2, dim=8, dropout=0.1))
    windows = window_sampler(np.arange(500) % 12)

    def sample(rng, batch_size, window):
        print("step", flush=True)
        return windows(rng, batch_size, window)

    config = FitConfig(steps=300, batch_size=2, window=8, checkpoint_every=1)
    fit(model, sample, config, checkpoint=sys.argv[1], resume=True, progress=False)
""")
KILLS = 12


def start(folder):
    # The reference needs no compilation, of which numba would do a second or more per process.
    environment = os.environ | {"EVERGRAD_BACKEND": "reference", "EVERGRAD_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRAIN, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_training_goes_on_from_its_last_checkpoint(tmp_path):
    moments = random.Random(SEED)
    folder = tmp_path / "killed"
    reached = 0
    for kill in range(KILLS):
        steps, delay = moments.randint(1, 20), moments.uniform(0, 0.01)
        process = start(folder)
        assert process.stdout is not None
        for _ in range(steps):
            assert process.stdout.readline() == "step\n", f"EVERGRAD_SEED={SEED}, kill {kill}"
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert process.returncode != 0, "the run was over before it was killed"

        # Whatever bears the name of a checkpoint is whole, and no progress was lost.
        where = f"EVERGRAD_SEED={SEED}, kill {kill}: {steps} steps and {delay:.4f} s"
        for path in folder.glob("step-*"):
            state = io.read_json(path / "state.json")
            io.load_safetensors(path / "state.safetensors")
            assert path.name == f"step-{state['run']['step']:08d}", where
        latest = train.latest_checkpoint(folder)
        step = int(latest.name.removeprefix("step-")) if latest else 0
        assert step >= reached + steps - 1, where
        reached = step

    arrays = []
    for end in (folder, tmp_path / "straight"):
        process = start(end)
        process.communicate()
        assert process.returncode == 0
        arrays.append((train.latest_checkpoint(end) / "state.safetensors").read_bytes())
    assert arrays[0] == arrays[1], f"EVERGRAD_SEED={SEED}"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
