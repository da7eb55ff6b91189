"""Key/value caches: the same logits and the same greedy texts as without, and as transformers."""

from __future__ import annotations

import copy
import os
import pickle
import weakref
from typing import Any

import numpy as np
import pytest

from evergrad import models
from evergrad.models import KVCache, language_model
from op_support import SEED, each_backend, using

VOCAB, CONTEXT = 61, 100


def drawn(model: Any, scale: float = 0.15) -> Any:
    """Weights far from initialisation: the likeliest token depends on the text."""
    rng = np.random.default_rng(SEED)
    for parameter in model.parameters():
        parameter.data += scale * rng.standard_normal(parameter.data.shape, np.float32)
    model.eval()
    return model


MAKERS: dict[str, Any] = {
    "gpt2": lambda: models.GPT2(
        models.GPT2Config(VOCAB, CONTEXT, layers=2, heads=2, dim=16, tied=False)
    ),
    "llama": lambda: models.Llama(
        models.LlamaConfig(
            VOCAB,
            CONTEXT,
            layers=2,
            heads=4,
            kv_heads=2,
            dim=16,
            hidden=24,
            rope_scaling={"rope_type": "linear", "factor": 2.0},
        )
    ),
}
each_model = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


def offsets(lengths: Any) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def assert_equal_logits(got: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * abs(wanted).max())


def pieces(model: Any, texts: list[np.ndarray], cache: KVCache, cuts: list[list[int]]) -> Any:
    """Logits of texts that are read piece by piece: cuts[step][text] is where a piece ends."""
    before, parts = [0] * len(texts), [[] for _ in texts]
    for step in cuts:
        new = [text[a:b] for text, a, b in zip(texts, before, step, strict=True)]
        cu_seqlens = offsets([len(each) for each in new])
        logits = model.logits(np.concatenate(new), cu_seqlens, cache=cache)
        for rows, part in zip(np.split(logits, cu_seqlens[1:-1]), parts, strict=True):
            rows_of = part.append(rows)
            assert rows_of is None
        before = step
    return [np.concatenate(part) for part in parts]


@each_backend
@each_model
@pytest.mark.parametrize(
    "cuts",
    [
        [[20, 20, 20]],  # all at once
        [[5, 5, 5], [6, 6, 6], [20, 20, 20]],  # alike
        [[5, 1, 9], [6, 2, 10], [20, 20, 20]],  # prompts of different length, then one each
        [[5, 1, 9], [6, 17, 10], [20, 20, 20]],  # one reads while others write
        [[5, 0, 9], [5, 3, 9], [20, 20, 20]],  # some get nothing
    ],
    ids=str,
)
def test_pieces_give_the_logits_of_the_whole(cuts, name, backend, rng):
    with using(backend):
        model = drawn(MAKERS[name]())
        texts = list(rng.integers(0, VOCAB, (3, 20)))
        cache = KVCache(model.config, 3, capacity=20)
        got = pieces(model, texts, cache, cuts)
        for text, logits in zip(texts, got, strict=True):
            assert_equal_logits(logits, model.logits(text))
    assert cache.lengths.tolist() == [20, 20, 20]


@each_backend
@each_model
@pytest.mark.parametrize(
    "lengths",
    [[90, 90, 90, 90], [90, 1, 40, 0, 85, 100], [1] * 300],
    ids=lambda x: f"{len(x)} of {max(x)}",
)
def test_long_prompts_go_through_the_layers_in_pieces(lengths, name, backend, rng):
    with using(backend):
        model = drawn(MAKERS[name]())
        texts = [rng.integers(0, VOCAB, length) for length in lengths]
        cache, bounds = KVCache(model.config, len(texts)), offsets(lengths)
        assert bounds[-1] > language_model.PIECE
        logits = model.logits(np.concatenate(texts), bounds, cache=cache)
        for text, rows in zip(texts, np.split(logits, bounds[1:-1]), strict=True):
            if len(text):
                assert_equal_logits(rows, model.logits(text))
    assert cache.lengths.tolist() == lengths


def test_a_piece_that_fails_leaves_the_cache_as_it_was(rng, monkeypatch):
    model = drawn(MAKERS["llama"]())
    monkeypatch.setattr(language_model, "PIECE", 8)
    cache, ids = KVCache(model.config), rng.integers(0, VOCAB, 30)
    model.logits(ids[:4], cache=cache)
    with pytest.raises(IndexError):
        model.logits(np.append(ids[4:29], VOCAB), cache=cache)
    assert cache.lengths.tolist() == [4]
    assert_equal_logits(model.logits(ids[4:], cache=cache), model.logits(ids)[4:])


