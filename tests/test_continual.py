"""Metrics by hand, versions that survive, strategies that mix, adaptation that is a transaction."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import multiprocessing
import os
import shutil
import threading

import numpy as np
import pytest

import evergrad
from evergrad import io, train
from evergrad.continual import (
    Naive,
    Replay,
    Report,
    Reservoir,
    ScoreMatrix,
    StoreError,
    StoreLockedError,
    VersionStore,
    adapt,
    begin,
    gate,
    metrics,
)
from evergrad.datasets import Domain, cpython_code, cpython_prose
from evergrad.models import GPT2, GPT2Config, Llama, LlamaConfig
from evergrad.text import Tokenizer
from evergrad.train import EncodedDomain, FitConfig, encode_domain
from op_support import SEED

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

WINDOW = 16

# Three domains learned one after the other. Domain 0 still improves at stage 2 (0.75), then falls.
R = [
    [0.10, 0.20, 0.30],
    [0.70, 0.25, 0.20],
    [0.75, 0.80, 0.35],
    [0.50, 0.60, 0.90],
]


# Metrics. Every number on the right is worked out by hand from R.


def test_acc_is_the_mean_of_the_last_row():
    assert metrics.acc(R) == pytest.approx((0.50 + 0.60 + 0.90) / 3)


def test_bwt_compares_the_end_with_each_domains_own_stage():
    assert metrics.bwt(R) == pytest.approx(((0.50 - 0.70) + (0.60 - 0.80)) / 2)


def test_fwt_compares_the_stage_before_with_the_baseline():
    assert metrics.fwt(R) == pytest.approx(((0.25 - 0.20) + (0.35 - 0.30)) / 2)


def test_the_two_conventions_of_forgetting_differ_where_a_domain_improved_later():
    assert metrics.forgetting_last(R) == pytest.approx(((0.70 - 0.50) + (0.80 - 0.60)) / 2)
    # Best before the end: 0.75 for domain 0 (stage 2), 0.80 for domain 1.
    assert metrics.forgetting_max(R) == pytest.approx(((0.75 - 0.50) + (0.80 - 0.60)) / 2)
    assert metrics.forgetting_last(R) == pytest.approx(-metrics.bwt(R))


def test_terms_one_by_one():
    expected = {
        metrics.acc: [0.50, 0.60, 0.90],
        metrics.bwt: [-0.20, -0.20, math.nan],
        metrics.fwt: [math.nan, 0.05, 0.05],
        metrics.forgetting_last: [0.20, 0.20, math.nan],
        metrics.forgetting_max: [0.25, 0.20, math.nan],
    }
    for metric, terms in expected.items():
        np.testing.assert_allclose(metric(R, reduction="none"), terms, atol=1e-12)


def test_the_best_score_of_forgetting_max_leaves_the_baseline_out():
    scores = [[0.9, 0.0], [0.5, 0.1], [0.4, 0.8]]
    assert metrics.forgetting_max(scores) == pytest.approx(0.5 - 0.4)


def test_stages_and_domains_need_not_match():
    # Domain 1 is learned first and again at stage 3; domain 0 at stage 2; domain 2 never.
    scores = [[0.1, 0.1, 0.1], [0.2, 0.6, 0.1], [0.8, 0.5, 0.2], [0.7, 0.7, 0.3], [0.6, 0.4, 0.4]]
    learned = [None, 1, 0, 1, None]
    assert metrics.acc(scores) == pytest.approx((0.6 + 0.4 + 0.4) / 3)
    # From its last own stage on: domain 0 from 0.8 (stage 2), domain 1 from 0.7 (stage 3).
    assert metrics.bwt(scores, learned) == pytest.approx(((0.6 - 0.8) + (0.4 - 0.7)) / 2)
    # Up to its first own stage: domain 1 has no stage before; domain 0 has stage 1.
    assert metrics.fwt(scores, learned) == pytest.approx(0.2 - 0.1)
    assert metrics.forgetting_max(scores, learned) == pytest.approx(((0.8 - 0.6) + (0.7 - 0.4)) / 2)


def test_what_was_not_measured_is_left_out():
    scores = [[0.1, math.nan], [0.7, math.nan], [0.5, 0.9]]
    assert metrics.summary(scores) == pytest.approx(
        {
            "acc": 0.7,
            "bwt": -0.2,
            "fwt": math.nan,
            "forgetting_last": 0.2,
            "forgetting_max": 0.2,
        },
        nan_ok=True,
    )
    only_baseline = metrics.summary([[0.1]], [None])
    assert only_baseline["acc"] == 0.1
    assert all(math.isnan(value) for name, value in only_baseline.items() if name != "acc")


@pytest.mark.parametrize(
    ("scores", "learned", "message"),
    [
        ([0.1, 0.2], None, r"expected \[stages \+ 1, domains\], got shape \(2,\)"),
        (np.empty((0, 2)), None, "got shape"),
        ([[0.1, 0.2], [0.3, 0.4]], None, "learned: needed for 2 rows x 2 domains"),
        ([[0.1], [0.2]], [None], r"one entry per row \(2\), got 1"),
        ([[0.1], [0.2]], [0, 0], "row 0 is the baseline"),
        ([[0.1], [0.2]], [None, 1], "expected domains below 1, got 1"),
    ],
)
def test_metrics_refuse_what_does_not_fit(scores, learned, message):
    with pytest.raises(ValueError, match=message):
        metrics.summary(scores, learned)
    with pytest.raises(ValueError, match="reduction: expected 'mean' or 'none', got 'sum'"):
        metrics.acc([[0.1]], reduction="sum")


def test_score_matrix_negates_bits_and_grows():
    scores = ScoreMatrix()
    scores.add("untrained", None, {"prose": 3.6})
    scores.add("0001 prose", "prose", {"prose": 2.0})
    scores.measure(0, {"code": 4.0})
    scores.add("0002 code", "code", {"prose": 2.3, "code": 2.8})
    np.testing.assert_array_equal(scores.array(), [[-3.6, -4.0], [-2.0, math.nan], [-2.3, -2.8]])
    assert scores.summary()["bwt"] == pytest.approx(-0.3)
    again = ScoreMatrix.from_dict(json.loads(json.dumps(scores.to_dict(), allow_nan=False)))
    assert again == scores
    with pytest.raises(ValueError, match="the first row is the untrained model"):
        ScoreMatrix().add("0001 prose", "prose", {})


# Real text, tiny models


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small gain nothing from a second thread."""
    with evergrad.num_threads(1):
        yield


