"""The loop does what the textbook says, and a resumed run is the run itself."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from evergrad import io, nn, optim, train
from evergrad.datasets import Domain, cpython_prose
from evergrad.models import GPT2, T5, GPT2Config, Seq2SeqBatch, T5Config
from evergrad.text import Batch, Tokenizer, pack
from evergrad.train import FitConfig, History, bits_per_byte, fit, window_sampler

pytest.importorskip("safetensors")

VOCABULARY, WINDOW = 12, 8


def tiny_model(seed=0, **settings):
    settings = {
        "vocab_size": VOCABULARY,
        "context": 16,
        "layers": 1,
        "heads": 2,
        "dim": 8,
    } | settings
    return GPT2(GPT2Config(**settings), seed=seed)


def tiny_config(**settings):
    return FitConfig(**{"steps": 10, "batch_size": 4, "window": WINDOW, "lr": 0.01} | settings)


def tiny_ids(seed=0):
    return np.random.default_rng(seed).integers(0, VOCABULARY, 200)


def quiet_fit(model, config, **keywords):
    keywords = {"sample": window_sampler(tiny_ids()), "progress": False} | keywords
    return fit(model, keywords.pop("sample"), config, **keywords)


# FitConfig


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"steps": None}, ValueError, "budget"),
        ({"steps": 0}, ValueError, "steps must be an int of at least 1, got 0"),
        ({"steps": 1.5}, TypeError, "steps must be an int, got float"),
        ({"steps": True}, TypeError, "steps must be an int, got bool"),
        ({"seconds": 0}, ValueError, "seconds must be finite and above 0, got 0"),
        ({"seconds": float("inf")}, ValueError, "seconds must be finite"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"window": -1}, ValueError, "window"),
        ({"accumulate": 0}, ValueError, "accumulate"),
        ({"seed": -1}, ValueError, "seed"),
        ({"lr": 0.0}, ValueError, "lr must be finite and above 0"),
        ({"lr": float("nan")}, ValueError, "lr"),
        ({"min_lr_ratio": 1.1}, ValueError, "min_lr_ratio"),
        ({"warmup": 1.0}, ValueError, r"warmup must be finite and in \[0, 1\), got 1.0"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay"),
        ({"betas": (0.9, 1.0)}, ValueError, "betas"),
        ({"betas": (0.9,)}, ValueError, "betas must be a pair"),
        ({"betas": 0.9}, ValueError, "betas must be a pair, got 0.9"),
        ({"betas": (0.9, None)}, TypeError, "betas must be a number, got NoneType"),
        ({"lr": "3e-3"}, TypeError, "lr must be a number, got str"),
        ({"lr": None}, TypeError, "lr must be a number, got NoneType"),
        ({"clip": True}, TypeError, "clip must be a number, got bool"),
        ({"seconds": "5"}, TypeError, "seconds must be a number, got str"),
        ({"clip": 0.0}, ValueError, "clip"),
        ({"patience": 1}, ValueError, "patience counts evaluations"),
        ({"eval_every": 0}, ValueError, "eval_every"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every"),
    ],
)
def test_config_names_what_is_wrong(settings, error, message):
    with pytest.raises(error, match=message):
        tiny_config(**settings)


def test_fraction_is_the_larger_one():
    config = tiny_config(steps=10, seconds=2.0)
    assert config.fraction(5, 0.2) == 0.5
    assert config.fraction(1, 1.5) == 0.75
    assert tiny_config(steps=None, seconds=2.0).fraction(1000, 1.0) == 0.5


# Data


def test_window_sampler_draws_windows_of_the_stream():
    ids = np.arange(50) * 3
    batch = window_sampler(ids)(np.random.default_rng(0), 5, 7)
    assert batch.input_ids.size == batch.target.size == batch.counted == 35
    np.testing.assert_array_equal(batch.target, batch.input_ids + 3)
    np.testing.assert_array_equal(batch.cu_seqlens, np.arange(6) * 7)
    rows = batch.input_ids.reshape(5, 7)
    np.testing.assert_array_equal(np.diff(rows), 3)


def test_window_sampler_reaches_both_ends_and_repeats_with_the_seed():
    sample = window_sampler(np.arange(10, dtype=np.int32))
    batch = sample(np.random.default_rng(1), 200, 4)
    assert batch.input_ids.min() == 0
    assert batch.target.max() == 9
    assert batch.input_ids.dtype == np.int64
    again = sample(np.random.default_rng(1), 200, 4)
    np.testing.assert_array_equal(batch.input_ids, again.input_ids)


def test_window_sampler_of_a_short_stream():
    batch = window_sampler(np.arange(4))(np.random.default_rng(0), 2, 100)
    np.testing.assert_array_equal(batch.input_ids, [0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match=r"two tokens, got shape \(1,\)"):
        window_sampler(np.arange(1))
    with pytest.raises(TypeError, match="float64"):
        window_sampler(np.zeros(5))


def test_encode_domain():
    pytest.importorskip("tokenizers")
    domain = Domain("d", train=["one", "two"], heldout=["naïve", "中文"])
    tokenizer = Tokenizer.train(domain.train, vocab_size=257)
    encoded = train.encode_domain(domain, tokenizer)
    assert encoded.name == "d"
    assert encoded.heldout_bytes == len("naïve中文".encode()) == 12
    assert tokenizer.decode(encoded.train_ids) == "<|endoftext|>one<|endoftext|>two"
    assert encoded.train_ids.dtype == np.int64

    cut = train.encode_domain(domain, tokenizer, max_heldout_bytes=10)
    assert cut.heldout_bytes == 9  # the second character of the second text does not fit
    assert tokenizer.decode(cut.heldout_ids) == "<|endoftext|>naïve<|endoftext|>中"
    for limit in (0, -1):
        with pytest.raises(ValueError, match=f"max_heldout_bytes must be at least 1, got {limit}"):
            train.encode_domain(domain, tokenizer, max_heldout_bytes=limit)
    with pytest.raises(ValueError, match="heldout part of 'd' is empty"):
        train.encode_domain(Domain("d", ["a"], []), tokenizer)


# bits per byte


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_bits_per_byte_scores_every_token_once(batch_size):
    model = tiny_model(dropout=0.5)
    ids = tiny_ids()[:45]
    bits = 0.0
    for start in range(0, 44, WINDOW):
        span = ids[start : start + WINDOW + 1]
        model.eval()
        logits = model.logits(span[:-1]).astype(np.float64)
        model.train()
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        bits -= log_p[np.arange(len(span) - 1), span[1:]].sum() / np.log(2)
    found = bits_per_byte(model, ids, 100, WINDOW, batch_size=batch_size)
    assert found == pytest.approx(bits / 100, rel=1e-5)
    assert model.training


def test_bits_per_byte_needs_text():
    with pytest.raises(ValueError, match="got 1 and 5"):
        bits_per_byte(tiny_model(), np.array([1]), 5, WINDOW)
    with pytest.raises(ValueError, match="got 200 and 0"):
        bits_per_byte(tiny_model(), tiny_ids(), 0, WINDOW)
    with pytest.raises(ValueError, match="got 200 and nan"):
        bits_per_byte(tiny_model(), tiny_ids(), math.nan, WINDOW)
    with pytest.raises(TypeError, match="ids must be an integer array, got list"):
        bits_per_byte(tiny_model(), [1, 2, 3], 3, WINDOW)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_bits_per_byte_needs_a_batch(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        bits_per_byte(tiny_model(), tiny_ids(), 5, WINDOW, batch_size=batch_size)


# The loop


def test_fit_is_the_textbook_loop():
    config = tiny_config(steps=12, clip=0.05, warmup=0.25, seed=3)
    fitted = tiny_model()
    history = quiet_fit(fitted, config)

    model, rng, sample = tiny_model(), np.random.default_rng(3), window_sampler(tiny_ids())
    optimizer = optim.AdamW(model.flat, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    for step, row in enumerate(history, start=1):
        batch = sample(rng, 4, WINDOW)
        optimizer.zero_grad()
        loss, backward = model.loss(batch)
        backward()
        norm, scale = optim.clip_scale(model.flat.grad, 0.05)
        assert row["lr"] == pytest.approx(
            optim.linear_warmup_cosine(step, 12, 3, peak=0.01, floor=0.001)
        )
        optimizer.lr = row["lr"]
        optimizer.step(grad_scale=scale)
        assert (row["loss"], row["grad_norm"]) == (loss, norm)
        assert norm > 0.05
        assert (row["step"], row["tokens"]) == (step, step * 4 * WINDOW)
    np.testing.assert_array_equal(fitted.flat.data, model.flat.data)
    assert not fitted.training


def test_schedule_warms_up_and_ends_at_the_floor():
    history = quiet_fit(tiny_model(), tiny_config(steps=20, warmup=0.25, min_lr_ratio=0.2))
    rates = np.array([row["lr"] for row in history])
    np.testing.assert_allclose(rates[:5], 0.01 * np.arange(1, 6) / 5, rtol=1e-4)
    assert (np.diff(rates[4:]) < 0).all()
    assert rates[-1] == pytest.approx(0.002, rel=1e-4)


def test_accumulated_gradient_is_that_of_the_full_batch():
    ids = tiny_ids()
    parts = [pack([ids[:9], ids[20:23]]), pack([ids[40:45]]), pack([ids[60:77]])]
    target = parts[2].target.copy()
    target[::2] = -100  # micro-batches with different numbers of counted tokens
    parts[2] = Batch(parts[2].input_ids, target, parts[2].cu_seqlens)
    full = Batch(
        np.concatenate([part.input_ids for part in parts]),
        np.concatenate([part.target for part in parts]),
        np.array([0, 8, 10, 14, 30]),
    )
    settings = {"steps": 1, "clip": None}
    accumulated, at_once = tiny_model(), tiny_model()
    queue = list(parts)
    first = quiet_fit(
        accumulated,
        tiny_config(accumulate=3, **settings),
        sample=lambda rng, batch_size, window: queue.pop(0),
    )
    second = quiet_fit(
        at_once, tiny_config(**settings), sample=lambda rng, batch_size, window: full
    )
    assert first.rows[0]["loss"] == pytest.approx(second.rows[0]["loss"], rel=1e-6)
    assert first.rows[0]["tokens"] == second.rows[0]["tokens"] == 30
    np.testing.assert_allclose(accumulated.flat.grad, at_once.flat.grad, rtol=1e-4, atol=1e-7)


def test_pairs_of_texts_are_learned():
    config = T5Config(VOCABULARY, layers=1, heads=2, head_dim=4, dim=8, hidden=16)

    def sample(rng, batch_size, window):
        texts = list(rng.integers(1, VOCABULARY, (batch_size, window)))
        return Seq2SeqBatch.pack(texts, texts, config.start_token)

    history = quiet_fit(T5(config), tiny_config(steps=30, accumulate=2), sample=sample)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]


def test_frozen_parameters_stay():
    model = tiny_model()
    model.freeze("wte", "blocks")
    before = {name: value.copy() for name, value in model.state_dict().items()}
    quiet_fit(model, tiny_config(patience=2, eval_every=2), evaluate=lambda: {"score": 1.0})
    for name, value in model.state_dict().items():
        if name.startswith(("wte", "blocks")):
            np.testing.assert_array_equal(value, before[name])


def test_evaluations_come_first_regularly_and_last():
    model = tiny_model(dropout=0.1)
    modes = []

    def evaluate():
        modes.append(model.training)
        return {"a": len(modes), "b": 0.5}

    history = quiet_fit(model, tiny_config(steps=10, eval_every=4), evaluate=evaluate)
    assert history.scores()["a"] == [(0, 1.0), (4, 2.0), (8, 3.0), (10, 4.0)]
    assert modes == [False] * 4
    assert "loss" not in history.rows[0]
    assert len(history) == 11


def test_time_budget_leaves_evaluations_out():
    spent = []

    def evaluate():
        started = time.perf_counter()
        time.sleep(0.02)
        spent.append(time.perf_counter() - started)
        return {"score": 1.0}

    started = time.perf_counter()
    config = tiny_config(steps=None, seconds=0.2, eval_every=20)
    history = quiet_fit(tiny_model(), config, evaluate=evaluate)
    wall = time.perf_counter() - started
    assert history.rows[-2]["seconds"] < 0.2 <= history.rows[-1]["seconds"]
    assert history.rows[-1]["seconds"] <= wall - sum(spent)


def test_whichever_budget_runs_out_first():
    history = quiet_fit(tiny_model(), tiny_config(steps=3, seconds=1000.0))
    assert history.rows[-1]["step"] == 3
    history = quiet_fit(tiny_model(), tiny_config(steps=10**6, seconds=0.05))
    assert history.rows[-1]["step"] < 10**6


SCORES = [5.0, 4.0, 3.0, 3.5, 3.6, 1.0]


def scripted(model, scores, seen):
    def evaluate():
        seen.append(model.flat.data.copy())
        return {"watched": scores[len(seen) - 1]}

    return evaluate


def test_early_stopping_restores_the_best(tmp_path):
    model, seen = tiny_model(), []
    config = tiny_config(steps=100, eval_every=3, patience=2)
    evaluate = scripted(model, SCORES, seen)
    history = quiet_fit(model, config, evaluate=evaluate, checkpoint=tmp_path)
    assert history.rows[-1]["step"] == 12
    np.testing.assert_array_equal(model.flat.data, seen[2])
    assert not np.array_equal(seen[2], seen[4])

    again = tiny_model(seed=1)
    resumed = quiet_fit(again, config, evaluate=evaluate, checkpoint=tmp_path, resume=True)
    assert resumed == history
    np.testing.assert_array_equal(again.flat.data, seen[2])


def test_patience_restores_the_best_when_the_budget_ends():
    model, seen = tiny_model(), []
    config = tiny_config(steps=9, eval_every=3, patience=5)
    quiet_fit(model, config, evaluate=scripted(model, [5.0, 2.0, 3.0, 4.0], seen))
    np.testing.assert_array_equal(model.flat.data, seen[1])


@pytest.mark.parametrize("patience", [4, None])
def test_a_run_that_stopped_early_goes_on_with_more_patience(tmp_path, patience):
    scores = [5.0, 4.0, 6.0, 6.0, 6.0, 3.0, 7.0]

    def run(model, patience, **keywords):
        config = tiny_config(steps=12, eval_every=2, patience=patience)
        rows = keywords.pop("rows", 0)
        evaluate = scripted(model, scores[rows:], seen := [])
        return quiet_fit(model, config, evaluate=evaluate, **keywords), seen

    stopped, _ = run(tiny_model(), 2, checkpoint=tmp_path)
    assert stopped.rows[-1]["step"] == 6
    file = train.latest_checkpoint(tmp_path) / "state.json"
    state = io.read_json(file)
    state["run"]["stopped"] = True  # as former versions wrote
    io.write_json(file, state)
    straight, resumed = tiny_model(), tiny_model(seed=1)
    whole, seen = run(straight, patience)
    again, _ = run(resumed, patience, checkpoint=tmp_path, resume=True, rows=4)
    np.testing.assert_array_equal(resumed.flat.data, straight.flat.data)
    # The best ones, or without patience simply the last.
    np.testing.assert_array_equal(straight.flat.data, seen[5 if patience else 6])
    for row in whole.rows + again.rows:
        del row["seconds"]
    assert again == whole


def test_monitor_picks_the_score():
    values = iter([{"a": 1.0 - 0.1 * i, "b": float(i)} for i in range(9)])
    config = tiny_config(steps=50, eval_every=1, patience=2, monitor="b")
    history = quiet_fit(tiny_model(), config, evaluate=lambda: next(values))
    assert history.rows[-1]["step"] == 2
    with pytest.raises(ValueError, match=r"watches 'c', evaluate gives \['a'\]"):
        quiet_fit(
            tiny_model(),
            tiny_config(eval_every=1, patience=1, monitor="c"),
            evaluate=lambda: {"a": 1.0},
        )


@pytest.mark.parametrize("monitor", ["a", "b"])
def test_a_resumed_run_may_watch_another_score(tmp_path, monitor):
    """What was best of the former score, 1.0, is no mark for those of the new one, 7 and more."""
    scores = [{"a": value, "b": 10 * value} for value in (1.0, 0.9, 0.8, 0.7, 0.75, 0.76)]
    seen = []

    def run(model, steps, monitor, **keywords):
        config = tiny_config(steps=steps, eval_every=1, patience=2, monitor=monitor)

        def evaluate():
            seen.append(model.flat.data.copy())
            return scores[len(seen) - 1]

        return quiet_fit(model, config, evaluate=evaluate, checkpoint=tmp_path, **keywords)

    run(tiny_model(), 1, None)  # the first score, "a"
    model = tiny_model(seed=1)
    history = run(model, 9, monitor, resume=True)
    assert history.rows[-1]["step"] == 5
    np.testing.assert_array_equal(model.flat.data, seen[3])


def test_fit_bad_arguments(tmp_path):
    with pytest.raises(TypeError, match=r"sample: .* window_sampler\(ids\) makes, got ndarray"):
        quiet_fit(tiny_model(), tiny_config(), sample=tiny_ids())
    with pytest.raises(TypeError, match="config: expected a FitConfig, got dict"):
        quiet_fit(tiny_model(), {"steps": 10})
    with pytest.raises(ValueError, match="resume needs checkpoint"):
        quiet_fit(tiny_model(), tiny_config(), resume=True)
    with pytest.raises(ValueError, match="patience needs evaluate"):
        quiet_fit(tiny_model(), tiny_config(patience=1, eval_every=1))
    with pytest.raises(ValueError, match="may not be called 'loss'"):
        quiet_fit(tiny_model(), tiny_config(), evaluate=lambda: {"loss": 1.0})
    with pytest.raises(ValueError, match="batch of step 1 has nothing to predict"):
        quiet_fit(tiny_model(), tiny_config(), sample=lambda *_: pack([]))
    frozen = tiny_model()
    frozen.freeze()
    with pytest.raises(ValueError, match="nothing to learn: all its parameters are frozen"):
        quiet_fit(frozen, tiny_config())
    few_bits = tiny_model()
    nn.quantize(few_bits, "bf16")
    with pytest.raises(ValueError, match=r"few bits \(bf16\).*load it with dtype='float32'"):
        quiet_fit(few_bits, tiny_config(), checkpoint=tmp_path / "new")
    assert not (tmp_path / "new").exists()


# Not finite


def test_training_stops_when_it_diverges_and_the_last_checkpoint_is_good(tmp_path):
    model, sample = tiny_model(), window_sampler(tiny_ids())
    calls = 0

    def poisoned(rng, batch_size, window):
        nonlocal calls
        calls += 1
        if calls == 8:
            model.flat.data[0] = np.nan
        return sample(rng, batch_size, window)

    config = tiny_config(steps=20, checkpoint_every=3)
    with pytest.raises(train.TrainingDiverged, match=r"step 8: loss nan.*those of step 7"):
        quiet_fit(model, config, sample=poisoned, checkpoint=tmp_path)
    assert train.latest_checkpoint(tmp_path).name == "step-00000006"
    healed = tiny_model(seed=5)
    history = quiet_fit(healed, config, checkpoint=tmp_path, resume=True)
    straight = tiny_model()
    quiet_fit(straight, config)
    assert len(history) == 20
    np.testing.assert_array_equal(healed.flat.data, straight.flat.data)


def test_overflow_is_caught_before_the_step():
    model = tiny_model()
    model.norm.weight.data[...] = 3e38  # the logits overflow
    before = model.flat.data.copy()
    with pytest.raises(train.TrainingDiverged), np.errstate(all="ignore"):
        quiet_fit(model, tiny_config())
    np.testing.assert_array_equal(model.flat.data, before)


def test_the_last_step_is_looked_at_before_it_is_kept(tmp_path):
    # One step that is finite in all its numbers, to parameters whose logits overflow.
    config = tiny_config(steps=1, lr=1e30, warmup=0.0, min_lr_ratio=1.0)
    model = tiny_model()
    message = r"step 1: the loss after it is (nan|inf)"
    with pytest.raises(train.TrainingDiverged, match=message), np.errstate(all="ignore"):
        quiet_fit(model, config, checkpoint=tmp_path)
    assert np.isfinite(model.flat.data).all()
    assert train.latest_checkpoint(tmp_path) is None
    with pytest.raises(train.TrainingDiverged, match=message), np.errstate(all="ignore"):
        quiet_fit(tiny_model(), config)


def test_a_checkpoint_between_evaluations_is_looked_at_too(tmp_path):
    config = tiny_config(steps=6, eval_every=3, checkpoint_every=1, lr=1e30, warmup=0.0)
    with pytest.raises(train.TrainingDiverged), np.errstate(all="ignore"):
        quiet_fit(tiny_model(), config, evaluate=lambda: {"a": 1.0}, checkpoint=tmp_path)
    assert train.latest_checkpoint(tmp_path) is None


def test_a_score_that_is_not_finite_stops_training():
    with pytest.raises(train.TrainingDiverged, match="step 0: the score 'a' is nan"):
        quiet_fit(tiny_model(), tiny_config(), evaluate=lambda: {"a": float("nan")})


# Checkpoints

RESUME = textwrap.dedent("""
    import sys
    import numpy as np
    from evergrad.models import GPT2, GPT2Config
    from evergrad.train import FitConfig, bits_per_byte, fit, window_sampler

    folder, stop_at = sys.argv[1], int(sys.argv[2])
    ids = np.random.default_rng(0).integers(0, 12, 200)
    model = GPT2(GPT2Config(vocab_size=12, context=16, layers=2, heads=2, dim=8, dropout=0.2))
    windows, drawn = window_sampler(ids), 0

    def sample(rng, batch_size, window):
        global drawn
        drawn += 1
        if drawn == stop_at:
            raise KeyboardInterrupt
        return windows(rng, batch_size, window)

    config = FitConfig(steps=20, batch_size=4, window=8, lr=0.01, accumulate=2, eval_every=4,
                       patience=100, checkpoint_every=5)
    try:
        fit(model, sample, config, checkpoint=folder, resume=True, progress=False,
            evaluate=lambda: {"bits": bits_per_byte(model, ids, 200, 8)})
    except KeyboardInterrupt:
        print("interrupted")