@each_model
def test_rows_of_cached_logits(name, rng):
    model = drawn(MAKERS[name]())
    ids, cu_seqlens = rng.integers(0, VOCAB, 9), np.array([0, 5, 9])
    everything = model.logits(ids, cu_seqlens, cache=KVCache(model.config, 2))
    rows = cu_seqlens[1:] - 1
    chosen = model.logits(ids, cu_seqlens, rows=rows, cache=KVCache(model.config, 2))
    assert_equal_logits(chosen, everything[rows])


def continued(model: Any, prompts: list[np.ndarray], count: int) -> list[list[int]]:
    """Greedy texts with a cache."""
    cache = KVCache(model.config, len(prompts))
    new = prompts
    texts: list[list[int]] = [[] for _ in prompts]
    for _ in range(count):
        cu_seqlens = offsets([len(each) for each in new])
        logits = model.logits(np.concatenate(new), cu_seqlens, rows=cu_seqlens[1:] - 1, cache=cache)
        new = [np.array([row.argmax()]) for row in logits]
        for text, token in zip(texts, new, strict=True):
            text.append(int(token[0]))
    return texts


def without_cache(model: Any, prompt: np.ndarray, count: int) -> list[int]:
    text = prompt.tolist()
    for _ in range(count):
        text.append(int(model.logits(np.array(text))[-1].argmax()))
    return text[len(prompt) :]