@pytest.fixture(scope="module")
def domains():
    """A few documents of prose and of code, and a tokenizer for both."""
    prose, code = cpython_prose(), cpython_code()
    prose = Domain("prose", prose.train[:12], prose.heldout[:2])
    code = Domain("code", [text[:2000] for text in code.train[:12]], [code.heldout[0][:3000]])
    tokenizer = Tokenizer.train(prose.train + code.train, 300)
    return encode_domain(prose, tokenizer), encode_domain(code, tokenizer), tokenizer


def tiny_model(tokenizer, seed=0):
    shape = GPT2Config(tokenizer.vocab_size, context=WINDOW, layers=1, heads=2, dim=16)
    return GPT2(shape, seed=seed)


def arithmetic(tokenizer):
    """A domain that has nothing in common with prose."""
    sums = [f"{i} + {i} = {2 * i}\n" for i in range(400)]
    return encode_domain(Domain("sums", sums[:-20], sums[-20:]), tokenizer)


def config(**settings):
    return FitConfig(**{"steps": 30, "batch_size": 8, "window": WINDOW, "lr": 0.01} | settings)


@pytest.fixture(scope="module")
def trained(domains, tmp_path_factory):
    """A store whose version 0001 has learned prose."""
    prose, code, tokenizer = domains
    store = VersionStore(tmp_path_factory.mktemp("trained") / "store")
    begin(
        store,
        tiny_model(tokenizer),
        tokenizer,
        prose,
        config(steps=200),
        also_measure=[code],
        progress=False,
    )
    return store


@pytest.fixture
def store(trained, tmp_path):
    """A copy of it to write to."""
    shutil.copytree(trained.root, tmp_path / "store")
    return VersionStore(tmp_path / "store")


def content(root):
    return {
        path.relative_to(root): path.read_bytes() for path in root.rglob("*.*") if path.is_file()
    }


# VersionStore


def test_a_version_is_complete_and_comes_back_as_it_was(trained, domains):
    version = trained.current()
    assert version.name == "0001"
    assert version.parent is None
    assert version.accepted
    assert sorted(path.name for path in version.path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "report.json",
        "tokenizer.json",
    ]
    version.verify()
    model, tokenizer = version.load()
    assert tokenizer.decode(tokenizer.encode("naïve")) == "naïve"
    prose = domains[0]
    measured = train.bits_per_byte(model, prose.heldout_ids, prose.heldout_bytes, WINDOW)
    assert measured == version.report["after"]["prose"]


def test_accepted_versions_become_current_and_rejected_ones_do_not(store):
    model, tokenizer = store.current().load()
    second = store.add(model, tokenizer, {"accepted": True})
    assert (second.name, second.parent, store.current().name) == ("0002", "0001", "0002")
    third = store.add(model, tokenizer, {"accepted": False})
    assert (third.name, third.parent, store.current().name) == ("0003", "0002", "0002")
    assert [version.name for version in store.list()] == ["0001", "0002", "0003"]
    for version in store.list():
        version.verify()