""")


def test_resumed_in_new_processes_bit_for_bit(tmp_path):
    def run(folder, stop_at):
        command = [sys.executable, "-c", RESUME, str(folder), str(stop_at)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run(tmp_path / "straight", 0) == ""
    assert run(tmp_path / "resumed", 23) == "interrupted\n"  # within step 12, so from step 10
    assert train.latest_checkpoint(tmp_path / "resumed").name == "step-00000010"
    assert run(tmp_path / "resumed", 0) == ""
    straight, resumed = (
        train.latest_checkpoint(tmp_path / name) for name in ("straight", "resumed")
    )
    assert straight.name == resumed.name == "step-00000020"
    arrays = "state.safetensors"
    assert (straight / arrays).read_bytes() == (resumed / arrays).read_bytes()
    states = [io.read_json(path / "state.json") for path in (straight, resumed)]
    for state in states:
        del state["run"]["seconds"]
        for row in state["run"]["rows"]:
            del row["seconds"]
    assert states[0] == states[1]
    assert states[0]["random_state"]["random"][1] > 0  # dropout was drawn


def test_checkpoints_are_few_and_at_the_end(tmp_path):
    quiet_fit(tiny_model(), tiny_config(steps=11, checkpoint_every=2), checkpoint=tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000010", "step-00000011"]


def test_a_finished_run_resumes_to_its_end(tmp_path):
    model = tiny_model()
    history = quiet_fit(model, tiny_config(), checkpoint=tmp_path)
    again = tiny_model(seed=9)
    assert quiet_fit(again, tiny_config(), checkpoint=tmp_path, resume=True) == history
    np.testing.assert_array_equal(again.flat.data, model.flat.data)
    longer = quiet_fit(again, tiny_config(steps=15), checkpoint=tmp_path, resume=True)
    assert longer.rows[:10] == history.rows
    assert len(longer) == 15


def test_a_run_is_not_overwritten(tmp_path):
    quiet_fit(tiny_model(), tiny_config(), checkpoint=tmp_path)
    with pytest.raises(FileExistsError, match="resume it, or use another folder"):
        quiet_fit(tiny_model(), tiny_config(), checkpoint=tmp_path)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["file", "file/within"])
def test_a_file_is_no_folder_for_checkpoints(tmp_path, name, resume):
    (tmp_path / "file").write_text("precious")
    model, drawn = tiny_model(), []
    before = model.flat.data.copy()
    with pytest.raises(
        NotADirectoryError, match=f"checkpoint: expected a folder, got .*{name}, where"
    ):
        quiet_fit(
            model,
            tiny_config(),
            sample=lambda *_: drawn.append(1),
            checkpoint=tmp_path / name,
            resume=resume,
        )
    assert not drawn
    np.testing.assert_array_equal(model.flat.data, before)
    assert (tmp_path / "file").read_text() == "precious"


def test_resume_refuses_other_settings_and_models(tmp_path):
    quiet_fit(tiny_model(), tiny_config(), checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"other settings: lr was 0\.01, is 0\.02"):
        quiet_fit(tiny_model(), tiny_config(lr=0.02), checkpoint=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"other settings: n_embd was 8, is 16"):
        quiet_fit(tiny_model(dim=16), tiny_config(), checkpoint=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"other settings: n_head was 2, is 4$"):
        quiet_fit(tiny_model(heads=4), tiny_config(), checkpoint=tmp_path, resume=True)
    frozen = tiny_model()
    frozen.freeze("wpe")
    with pytest.raises(ValueError, match="does not fit this model"):
        quiet_fit(frozen, tiny_config(), checkpoint=tmp_path, resume=True)


def test_a_model_of_one_s_own_may_have_any_config(tmp_path):
    class Own(nn.Module):
        def __init__(self, seed=0):
            self.config = {"width", 8}  # neither a family's, nor anything that JSON holds
            self.body = tiny_model(seed)
            nn.flatten_(self)

        def loss_and_gradients(self, batch, normalizer):
            return self.body.loss_and_gradients(batch, normalizer)

        def loss(self, batch, normalizer=None):
            return self.body.loss(batch, normalizer)

    trained, resumed = Own(), Own(1)
    quiet_fit(trained, tiny_config(), checkpoint=tmp_path)
    quiet_fit(resumed, tiny_config(), checkpoint=tmp_path, resume=True)
    np.testing.assert_array_equal(resumed.flat.data, trained.flat.data)


def test_checkpoints_of_former_versions_are_resumed(tmp_path):
    straight = tiny_model()
    quiet_fit(straight, tiny_config(), checkpoint=tmp_path)
    path = train.latest_checkpoint(tmp_path) / "state.json"
    values = json.loads(path.read_text())
    del values["model"]
    path.write_text(json.dumps(values))
    model = tiny_model(1)
    quiet_fit(model, tiny_config(), checkpoint=tmp_path, resume=True)
    np.testing.assert_array_equal(model.flat.data, straight.flat.data)


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    straight = tiny_model()
    config = tiny_config(steps=10, checkpoint_every=4)
    quiet_fit(straight, config, checkpoint=tmp_path)
    damaged = tmp_path / "step-00000010" / "state.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="passed over.*step-00000010.*truncated"):
        assert train.latest_checkpoint(tmp_path).name == "step-00000008"
    model = tiny_model(seed=1)
    with pytest.warns(UserWarning, match="passed over"):
        quiet_fit(model, config, checkpoint=tmp_path, resume=True)
    np.testing.assert_array_equal(model.flat.data, straight.flat.data)
    assert train.latest_checkpoint(tmp_path).name == "step-00000010"

    for path in tmp_path.glob("step-*/state.json"):
        path.write_text('{"format": 99}')
    with (
        pytest.warns(UserWarning, match="format 1 is expected, got 99"),
        pytest.raises(io.CorruptFileError, match="no checkpoint can be read"),
    ):
        train.latest_checkpoint(tmp_path)


def test_leftovers_of_killed_runs_are_cleaned(tmp_path):
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                             capture_output=True, text=True, check=True)  # fmt: skip
    with io.atomic_folder(tmp_path / "other") as folder:
        parts = folder.name.split(".")
    parts[3], parts[4] = process.stdout.strip(), "1"
    (tmp_path / ".".join(parts)).mkdir()
    quiet_fit(tiny_model(), tiny_config(), checkpoint=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "step-00000010"]


# Display


def test_plain_lines_off_a_terminal_and_silence(capfd):
    quiet_fit(tiny_model(), tiny_config(), progress=True, label="prose", evaluate=lambda: {"a": 2})
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "prose:   0%  step 0  a 2.000"
    assert lines[-1].startswith("prose: 100%  step 10  loss ")
    assert "tokens/s  a 2.000" in lines[-1]
    quiet_fit(tiny_model(), tiny_config(), evaluate=lambda: {"a": 2})
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_where_standard_error_is_closed_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert len(quiet_fit(tiny_model(), tiny_config(), progress=True)) > 1


BAR = textwrap.dedent("""
    import numpy as np
    from evergrad.models import GPT2, GPT2Config
    from evergrad.train import FitConfig, fit, window_sampler
    model = GPT2(GPT2Config(vocab_size=12, context=16, layers=1, heads=2, dim=8))
    config = FitConfig(steps=30, batch_size=4, window=8, eval_every=10)
    fit(model, window_sampler(np.arange(100) % 12), config, label="pro[se]",
        evaluate=lambda: {"a[b]": 2.0, "c": 3.0})