@pytest.mark.filterwarnings("default")  # their warnings are not ours
@each_model
def test_greedy_texts_of_64_tokens(name, tmp_path, rng):
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    model = drawn(MAKERS[name](), scale=0.5)
    prompts = [rng.integers(0, VOCAB, length) for length in (7, 1, 20)]
    texts = continued(model, prompts, 64)
    assert texts == [without_cache(model, prompt, 64) for prompt in prompts]
    assert len({token for text in texts for token in text}) > 1  # not one token over and over

    models.save(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    for prompt, text in zip(prompts, texts, strict=True):
        ids = torch.tensor(prompt[None])
        settings = transformers.GenerationConfig(
            max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        out = theirs.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        assert out[0, len(prompt) :].tolist() == text


# What a cache holds can be cut, chosen, forgotten.


@each_model
def test_truncate(name, rng):
    model = drawn(MAKERS[name]())
    texts = list(rng.integers(0, VOCAB, (2, 12)))
    cache = KVCache(model.config, 2)
    model.logits(np.concatenate(texts), np.array([0, 12, 24]), cache=cache)
    cache.truncate([5, 12])
    assert cache.lengths.tolist() == [5, 12]
    other = rng.integers(0, VOCAB, 3)
    logits = model.logits(np.concatenate([other, other]), np.array([0, 3, 6]), cache=cache)
    assert_equal_logits(logits[:3], model.logits(np.concatenate([texts[0][:5], other]))[5:])
    assert_equal_logits(logits[3:], model.logits(np.concatenate([texts[1], other]))[12:])
    cache.truncate(2)
    assert cache.lengths.tolist() == [2, 2]
    with pytest.raises(ValueError, match="lengths must lie between 0 and"):
        cache.truncate([2, 3])
    with pytest.raises(ValueError, match="lengths must lie between 0 and"):
        cache.truncate(-1)


@each_model
@pytest.mark.parametrize(
    "indices", [[2, 1, 0], [0, 0, 0], [1, 2, 0], [2], [], [0, 1, 2, 2, 1], [1, 1]], ids=str
)
def test_select(name, indices, rng):
    model = drawn(MAKERS[name]())
    texts = [rng.integers(0, VOCAB, length) for length in (5, 9, 2)]
    cache = KVCache(model.config, 3)
    model.logits(np.concatenate(texts), offsets([5, 9, 2]), cache=cache)
    cache.select(indices)
    assert len(cache) == len(indices)
    new = rng.integers(0, VOCAB, len(indices))
    logits = model.logits(new, np.arange(len(indices) + 1), cache=cache)
    for row, i, token in zip(logits, indices, new, strict=True):
        assert_equal_logits(row, model.logits(np.append(texts[i], token))[-1])


def test_reset(rng):
    model = drawn(MAKERS["llama"]())
    cache, ids = KVCache(model.config, capacity=8), rng.integers(0, VOCAB, 8)
    first = model.logits(ids, cache=cache)
    cache.reset()
    np.testing.assert_array_equal(model.logits(ids, cache=cache), first)


def test_a_call_that_fails_leaves_the_cache_as_it_was(rng):
    model = drawn(MAKERS["llama"]())
    cache, ids = KVCache(model.config, capacity=12), rng.integers(0, VOCAB, 8)
    model.logits(ids, cache=cache)
    with pytest.raises(
        ValueError, match="a sequence has 13 tokens, more than the cache's capacity"
    ):
        model.logits(ids[:5], cache=cache)
    with pytest.raises(IndexError):
        model.logits(np.array([VOCAB]), cache=cache)
    with pytest.raises(ValueError, match="expected a sequence for each of the cache's 1, got 2"):
        model.logits(ids, np.array([0, 4, 8]), cache=cache)
    assert cache.lengths.tolist() == [8]
    assert_equal_logits(
        model.logits(ids[:1], cache=cache)[0], model.logits(np.append(ids, ids[0]))[-1]
    )


def test_bad_arguments_are_named():
    config = MAKERS["gpt2"]().config
    with pytest.raises(ValueError, match="capacity must lie between 0 and the context of 100"):
        KVCache(config, capacity=101)
    with pytest.raises(ValueError, match="batch must be >= 0, got -1"):
        KVCache(config, batch=-1)
    with pytest.raises(IndexError, match=r"indices must lie in \[0, 2\), got \[2\]"):
        KVCache(config, 2).select([2])
    with pytest.raises(IndexError, match="indices must lie in"):
        KVCache(config, 2).select([-1])


def test_memory_is_held_as_it_is_written_and_let_go_with_the_cache():
    config = models.LlamaConfig(VOCAB, 2**16, layers=30, heads=2, dim=256, hidden=8)
    before = resident()
    cache = KVCache(config)  # 3.8 GB
    keys_and_values = np.ones((16, 4, 128), np.float32)
    cache.begin(np.array([0, 16]))
    for layer in range(30):
        cache[layer].attend(keys_and_values[:, :2], keys_and_values, is_causal=True)
    cache.end()
    assert resident() - before < 2**24  # 1 MB in whole pages, and scratch
    alive = weakref.ref(cache)
    del cache
    assert alive() is None


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_there_is_no_backward_through_a_cache():
    model = MAKERS["llama"]()
    hidden, backward = model(np.array([1, 2]), cache=KVCache(model.config))
    with pytest.raises(RuntimeError, match="no backward through a cache"):
        backward(hidden)


# The decoder of a T5.

T5_OPTIONS = {
    "relu": {"tied": False},
    "gated": {"gated": True, "activation": "gelu_tanh"},
}


def t5(kind: str, scale: float = 0.15) -> Any:
    sizes: dict[str, Any] = {"heads": 2, "head_dim": 8, "dim": 16, "hidden": 24}
    return drawn(models.T5(models.T5Config(VOCAB, 2, 3, **sizes, **T5_OPTIONS[kind])), scale)


SOURCES = (3, 9, 1)


@each_backend
@pytest.mark.parametrize("kind", T5_OPTIONS)
@pytest.mark.parametrize(
    "cuts", [[[3, 3, 3], [4, 4, 4], [15, 15, 15]], [[1, 5, 2], [2, 6, 3], [15, 15, 15]]], ids=str
)
def test_pieces_of_a_decoder_give_the_logits_of_the_whole(kind, cuts, backend, rng):
    with using(backend):
        model = t5(kind)
        encoded = model.encode(rng.integers(0, VOCAB, sum(SOURCES)), offsets(SOURCES))
        texts = list(rng.integers(0, VOCAB, (3, 15)))
        got = pieces(model, texts, model.new_cache(encoded, capacity=15), cuts)
        whole = model.logits(np.concatenate(texts), np.array([0, 15, 30, 45]), encoded=encoded)
    assert_equal_logits(np.concatenate(got), whole)


@pytest.mark.parametrize("indices", [[0, 0, 1, 2, 2], [2, 0, 1, 1], [1], [1, 2], []], ids=str)
def test_select_among_texts_that_look_at_others(indices, rng):
    model = t5("gated")
    encoded = model.encode(rng.integers(0, VOCAB, sum(SOURCES)), offsets(SOURCES))
    sources = [
        models.Encoded(states, np.array([0, len(states)]))
        for states in np.split(encoded.states, encoded.cu_seqlens[1:-1])
    ]
    texts = list(rng.integers(0, VOCAB, (3, 4)))
    cache = model.new_cache(encoded)
    model.logits(np.concatenate(texts), np.array([0, 4, 8, 12]), cache=cache)
    for chosen in (indices, range(len(indices)), list(range(len(indices)))[::-1]):
        cache.select(chosen)
    wanted = indices[::-1]
    new = rng.integers(0, VOCAB, len(wanted))
    logits = model.logits(new, np.arange(len(wanted) + 1), cache=cache)
    for row, i, token in zip(logits, wanted, new, strict=True):
        text = np.append(texts[i], token)
        assert_equal_logits(row, model.logits(text, encoded=sources[i])[-1])


@pytest.mark.filterwarnings("default")  # their warnings are not ours
@pytest.mark.parametrize("kind", T5_OPTIONS)
def test_greedy_texts_of_a_decoder(kind, tmp_path, rng):
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    model = t5(kind, scale=0.5)
    sources = [rng.integers(1, VOCAB, length) for length in SOURCES]
    encoded = model.encode(np.concatenate(sources), offsets(SOURCES))
    cache, new = model.new_cache(encoded), np.zeros(3, np.int64)
    steps = []
    for _ in range(64):
        new = model.logits(new, np.arange(4), cache=cache).argmax(1)
        steps.append(new)
    texts = np.stack(steps, axis=1)
    assert len(set(texts.ravel().tolist())) > 1  # not one token over and over

    models.save(model, tmp_path)
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    settings = transformers.GenerationConfig(
        max_new_tokens=64,
        do_sample=False,
        use_cache=False,  # theirs has as many layers as the encoder
        decoder_start_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    for source, text in zip(sources, texts, strict=True):
        read = models.Encoded(*model.encode(source))
        alone: list[int] = [0]
        for _ in range(64):
            alone.append(int(model.logits(np.array(alone), encoded=read)[-1].argmax()))
        assert alone[1:] == text.tolist()
        ids = torch.tensor(source[None])
        out = theirs.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        assert out[0, 1:].tolist() == text.tolist()


def test_logits_of_a_decoder_need_what_was_read():
    model = t5("relu")
    encoded = model.encode(np.array([1, 2]))
    with pytest.raises(ValueError, match="needs either a cache, or what `encode` returned"):
        model.logits(np.array([0]))
    with pytest.raises(ValueError, match="needs either a cache, or what `encode` returned"):
        model.logits(np.array([0]), encoded=encoded, cache=model.new_cache(encoded))


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda cache: pickle.loads(pickle.dumps(cache)),
}
each_copy = pytest.mark.parametrize("how", COPIES)


@each_backend
@each_copy
@each_model
def test_a_copy_goes_on_by_itself(name, how, backend):
    with using(backend):
        model, cache = drawn(MAKERS[name]()), KVCache(MAKERS[name]().config, 2)
        model.logits(np.array([1, 2, 3, 4, 5]), offsets([3, 2]), cache=cache)
        other = COPIES[how](cache)
        for each, texts in ((other, ([1, 2, 3, 6], [4, 5, 7])), (cache, ([1, 2, 3, 8], [4, 5, 9]))):
            new = np.array([text[-1] for text in texts])
            got = model.logits(new, offsets([1, 1]), cache=each)
            wanted = [model.logits(np.array(text), rows=np.array([-1]))[0] for text in texts]
            assert_equal_logits(got, np.stack(wanted))
        other.select([1, 1, 0])
        got = model.logits(np.full(3, 10), offsets([1, 1, 1]), cache=other)
        assert_equal_logits(got[0], model.logits(np.array([4, 5, 7, 10]))[-1])
        assert_equal_logits(got[2], model.logits(np.array([1, 2, 3, 6, 10]))[-1])
        assert cache.lengths.tolist() == [4, 3]


@each_copy
def test_a_copy_of_a_cache_of_answers_goes_on_by_itself(how):
    model = t5("relu")
    encoded = [model.encode(np.array(text)) for text in ([5, 6, 7], [8, 9])]
    cache = model.new_cache(model.encode(np.array([5, 6, 7, 8, 9]), offsets([3, 2])), 16)
    model.logits(np.zeros(2, int), offsets([1, 1]), cache=cache)
    other = COPIES[how](cache)
    other.select([1, 0])
    got = model.logits(np.array([3, 4]), offsets([1, 1]), cache=other)
    assert_equal_logits(got[0], model.logits(np.array([0, 3]), encoded=encoded[1])[-1])
    assert_equal_logits(got[1], model.logits(np.array([0, 4]), encoded=encoded[0])[-1])