def test_rollback_goes_to_the_parent_or_to_any_accepted_version(store):
    model, tokenizer = store.current().load()
    store.add(model, tokenizer, {"accepted": True})
    store.add(model, tokenizer, {"accepted": False})
    before = content(store.root / "versions")
    assert store.rollback().name == "0001" == store.current().name
    assert store.rollback(to=2).name == "0002" == store.current().name
    assert store.rollback("1").name == "0001"
    with pytest.raises(StoreError, match="version 0001 is the first one"):
        store.rollback()
    with pytest.raises(StoreError, match="version 0003 was rejected by the gate"):
        store.rollback("0003")
    with pytest.raises(StoreError, match=r"no version 9 \(there are: 0001, 0002, 0003\)"):
        store.rollback(9)
    assert store.current().name == "0001"
    assert content(store.root / "versions") == before


def test_names_go_on_past_four_digits(store):
    model, tokenizer = store.current().load()
    (store.root / "versions" / "0001").rename(store.root / "versions" / "9999")
    io.write_atomic(store.root / "current", b"9999\n")
    assert store.add(model, tokenizer, {"accepted": True}).name == "10000"
    assert [version.name for version in store.list()] == ["9999", "10000"]


def test_what_is_no_version_is_not_taken_for_one(store):
    model, tokenizer = store.current().load()
    for name in ("²", "٢", "-1", "", "1.0", "9" * 5000):
        with pytest.raises(StoreError, match=rf"no version {name} \(there are: 0001\)"):
            store.rollback(to=name)
    for name in ("²", "٢"):
        (store.root / "versions" / name).mkdir()
    (store.root / "versions" / "0002").write_text("not ours")
    assert [version.name for version in store.list()] == ["0001"]
    assert store.add(model, tokenizer, {"accepted": True}).name == "0003", "0002 is taken"

    (store.root / "versions" / "0009").mkdir()  # as if its files had been deleted
    with pytest.raises(io.CorruptFileError, match=r"0009.report\.json: missing"):
        store.rollback(to=9)
    with pytest.raises(io.CorruptFileError, match=r"0009.report\.json: missing"):
        store.get(9).verify()
    assert store.current().name == "0003"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_verify_finds_any_damage_and_rollback_refuses_it(store, name, damage):
    model, tokenizer = store.current().load()
    store.add(model, tokenizer, {"accepted": True})
    file = store.get(1).path / name
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[:-1])
    else:
        file.unlink()
    with pytest.raises(io.CorruptFileError, match=name):
        store.get(1).verify()
    with pytest.raises(io.CorruptFileError):
        store.rollback()
    assert store.current().name == "0002"


def test_verify_finds_a_changed_report(store):
    file = store.current().path / "report.json"
    report = io.read_json(file)
    report["after"]["prose"] = 0.5
    file.chmod(0o644)
    io.write_json(file, report)
    with pytest.raises(io.CorruptFileError, match="does not match its own checksum"):
        store.current().verify()


def test_versions_are_read_only(store):
    assert all(not path.stat().st_mode & 0o222 for path in store.current().path.iterdir())


def test_a_store_without_versions_says_what_to_do(tmp_path):
    empty = VersionStore(tmp_path / "none")
    assert empty.list() == ()
    with pytest.raises(StoreError, match="no versions here; train a first one"):
        empty.current()
    assert not (tmp_path / "none").exists(), "reading creates nothing"


def test_a_lost_pointer_says_what_to_do(store):
    (store.root / "current").unlink()
    with pytest.raises(StoreError, match="choose one with `evergrad rollback --to`"):
        store.current()
    assert store.rollback(to=1).name == "0001" == store.current().name


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"0099\n", b"../0001"], ids=repr)
def test_a_damaged_pointer_says_what_to_do(store, damage):
    (store.root / "current").write_bytes(damage)
    for refused in (store.current, store.expect_empty, store.rollback):
        with pytest.raises(StoreError, match=r"current: names '.*', which is no version; choose"):
            refused()
    assert store.rollback(to=1).name == "0001" == store.current().name


def test_a_store_whose_versions_were_deleted_is_empty(store, domains):
    prose, _, tokenizer = domains
    shutil.rmtree(store.root / "versions")
    with pytest.raises(StoreError, match="no versions here; train a first one"):
        store.current()
    report = begin(store, tiny_model(tokenizer), tokenizer, prose, config(steps=1), progress=False)
    assert (report.version, report.parent) == ("0001", None)
    assert store.current().name == "0001"


def test_a_store_that_is_not_there_is_not_made(tmp_path, domains):
    prose, code, _ = domains
    missing = VersionStore(tmp_path / "none")
    for write in (missing.rollback, lambda: adapt(missing, code, [prose], config())):
        with pytest.raises(StoreError, match="no versions here"):
            write()
    assert not missing.root.exists()