""")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [120, 80, 60])
def test_bar_on_a_terminal(columns):
    pytest.importorskip("rich")
    import pty

    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": str(columns)}
    process = subprocess.Popen([sys.executable, "-c", BAR], stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    text = shown.decode()
    assert process.wait() == 0, text
    # Whatever the width, what tells how far it is stays; words are cut.
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n").split("\n")
    last = [line for line in last if "step 30" in line][-1]
    assert re.match(r"pro\[se\] ━+ 100% step 30  loss \d", last), text
    assert last.rstrip().endswith("0:00:00"), text
    if columns == 120:
        assert "a[b] 2.000  c 3.000" in last, text


# History


@pytest.fixture
def history():
    curve = [4.0 * 0.99**step + 1 for step in range(200)]
    rows = [
        {
            "step": i + 1,
            "seconds": 0.01 * i,
            "tokens": 100 * i,
            "loss": x,
            "lr": 0.1,
            "grad_norm": x,
        }
        for i, x in enumerate(curve)
    ]
    for row in rows[::20]:
        row |= {"prose": row["loss"] / 2, "code": row["loss"] / 1.5}
    return History("curve", rows)


def test_history_round_trip(history, tmp_path):
    path = tmp_path / "history.json"
    history.save(path)
    assert History.load(path) == history
    assert list(history.scores()) == ["prose", "code"]
    path.write_text("[]")
    with pytest.raises(io.CorruptFileError, match=r"history\.json: no training history"):
        History.load(path)


@pytest.mark.parametrize("kept", ["all", "losses", "scores", "one row"])
def test_history_plot(history, tmp_path, kept):
    pytest.importorskip("matplotlib")
    if kept == "losses":
        history.rows = [row for row in history if "prose" not in row]
    elif kept == "scores":
        history.rows = [{"step": 0, "seconds": 0.0, "tokens": 0, "prose": 3.0}]
    elif kept == "one row":
        history.rows = history.rows[:1]
    path = tmp_path / "curve.png"
    history.plot(path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    path = tmp_path / "curve.svg"
    history.plot(path, title="A title")
    assert "<svg" in path.read_text()


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_history_plot_on_a_full_disk_leaves_the_former_picture(history, tmp_path):
    import resource

    pytest.importorskip("matplotlib")
    path = tmp_path / "curve.png"
    history.plot(path)
    former = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(former) // 2, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            history.plot(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == former
    assert list(tmp_path.iterdir()) == [path]


def test_history_plot_needs_rows(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="nothing was recorded"):
        History().plot(tmp_path / "curve.png")


# All together


def test_learns_real_prose(tmp_path):
    pytest.importorskip("tokenizers")
    domain = cpython_prose()
    tokenizer = Tokenizer.train(domain.train, vocab_size=300)
    prose = train.encode_domain(domain, tokenizer, max_heldout_bytes=3000)
    model = tiny_model(vocab_size=tokenizer.vocab_size, context=32, dim=32)

    def evaluate():
        return {"prose": bits_per_byte(model, prose.heldout_ids, prose.heldout_bytes, 32)}

    history = quiet_fit(
        model,
        FitConfig(steps=80, batch_size=8, window=32, lr=0.01),
        sample=window_sampler(prose.train_ids),
        evaluate=evaluate,
    )
    scores = [score for _, score in history.scores()["prose"]]
    uniform = np.log2(tokenizer.vocab_size) * (prose.heldout_ids.size - 1) / prose.heldout_bytes
    assert scores[0] == pytest.approx(uniform, rel=0.05)
    assert scores[-1] < 0.8 * scores[0]
