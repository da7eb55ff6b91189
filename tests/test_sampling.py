"""Sampling and buckets of positions: distributions, edges, and what others compute."""

from __future__ import annotations

import numpy as np
import pytest

from evergrad import ops
from op_support import SEED, each_backend, using

ROWS = 20_000
LOGITS = np.log(np.array([0.1, 0.4, 0.3, 0.2], np.float32))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.3, 0.2]),
        ({"temperature": 0.5}, np.array([1, 16, 9, 4]) / 30),
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_p": 0.65}, [0, 4 / 7, 3 / 7, 0]),
        ({"min_p": 0.6}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_k": 3, "top_p": 0.7, "min_p": 0.3}, [0, 4 / 7, 3 / 7, 0]),
    ],
    ids=str,
)
@each_backend
def test_frequencies(options: dict[str, float], expected: list[float], backend: str) -> None:
    with using(backend):
        drawn = ops.sample(np.tile(LOGITS, (ROWS, 1)), seed=SEED + 1, **options)
    observed = np.bincount(drawn, minlength=4) / ROWS
    deviations = np.sqrt(np.array(expected) * (1 - np.array(expected)) / ROWS)
    assert (np.abs(observed - expected) <= 5 * deviations).all()


@each_backend
def test_a_row_draws_by_its_counter(backend: str) -> None:
    """A batch is the same draws as its rows one by one."""
    logits = np.random.default_rng(SEED).standard_normal((50, 300), np.float32)
    with using(backend):
        together = ops.sample(logits, seed=5, offset=7)
        alone = [int(ops.sample(row, seed=5, offset=7 + i)) for i, row in enumerate(logits)]
        other = ops.sample(logits, seed=6, offset=7)
    assert together.tolist() == alone
    assert (together != other).any()


@each_backend
def test_edges(backend: str) -> None:
    inf, nan = np.inf, np.nan
    rows = np.array(
        [
            [-inf, -inf, -inf], [0, nan, 0], [-inf, 2, -inf], [inf, 0, 1], [-3e38, 3e38, -inf],
            [nan, -inf, -inf],
        ],
        np.float32,
    )  # fmt: skip
    with using(backend):
        assert ops.sample(rows, seed=0).tolist() == [-1, -1, 1, 0, 1, -1]
        assert ops.sample(rows, top_k=2, top_p=0.5, seed=0).tolist() == [-1, -1, 1, 0, 1, -1]
        equal = np.zeros((1000, 40), np.float32)
        assert set(ops.sample(equal, top_k=3, seed=0)) == {0, 1, 2}, "the first of equals"
        assert not ops.sample(equal, temperature=0, seed=0).any()
        assert set(ops.sample(equal, top_p=0.1, seed=0)) == {0, 1, 2, 3}
        assert ops.sample(np.zeros((2, 0), np.float32), seed=0).tolist() == [-1, -1]


@each_backend
def test_a_cut_keeps_what_a_full_sort_would(backend: str) -> None:
    """Every token within the cut is drawn from many seeds, and none beyond it."""
    logits = np.random.default_rng(SEED).standard_normal(2000).astype(np.float32)
    order = np.argsort(-logits, kind="stable")
    probability = np.exp(logits[order].astype(np.float64))
    probability /= probability.sum()
    fewest = int(np.searchsorted(np.cumsum(probability), 0.01)) + 1
    rows = np.tile(logits, (4000, 1))
    with using(backend):
        assert set(ops.sample(rows, top_p=0.01, seed=1)) == set(order[:fewest])
        assert set(ops.sample(rows, top_k=17, seed=1)) == set(order[:17])


@each_backend
def test_the_likely_may_lie_anywhere(backend: str) -> None:
    """In one block, in the last and broken one, one to a block; with equals at every boundary."""
    n = 64 * 40 + 5
    rows = np.zeros((4, n), np.float32)
    rows[0, 64:128], rows[1, -9:], rows[2, ::64] = 9.0, 9.0, 9.0
    rows[3, ::64] = 9 + np.random.default_rng(SEED).permutation(41) / 64  # no two blocks alike
    with using(backend):
        for row in rows:
            order = np.argsort(-row, kind="stable")
            for k in (1, 2, 5, 30):
                drawn = set(ops.sample(np.tile(row, (500, 1)), top_k=k, seed=SEED))
                assert drawn <= set(order[:k])
                assert k == 30 or drawn == set(order[:k])
            # All likely ones weigh 0.96 and more, and none of them twice as much as another.
            likely = np.count_nonzero(row)
            drawn = set(ops.sample(np.tile(row, (500, 1)), top_p=0.25, seed=SEED))
            assert drawn <= set(order[: likely // 3 + 1])


@each_backend
def test_many_that_are_unlikely_matter_together(backend: str) -> None:
    """One token weighs 0.45, all others 0.55 together: half of the mass takes 455 of them."""
    n, draws = 5000, 3000
    logits = np.full(n, np.log(0.55 / (n - 1)), np.float32)
    logits[77] = np.log(0.45)
    with using(backend):
        for options, share in (({"top_p": 0.5}, 0.1), ({}, 0.55)):
            drawn = ops.sample(np.tile(logits, (draws, 1)), seed=SEED, **options)
            unlikely = drawn[drawn != 77]
            assert abs(len(unlikely) / draws - share) < 5 * np.sqrt(share * (1 - share) / draws)
            assert "top_p" not in options or unlikely.max() <= 456


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(
    ("num_buckets", "max_distance"),
    [(32, 128), (32, 256), (64, 128), (16, 64), (8, 20), (10, 50), (7, 9)],
)
def test_buckets_are_those_of_t5(bidirectional: bool, num_buckets: int, max_distance: int) -> None:
    torch = pytest.importorskip("torch")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    tokens = 600
    relative = torch.arange(tokens)[None, :] - torch.arange(tokens)[:, None]
    expected = t5._relative_position_bucket(relative, bidirectional, num_buckets, max_distance)
    options = {
        "bidirectional": bidirectional, "num_buckets": num_buckets, "max_distance": max_distance
    }  # fmt: skip
    got = ops.relative_position_buckets(tokens, tokens, **options)
    np.testing.assert_array_equal(got, expected.numpy())
    # Fewer queries than keys are the last ones.
    last = ops.relative_position_buckets(3, tokens, **options)
    np.testing.assert_array_equal(last, expected.numpy()[-3:])


def test_buckets_need_two_sides() -> None:
    with pytest.raises(ValueError, match=r"num_buckets: .* \[4, 4096\], got 3"):
        ops.relative_position_buckets(2, 2, num_buckets=3)