def test_an_addition_that_fails_leaves_nothing(store):
    model, tokenizer = store.current().load()
    before = content(store.root)
    with pytest.raises(KeyError, match="accepted"):
        store.add(model, tokenizer, {})
    with pytest.raises(ValueError, match="Out of range float values"):
        store.add(model, tokenizer, {"accepted": True, "loss": math.nan})
    with pytest.raises(AttributeError):
        store.add(object(), tokenizer, {"accepted": True})
    assert content(store.root) == before
    assert [version.name for version in store.list()] == ["0001"]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_a_pointer_that_cannot_be_written_leaves_nothing(store, monkeypatch, first, moved):
    model, tokenizer = store.current().load()
    if first:
        io.remove_folder(store.root)
    before = content(store.root / "versions")
    write = io.write_atomic

    def full(path, data):
        if path.name == "current":
            if moved:  # refused only when the folder is flushed
                write(path, data)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(io, "write_atomic", full)
        with pytest.raises(OSError, match="No space left"):
            store.add(model, tokenizer, {"accepted": True})
    if moved:
        assert store.current() == store.list()[-1]
        store.current().verify()
    else:
        assert content(store.root / "versions") == before
        assert len(store.list()) == (0 if first else 1)
    added = store.add(model, tokenizer, {"accepted": True})
    assert store.current() == added


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("accepted", [False, True])
def test_an_interruption_between_folder_and_pointer_leaves_nothing(
    store, monkeypatch, first, accepted
):
    model, tokenizer = store.current().load()
    if first:
        io.remove_folder(store.root)
    before = content(store.root / "versions")
    flush = io.atomic._fsync_folder

    def interrupted(folder):
        if folder == store.root / "versions":
            raise KeyboardInterrupt
        flush(folder)

    with monkeypatch.context() as patch:
        patch.setattr(io.atomic, "_fsync_folder", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.add(model, tokenizer, {"accepted": accepted})
    assert content(store.root / "versions") == before


@pytest.mark.parametrize("error", [FileExistsError, KeyboardInterrupt, OSError])
def test_a_folder_that_came_from_elsewhere_meanwhile_stays(store, error):
    model, tokenizer = store.current().load()
    copied = store.root / "versions" / "0002"

    class Slow:
        def save(self, path):
            shutil.copytree(store.current().path, copied)
            tokenizer.save(path)
            if error is not FileExistsError:  # which the folder itself is a reason for
                raise error

    with pytest.raises(error):
        store.add(model, Slow(), {"accepted": True})
    assert content(copied)


def hold(root, ready, done):
    with VersionStore(root).lock():
        ready.set()
        done.wait(30)


def test_a_second_writer_is_told_who_the_first_is(store):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(store.root, ready, done))
    process.start()
    assert ready.wait(30)
    model, tokenizer = store.current().load()  # reading goes on
    for write in (
        lambda: store.add(model, tokenizer, {"accepted": True}),
        lambda: store.rollback(to=1),
    ):
        with pytest.raises(StoreLockedError, match=f"process {process.pid} is writing"):
            write()
    done.set()
    process.join()
    assert store.rollback(to=1).name == "0001"


def test_a_lock_belongs_to_its_thread(store):
    problems = []

    def write():
        try:
            store.rollback(to=1)
        except StoreLockedError as error:
            problems.append(error)

    with store.lock(), store.lock():  # its own thread may enter again
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(problems) == 1
    write()
    assert len(problems) == 1, "free again"


def test_a_fork_inside_the_lock_does_not_hold_it(store):
    answers, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)

    def write():
        try:
            store.rollback(to=1)
            theirs.send("written")
        except StoreLockedError as error:
            theirs.send(str(error))

    with store.lock():
        process = multiprocessing.get_context("fork").Process(target=write)
        process.start()
        assert answers.poll(30)
        assert f"process {os.getpid()} is writing" in answers.recv()
        process.join()
        store.rollback(to=1)  # this one still holds it
    store.rollback(to=1)


def test_leftovers_of_killed_writers_go_with_the_next_write(store):
    leftover = store.root / "versions" / ".evergrad-tmp.0.1.0.abcd"
    host = io.atomic._host()
    gone = store.root / "versions" / f".evergrad-tmp.{host}.999999999.1.abcd"
    for folder in (leftover, gone):
        folder.mkdir()
    assert [version.name for version in store.list()] == ["0001"]
    store.rollback(to=1)
    assert not gone.exists()
    assert leftover.exists(), "another machine's may still be in use"


# Strategies


def test_reservoir_keeps_every_item_with_the_same_probability():
    stream, capacity, runs = 40, 8, 4000
    counts = np.zeros(stream)
    for run in range(runs):
        reservoir = Reservoir(capacity, seed=SEED + run)
        reservoir.extend(range(stream))
        assert len(set(reservoir.items)) == capacity
        counts[reservoir.items] += 1
    expected = runs * capacity / stream
    # Binomial; 5 standard deviations.
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected * (1 - capacity / stream))


