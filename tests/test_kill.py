"""Processes that are killed at random moments, and what they leave behind."""

from __future__ import annotations

import json
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


# Ended before each rename and each removal in turn: killed, or by Ctrl-C.
SAVE = textwrap.dedent("""
    import json, os, sys
    import numpy as np
    from evergrad import io

    folder, cut, killed = sys.argv[1], *map(json.loads, sys.argv[2:])

    def save(value, largest):
        weights = {name: np.full(4, value, np.float32) for name in "abc"}
        io.save_weights(folder, weights, largest)

    code, kept = 9, 0
    while code:
        save(0, cut)
        pid = os.fork()
        if pid == 0:
            left = kept

            def count(event, _):
                global left
                if event in ("os.rename", "os.remove"):
                    left -= 1
                    if left == -1:
                        if killed:
                            os._exit(9)
                        raise KeyboardInterrupt

            sys.addaudithook(count)
            try:
                save(1, 16)
            except KeyboardInterrupt:
                os._exit(9)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            found = {float(x) for each in io.read_weights(folder).values() for x in each.numpy()}
        except FileNotFoundError:
            found = {-1}
        print(json.dumps(sorted(found)), flush=True)
        kept += 1
""")


@pytest.mark.skipif(os.name != "posix", reason="needs fork")
@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("cut", [16, 32, None])
def test_shards_of_an_unfinished_save_are_never_read_beside_older_ones(cut, killed, tmp_path):
    environment = os.environ | {"EVERGRAD_BACKEND": "reference"}
    command = [sys.executable, "-c", SAVE, str(tmp_path), json.dumps(cut), json.dumps(killed)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    refused = found.count([-1])
    # Of a killed one three shards of the same names, and the index; Ctrl-C waits for them.
    assert refused == (4 if killed and cut == 16 else 0)
    before = found.index([-1]) if refused else found.index([1])
    assert before >= 4, "all are whole before the first takes its place"
    assert found == [[0]] * before + [[-1]] * refused + [[1]] * (len(found) - before - refused)
    assert len(list(tmp_path.iterdir())) == 4