def test_reservoir_holds_a_short_stream_whole():
    reservoir = Reservoir(10)
    reservoir.extend("abc")
    reservoir.extend("de")
    assert reservoir.items == list("abcde")


def marked(name, first, count):
    """A domain of whose tokens it can be told: first, first + 1, ..."""
    ids = np.arange(first, first + count)
    return EncodedDomain(name, ids, ids, 1)


def test_naive_sees_new_text_alone():
    sample = Naive().sampler(marked("new", 1000, 200), [marked("old", 0, 200)])
    assert (sample(np.random.default_rng(SEED), 32, 10).input_ids >= 1000).all()


@pytest.mark.parametrize("fraction", [0.25, 0.3, 0.9])
def test_replay_mixes_by_the_fraction(fraction):
    old = [marked("old", 0, 300), marked("older", 500, 300)]
    sample = Replay(fraction, capacity=1000).sampler(marked("new", 1000, 300), old)
    rng = np.random.default_rng(SEED)
    shares, seen = [], set()
    for _ in range(400):
        batch = sample(rng, 8, 10)
        assert len(batch) == 8
        assert (batch.target == batch.input_ids + 1).all()
        assert (np.diff(batch.cu_seqlens) == 10).all()
        firsts = batch.input_ids[batch.cu_seqlens[:-1]]
        shares.append((firsts < 1000).mean())
        seen.update((firsts[firsts < 1000] // 500).tolist())
    assert np.mean(shares) == pytest.approx(fraction, abs=0.02)
    assert max(shares) - min(shares) <= 1 / 8
    assert seen == {0, 1}, "from every retained domain"


def test_replay_remembers_no_more_than_its_capacity():
    sample = Replay(0.5, capacity=5).sampler(marked("new", 10_000, 300), [marked("old", 0, 5000)])
    rng = np.random.default_rng(SEED)
    seen = set()
    for _ in range(50):
        batch = sample(rng, 8, 10)
        firsts = batch.input_ids[batch.cu_seqlens[:-1]]
        seen.update(firsts[firsts < 10_000].tolist())
    assert len(seen) == 5


def test_replay_repeats_itself_from_the_same_seeds():
    for seed in (SEED, SEED + 1):
        batches = []
        for _ in range(2):
            sample = Replay(seed=seed).sampler(marked("new", 1000, 300), [marked("old", 0, 300)])
            batches.append(sample(np.random.default_rng(seed), 16, 10).input_ids)
        np.testing.assert_array_equal(*batches)


def test_replay_takes_a_retained_text_shorter_than_a_window():
    sample = Replay(0.5).sampler(marked("new", 1000, 300), [marked("old", 0, 6)])
    batch = sample(np.random.default_rng(SEED), 4, 10)
    assert sorted(np.diff(batch.cu_seqlens).tolist()) == [5, 5, 10, 10]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fraction": 0}, r"fraction: expected a number in \(0, 1\), got 0"),
        ({"fraction": 1.0}, "got 1.0"),
        ({"fraction": math.nan}, "got nan"),
        ({"capacity": 0}, "capacity: expected at least 1, got 0"),
    ],
)
def test_replay_refuses_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Replay(**settings)


def test_replay_needs_something_to_replay():
    with pytest.raises(ValueError, match="at least one domain"):
        Replay().sampler(marked("new", 0, 100), [])


# begin and adapt


def test_begin_records_what_it_did(trained):
    report = Report.from_dict(trained.current().report)
    assert (report.kind, report.domain, report.version, report.parent) == (
        "train",
        "prose",
        "0001",
        None,
    )
    assert report.scores.stages == ["untrained", "0001 prose"]
    assert report.scores.learned == [None, "prose"]
    assert report.scores.domains == ["prose", "code"]
    assert report.after["prose"] < report.before["prose"] < 8
    assert report.progress == 1 - report.after["prose"] / report.before["prose"]
    assert report.config["steps"] == 200 == len(report.history)
    assert 0 < report.seconds["train"] < report.seconds["total"]


def test_begin_wants_an_empty_store(store, domains):
    prose, _, tokenizer = domains
    with pytest.raises(StoreError, match="version 0001 is current"):
        begin(store, tiny_model(tokenizer), tokenizer, prose, config(), progress=False)


def test_begin_refuses_what_it_cannot_measure(domains, tmp_path):
    prose, _, tokenizer = domains
    store = VersionStore(tmp_path)
    settings = config(steps=1, lr=1e30, warmup=0.0, min_lr_ratio=1.0)
    with pytest.raises(train.TrainingDiverged, match="step 1"), np.errstate(all="ignore"):
        begin(store, tiny_model(tokenizer), tokenizer, prose, settings, progress=False)

    # A token that is not in what is learned, so that no step sees its embedding.
    seen = np.concatenate([prose.train_ids, prose.heldout_ids])
    token = np.setdiff1d(np.arange(tokenizer.vocab_size), seen)[0]
    ids = np.full(10, token)
    shape = LlamaConfig(tokenizer.vocab_size, context=WINDOW, layers=1, heads=2, dim=16, hidden=32)
    model = Llama(shape)
    model.embedding.weight.data[token] = math.nan
    with pytest.raises(train.TrainingDiverged, match="after training, other has nan bits"):
        begin(
            store,
            model,
            tokenizer,
            prose,
            config(),
            also_measure=[EncodedDomain("other", ids, ids, 9)],
            progress=False,
        )
    assert store.list() == ()


def test_accepted_adaptation_becomes_current_with_its_report(store, domains):
    prose, code, _ = domains
    base = store.current()
    report = adapt(
        store, code, [prose], config(), strategy=Replay(0.5), max_forgetting=10, progress=False
    )
    assert report.accepted
    assert report.reasons == []
    version = store.current()
    assert (version.name, version.parent) == ("0002", "0001") == (report.version, report.parent)
    version.verify()
    base.verify()

    # The numbers are those of the two models.
    for version_of, numbers in ((base, report.before), (version, report.after)):
        model, _ = version_of.load()
        for domain in (prose, code):
            measured = train.bits_per_byte(model, domain.heldout_ids, domain.heldout_bytes, WINDOW)
            assert measured == numbers[domain.name]
    before, after = report.before, report.after
    assert report.progress == pytest.approx(1 - after["code"] / before["code"])
    assert report.forgetting == {"prose": pytest.approx(after["prose"] / before["prose"] - 1)}

    saved = version.report
    np.testing.assert_allclose(
        -np.array(saved["scores"]["scores"]),
        [
            [base.report["before"]["prose"], base.report["before"]["code"]],
            [before["prose"], before["code"]],
            [after["prose"], after["code"]],
        ],
    )
    assert saved["scores"]["stages"] == ["untrained", "0001 prose", "0002 code"]
    assert saved["metrics"] == pytest.approx(
        {
            "acc": -(after["prose"] + after["code"]) / 2,
            "bwt": before["prose"] - after["prose"],
            "fwt": base.report["before"]["code"] - before["code"],
            "forgetting_last": after["prose"] - before["prose"],
            "forgetting_max": after["prose"] - before["prose"],
        }
    )
    assert saved["strategy"] == {"name": "replay", "fraction": 0.5, "capacity": 4096}
    assert saved["gate"] == {"max_forgetting": 10, "min_progress": 0.0}


def test_settings_may_be_numbers_of_numpy(store, domains):
    prose, code, _ = domains
    report = adapt(
        store,
        code,
        [prose],
        config(steps=2, lr=np.float32(0.01), betas=(np.float64(0.9), np.float32(0.5))),
        strategy=Replay(np.float32(0.5), np.int64(9)),
        max_forgetting=np.float32(np.inf),
        min_progress=np.float32(0),
        progress=False,
    )
    saved = store.get("0002").report
    assert report.version == "0002"
    assert saved["strategy"] == {"name": "replay", "fraction": 0.5, "capacity": 9}
    assert saved["gate"] == {"max_forgetting": None, "min_progress": 0.0}
    assert saved["config"]["betas"] == [0.9, 0.5]
    store.get("0002").verify()


@pytest.mark.parametrize("keep", [True, False])
def test_the_gate_rejects_what_forgets(store, domains, keep):
    prose, _, tokenizer = domains
    sums = arithmetic(tokenizer)
    before = content(store.root)
    report = adapt(
        store,
        sums,
        [prose],
        config(steps=60),
        strategy=Naive(),
        max_forgetting=0.0,
        keep_rejected=keep,
        progress=False,
    )
    assert report.forgetting["prose"] > 0, "sums alone make prose worse"
    assert not report.accepted
    assert report.reasons == [
        f"prose got {100 * report.forgetting['prose']:.1f} % worse "
        f"({report.before['prose']:.3f} to {report.after['prose']:.3f} bits per byte), "
        "more than the 0.0 % allowed"
    ]
    assert store.current().name == "0001" == report.parent
    assert content(store.root).items() >= before.items()
    assert report.version == ("0002" if keep else None)
    assert [version.name for version in store.list()] == (["0001", "0002"] if keep else ["0001"])
    if keep:
        rejected = store.get(2)
        rejected.verify()
        assert not rejected.accepted
        assert rejected.report["reasons"] == report.reasons


def test_the_gate_rejects_what_did_not_learn(store, domains):
    prose, code, _ = domains
    report = adapt(
        store, code, [prose], config(steps=1), max_forgetting=9, min_progress=0.9, progress=False
    )
    assert [reason.split(" gained ")[0] for reason in report.reasons] == ["code"]
    assert "expected more than 90.0 %" in report.reasons[0]
    assert store.current().name == "0001"


@pytest.mark.parametrize("limit", [0.0, 0.01, 0.05, 0.1, 0.3])
def test_what_is_allowed_is_allowed(limit):
    """At the limits themselves: as much forgetting passes, as much progress does not."""
    for before in np.linspace(0.5, 8, 50):
        report = small_report(before, before * (1 + limit), before, before * (1 - limit))
        assert [reason.split()[0] for reason in gate(report, limit, limit)] == ["new"], before
        assert gate(report, limit, 0.99 * limit - 1e-9) == []
        assert len(gate(report, 0.99 * limit - 1e-9, limit)) == 2


@pytest.mark.parametrize(
    ("after", "limit", "worse", "most"),
    [
        (2.2, 0.05, "10.0", "5.0"),
        (2.1004, 0.05, "5.02", "5.00"),
        (2.2, 0.0001, "10.00", "0.01"),
        (2.0001, 0.0, "0.01", "0.00"),
    ],
)
def test_the_gate_tells_what_came_from_what_is_allowed(after, limit, worse, most):
    told = gate(small_report(2.0, after, 2.0, 2.0), limit, 0.0)
    assert told == [
        "new gained 0.0 % (2.000 to 2.000 bits per byte), expected more than 0.0 %",
        f"old got {worse} % worse (2.000 to {after:.3f} bits per byte),"
        f" more than the {most} % allowed",
    ]


def test_the_gate_tells_a_small_loss_from_none():
    told = gate(small_report(2.0, 2.0, 2.0, 2.0002), 0.0, 0.0)
    assert told == ["new gained -0.01 % (2.000 to 2.000 bits per byte), expected more than 0.00 %"]


def small_report(old_before, old_after, new_before, new_after):
    return Report(
        kind="adapt",
        domain="new",
        retained=["old"],
        scores=ScoreMatrix(),
        before={"new": new_before, "old": old_before},
        after={"new": new_after, "old": old_after},
    )


def test_the_gate_takes_nothing_for_granted():
    def reasons(after, retained=("prose",)):
        before = {"code": 3.0, "prose": 2.0}
        report = Report("adapt", "code", list(retained), before, after, ScoreMatrix())
        return gate(report, max_forgetting=0.25, min_progress=0.0)

    assert reasons({"code": 2.9, "prose": 2.5}) == []  # exactly a quarter
    assert len(reasons({"code": 2.9, "prose": 2.51})) == 1
    assert len(reasons({"code": 3.0, "prose": 2.0})) == 1  # no progress is too little
    assert len(reasons({"code": math.nan, "prose": 2.0})) == 1
    assert len(reasons({"code": 2.9, "prose": math.nan})) == 1
    assert reasons({"code": 2.9, "prose": 9.0}, retained=()) == []


@pytest.mark.parametrize(
    ("after", "worsening"),
    [(0.0, 0.0), (0.1, math.inf), (math.nan, math.nan)],
)
def test_a_text_that_needed_no_bits_can_be_forgotten(after, worsening):
    scores = ScoreMatrix()
    scores.add("untrained", None, {"code": 4.0, "constant": 3.0})
    before = {"code": 4.0, "constant": 0.0}
    report = Report("adapt", "code", ["constant"], before, {"code": 3.0, "constant": after}, scores)
    assert report.forgetting == {"constant": pytest.approx(worsening, nan_ok=True)}
    report.reasons = gate(report, max_forgetting=0.25, min_progress=0.0)
    assert report.reasons == (
        []
        if worsening == 0
        else [
            f"constant got {worsening} % worse (0.000 to {after:.3f} bits per byte),"
            " more than the 25.0 % allowed"
        ]
    )
    saved = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert saved["forgetting_percent"] == {"constant": 0.0 if worsening == 0 else None}
    assert Report.from_dict(saved).forgetting == {"constant": pytest.approx(worsening, nan_ok=True)}


def test_a_report_with_scores_that_are_not_finite_comes_back():
    scores = ScoreMatrix()
    scores.add("untrained", None, {"code": 4.0, "prose": 3.0})
    scores.add("0001 code", "code", {"code": math.nan, "prose": 2.0})
    report = Report(
        kind="adapt",
        domain="code",
        retained=["prose"],
        before={"code": 4.0, "prose": 2.0},
        after={"code": math.nan, "prose": math.nan},
        scores=scores,
        seconds={"train": math.nan, "total": 1.0},
    )
    saved = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert saved["after"] == {"code": None, "prose": None}
    again = Report.from_dict(saved)
    assert math.isnan(again.progress)
    assert math.isnan(again.forgetting["prose"])
    assert again.before == report.before
    assert again.to_dict() == saved


def test_replay_forgets_less_than_naive(store, domains):
    prose, code, _ = domains
    lost = {}
    for strategy in (Naive(), Replay(0.5)):
        report = adapt(
            store,
            code,
            [prose],
            config(steps=60),
            strategy=strategy,
            max_forgetting=10,
            base=1,
            progress=False,
        )
        assert report.parent == "0001"
        lost[strategy.name] = report.forgetting["prose"]
    assert lost["replay"] < lost["naive"]


def test_a_third_stage_extends_the_matrix(store, domains):
    prose, code, tokenizer = domains
    adapt(store, code, [prose], config(steps=5), max_forgetting=10, progress=False)
    sums = arithmetic(tokenizer)
    report = adapt(store, sums, [prose], config(steps=5), max_forgetting=10, progress=False)
    assert report.scores.stages[-1] == "0003 sums"
    assert report.scores.domains == ["prose", "code", "sums"]
    measured = ~np.isnan(report.scores.array())
    # Code was not among the retained: unknown at the end. Sums are new: unknown after stage 1, but
    # known of the untrained model, without which there is no forward transfer.
    assert measured.tolist() == [
        [True, True, True],
        [True, True, False],
        [True, True, True],
        [True, False, True],
    ]
    assert math.isfinite(report.metrics["fwt"])


def test_a_model_from_elsewhere_can_be_adapted(domains, tmp_path):
    prose, code, tokenizer = domains
    store = VersionStore(tmp_path)
    store.add(tiny_model(tokenizer, seed=3), tokenizer, {"accepted": True})
    report = adapt(store, code, [prose], config(), max_forgetting=10, progress=False)
    assert report.scores.stages == ["untrained", "0001", "0002 code"]
    assert report.scores.learned == [None, None, "code"]
    assert report.accepted
    assert store.current().name == "0002"


def test_evaluations_on_the_way_go_into_the_history(store, domains):
    prose, code, _ = domains
    report = adapt(
        store,
        code,
        [prose],
        config(steps=6, eval_every=3),
        max_forgetting=10,
        curve=[code],
        progress=False,
    )
    measured = [row["step"] for row in report.history if "code" in row]
    assert measured == [0, 3, 6]
    assert "prose" not in report.history[-1]
    assert Report.from_dict(store.current().report).history == report.history


class Interrupting:
    """Like a strategy whose user presses Ctrl-C, or that breaks, at the third batch."""

    name = "interrupting"

    def __init__(self, error):
        self.error = error

    def sampler(self, new, retained):
        inner = Naive().sampler(new, retained)
        calls = []

        def sample(rng, batch_size, window):
            calls.append(1)
            if len(calls) == 3:
                raise self.error
            return inner(rng, batch_size, window)

        return sample

    def to_dict(self):
        return {"name": self.name}


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, MemoryError], ids=lambda error: error.__name__
)
def test_an_interruption_leaves_everything_as_it_was(store, domains, error):
    prose, code, _ = domains
    before = content(store.root)
    with pytest.raises(error):
        adapt(store, code, [prose], config(), strategy=Interrupting(error()), progress=False)
    assert content(store.root) == before
    assert store.current().name == "0001"
    store.rollback(to=1)  # the lock is free


def test_divergence_leaves_everything_as_it_was(store, domains):
    prose, code, _ = domains
    before = content(store.root)
    with pytest.raises(train.TrainingDiverged), np.errstate(all="ignore"):
        adapt(
            store,
            code,
            [prose],
            config(steps=200, lr=1e30, clip=None, warmup=0.0),
            progress=False,
        )
    assert content(store.root) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_forgetting": -0.1}, "max_forgetting: expected at least 0, got -0.1"),
        ({"max_forgetting": math.nan}, "max_forgetting"),
        ({"min_progress": 1.0}, r"min_progress: expected a fraction in \[0, 1\), got 1.0"),
    ],
)
def test_adapt_refuses_bad_limits(store, domains, settings, message):
    prose, code, _ = domains
    with pytest.raises(ValueError, match=message):
        adapt(store, code, [prose], config(), progress=False, **settings)
    with pytest.raises(ValueError, match="'code' is there twice"):
        adapt(store, code, [prose, code], config(), progress=False)


def test_a_strategy_without_text_refuses_before_anything_is_measured(store, domains):
    unmeasurable = dataclasses.replace(domains[1], heldout_bytes=0)
    with pytest.raises(ValueError, match="retained: replay needs at least one domain"):
        adapt(store, unmeasurable, [], FitConfig(steps=1, window=WINDOW), progress=False)
    nothing = dataclasses.replace(unmeasurable, train_ids=np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="ids must have one dimension and two tokens"):
        adapt(store, nothing, [], FitConfig(steps=1), strategy=Naive(), progress=False)


def test_adaptation_repeats_itself_bit_for_bit(store, domains):
    prose, code, _ = domains
    for _ in range(2):
        adapt(store, code, [prose], config(steps=8), max_forgetting=10, base=1, progress=False)
    second, third = (store.get(number).path / "model.safetensors" for number in (2, 3))
    assert second.read_bytes() == third.read_bytes()
