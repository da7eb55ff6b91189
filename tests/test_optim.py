"""Optimizers against torch's over many steps; clipping, schedules, state."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evergrad import nn, optim
from op_support import BACKENDS, SEED, each_backend, using

STEPS = 20
WEIGHT_DECAY = 0.1

# Ours, and the same in torch.
RULES = {
    "adam": (lambda flat: optim.Adam(flat, lr=0.01), "Adam", {"lr": 0.01}),
    "adam_decay": (
        lambda flat: optim.Adam(flat, lr=0.01, betas=(0.8, 0.95), weight_decay=WEIGHT_DECAY),
        "Adam",
        {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": WEIGHT_DECAY},
    ),
    "adamw": (
        lambda flat: optim.AdamW(flat, lr=0.01, eps=1e-6, weight_decay=WEIGHT_DECAY),
        "AdamW",
        {"lr": 0.01, "eps": 1e-6, "weight_decay": WEIGHT_DECAY},
    ),
    "sgd": (
        lambda flat: optim.SGD(flat, lr=0.1, weight_decay=WEIGHT_DECAY),
        "SGD",
        {"lr": 0.1, "weight_decay": WEIGHT_DECAY},
    ),
    "sgd_momentum": (
        lambda flat: optim.SGD(flat, lr=0.1, momentum=0.9, dampening=0.1),
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.1},
    ),
    "sgd_nesterov": (
        lambda flat: optim.SGD(
            flat, lr=0.1, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
        ),
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": WEIGHT_DECAY},
    ),
    "rmsprop": (
        lambda flat: optim.RMSprop(flat, lr=0.01, alpha=0.9, weight_decay=WEIGHT_DECAY),
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "weight_decay": WEIGHT_DECAY},
    ),
}

each_rule = pytest.mark.parametrize("rule", RULES)


def drawn_layer() -> nn.Linear:
    layer = nn.Linear(7, 5, rng=np.random.default_rng(SEED))
    nn.flatten_(layer)
    return layer


def gradients(layer: nn.Linear):
    """Gradients of very different sizes, the same at every call."""
    rng = np.random.default_rng(SEED)
    size = layer.flat.grad.size
    for _ in range(STEPS):
        yield (rng.standard_normal(size) * 10 ** rng.uniform(-3, 2, size)).astype(np.float32)


@each_backend
@each_rule
def test_follows_torch(rule, backend):
    torch = pytest.importorskip("torch")
    make, name, settings = RULES[rule]
    layer = drawn_layer()
    optimizer = make(layer.flat)
    # Weight decay is for matrices alone.
    weight, bias = (torch.nn.Parameter(torch.tensor(p.data)) for p in (layer.weight, layer.bias))
    groups = [{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}]
    theirs = getattr(torch.optim, name)(groups, **settings)

    for gradient in gradients(layer):
        layer.flat.grad[:] = gradient
        weight.grad = torch.tensor(layer.weight.grad)
        bias.grad = torch.tensor(layer.bias.grad)
        with using(backend):
            optimizer.step()
        theirs.step()
        np.testing.assert_allclose(layer.weight.data, weight.detach(), 2e-5, 2e-6)
        np.testing.assert_allclose(layer.bias.data, bias.detach(), 2e-5, 2e-6)


@each_rule
def test_grad_scale_multiplies_the_gradient(rule):
    make, _, _ = RULES[rule]
    plain, scaled = drawn_layer(), drawn_layer()
    plain_optimizer, scaled_optimizer = make(plain.flat), make(scaled.flat)
    for gradient in gradients(plain):
        plain.flat.grad[:] = gradient * np.float32(0.25)
        plain_optimizer.step()
        scaled.flat.grad[:] = gradient
        scaled_optimizer.step(grad_scale=0.25)
    np.testing.assert_array_equal(scaled.flat.data, plain.flat.data)


@pytest.mark.parametrize("backend", [each for each in BACKENDS if each.startswith("native:")])
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "sgd"])  # which has none
def test_averages_that_fade_end_at_zero(rule, backend):
    """A subnormal number would stay for ever, at ten times the price of another."""
    make, _, _ = RULES[rule]
    layer = drawn_layer()
    optimizer = make(layer.flat)
    layer.flat.grad[:] = 0
    optimizer.step()  # so that no buffer is new
    for buffer in optimizer.buffers.values():
        buffer[:] = 1e-40
    with using(backend):
        optimizer.step()
    for buffer in optimizer.buffers.values():
        size = np.abs(buffer)
        assert not ((size > 0) & (size < np.finfo(np.float32).tiny)).any()
    assert (np.full(64, 1e-40, np.float32) * np.float32(0.5)).all()  # elsewhere they still count


@pytest.mark.parametrize("eps", [0.0, 1e-40, 1e-30])
@each_backend
def test_squares_of_tiny_gradients_count_beside_a_tiny_epsilon(backend, eps):
    layer = drawn_layer()
    optimizer = optim.Adam(layer.flat, lr=0.25, eps=eps)
    before = layer.flat.data.copy()
    layer.flat.grad[:] = 1e-20  # its square is subnormal
    with using(backend):
        optimizer.step()
    np.testing.assert_allclose(layer.flat.data, before - 0.25, rtol=0.05, atol=0.01)


@each_rule
def test_resumes_bit_for_bit(rule):
    make, _, _ = RULES[rule]
    whole, resumed = drawn_layer(), drawn_layer()
    optimizer = make(whole.flat)
    for step, gradient in enumerate(gradients(whole)):
        if step == STEPS // 2:
            optimizer.lr *= 0.5
            saved = {name: np.copy(value) for name, value in optimizer.state_dict().items()}
            resumed.flat.data[:] = whole.flat.data
        whole.flat.grad[:] = gradient
        optimizer.step()

    optimizer = make(resumed.flat)
    optimizer.load_state_dict(saved)
    for gradient in list(gradients(resumed))[STEPS // 2 :]:
        resumed.flat.grad[:] = gradient
        optimizer.step()
    np.testing.assert_array_equal(resumed.flat.data, whole.flat.data)


def test_weight_decay_leaves_vectors_alone():
    layer = drawn_layer()
    weight, bias = layer.weight.data.copy(), layer.bias.data.copy()
    optim.AdamW(layer.flat, lr=0.1, weight_decay=0.5).step()
    np.testing.assert_allclose(layer.weight.data, 0.95 * weight, rtol=1e-6)
    np.testing.assert_array_equal(layer.bias.data, bias)


def test_zero_grad():
    layer = drawn_layer()
    layer.flat.grad[:] = 1
    optim.SGD(layer.flat).zero_grad()
    assert not layer.weight.grad.any()


def test_state_must_fit():
    layer = drawn_layer()
    adam = optim.Adam(layer.flat)
    with pytest.raises(ValueError, match="state of Adam has entries"):
        adam.load_state_dict(optim.RMSprop(layer.flat).state_dict())
    state = adam.state_dict() | {"exp_avg": np.zeros(3)}
    with pytest.raises(ValueError, match=r"exp_avg: got shape \(3,\), expected \(40,\)"):
        adam.load_state_dict(state)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": "abc"}, "steps: expected an integer of at least 0, got 'abc'"),
        ({"steps": 2.7}, "steps: expected an integer of at least 0, got 2.7"),
        ({"steps": -5}, "steps: expected an integer of at least 0, got -5"),
        ({"lr": None}, "lr: expected a finite number of at least 0, got None"),
        ({"lr": math.nan}, "lr: expected a finite number of at least 0, got nan"),
        ({"lr": -1e-3}, "lr: expected a finite number of at least 0, got -0.001"),
        ({"last": np.full(40, 1j)}, "got complex128, expected float32"),
        ({"last": np.full(40, "a")}, "got <U1, expected float32"),
    ],
)
@pytest.mark.parametrize("rule", ["adam", "sgd_momentum", "rmsprop"])
def test_a_state_that_does_not_fit_changes_nothing(rule, changed, message):
    optimizer = RULES[rule][0](drawn_layer().flat)
    names = list(optimizer.buffers)
    if "last" in changed:
        changed = {names[-1]: changed["last"]}
    state = {"steps": 3, "lr": 0.5} | {name: np.full(40, 7, np.float32) for name in names}
    before = {name: np.copy(value) for name, value in optimizer.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state | changed)
    for name, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    optimizer.load_state_dict(state)
    assert (optimizer.steps, optimizer.lr) == (3, 0.5)


@each_rule
def test_a_step_that_is_refused_does_not_count(rule):
    layer = drawn_layer()
    optimizer = RULES[rule][0](layer.flat)
    layer.flat.grad[:] = 1
    before = layer.flat.data.copy()
    for lr in (math.nan, math.inf, -0.1, None):
        optimizer.lr = lr
        with pytest.raises(ValueError, match=f"lr: expected a finite number of .* 0, got {lr}"):
            optimizer.step()
    optimizer.lr = 0.1
    with pytest.raises(ValueError, match="grad_scale: expected a finite number, got nan"):
        optimizer.step(grad_scale=math.nan)
    optimizer.weight_decay = math.nan
    with pytest.raises(ValueError, match="weight_decay"):
        optimizer.step()
    assert optimizer.steps == 0
    np.testing.assert_array_equal(layer.flat.data, before)


def test_an_optimizer_of_former_buffers_says_so():
    layer = drawn_layer()
    optimizer = optim.Adam(layer.flat)
    layer.freeze("bias")
    with pytest.raises(RuntimeError, match="make a new optimizer"):
        optimizer.step()


NONSENSE = [math.nan, math.inf, -1e-3, None, "much"]


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        *(
            (rule, {name: value})
            for rule in (optim.SGD, optim.RMSprop, optim.Adam, optim.AdamW)
            for name in ("lr", "weight_decay")
            for value in NONSENSE
        ),
        *((rule, {"eps": value}) for rule in (optim.RMSprop, optim.Adam) for value in NONSENSE),
        *((optim.RMSprop, {"alpha": value}) for value in (1.0, *NONSENSE)),
        *((optim.SGD, {"momentum": value}) for value in (1.0, *NONSENSE)),
        *((optim.SGD, {"momentum": 0.9, "dampening": value}) for value in (1.0, *NONSENSE)),
        *((optim.Adam, {"betas": (value, 0.9)}) for value in (1.0, *NONSENSE)),
        *((optim.Adam, {"betas": (0.9, value)}) for value in (1.0, *NONSENSE)),
        *((optim.Adam, {"betas": value}) for value in (0.9, (0.9,), (0.9, 0.9, 0.9))),
    ],
)
def test_settings_out_of_range_are_named(rule, settings):
    with pytest.raises(ValueError, match=f"^{list(settings)[-1]}: expected "):
        rule(drawn_layer().flat, **settings)


def test_a_learning_rate_may_be_0():
    layer = drawn_layer()
    before = layer.flat.data.copy()
    layer.flat.grad[:] = 1
    optim.AdamW(layer.flat, lr=0, betas=[0, 0], eps=0.5, weight_decay=0.1).step()
    np.testing.assert_array_equal(layer.flat.data, before)


@pytest.mark.parametrize("given", [lambda layer: layer, lambda layer: layer.parameters()])
def test_an_optimizer_takes_flat_buffers_alone(given):
    with pytest.raises(TypeError, match=r"flat: expected .*\(model.flat.*\), got "):
        optim.AdamW(given(drawn_layer()))


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match="nesterov needs momentum"):
        optim.SGD(drawn_layer().flat, nesterov=True)


# Clipping.


@pytest.mark.parametrize("max_norm", [0.5, 1.0, 1e6])
def test_clip_scale_follows_torch(max_norm):
    torch = pytest.importorskip("torch")
    grad = np.random.default_rng(SEED).standard_normal(1000).astype(np.float32)
    parameter = torch.nn.Parameter(torch.zeros(1000))
    parameter.grad = torch.tensor(grad)
    expected_norm = torch.nn.utils.clip_grad_norm_([parameter], max_norm)
    norm, scale = optim.clip_scale(grad, max_norm)
    assert norm == pytest.approx(float(expected_norm), rel=1e-6)
    np.testing.assert_allclose(grad * scale, parameter.grad, rtol=1e-6)


def test_clip_scale_without_a_limit_measures_only():
    assert optim.clip_scale(np.array([3.0, 4.0], np.float32), None) == (5.0, 1.0)


def test_clip_scale_does_not_hide_nan():
    norm, scale = optim.clip_scale(np.array([1.0, np.nan], np.float32), 1.0)
    assert math.isnan(norm)
    assert math.isnan(scale)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, float("nan")])
def test_clip_scale_needs_a_positive_limit(max_norm):
    with pytest.raises(ValueError, match="max_norm must be > 0"):
        optim.clip_scale(np.ones(3, np.float32), max_norm)


# Schedules.

each_schedule = pytest.mark.parametrize(
    "schedule", [optim.linear_warmup_cosine, optim.linear, optim.constant]
)


@each_schedule
def test_schedules_rise_to_the_peak_and_never_leave_their_range(schedule):
    rates = [schedule(step, 100, 10, 3.0, 0.3) for step in range(120)]
    assert rates[0] == 0
    assert rates[10] == max(rates) == 3.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


@each_schedule
def test_schedules_do_not_depend_on_the_unit(schedule):
    for step in range(0, 120, 7):
        in_updates = schedule(step, 100, 10, 3.0, 0.3)
        assert schedule(step / 100, 1.0, 0.1, 3.0, 0.3) == pytest.approx(in_updates)


@pytest.mark.parametrize("schedule", [optim.linear_warmup_cosine, optim.linear])
def test_schedules_end_at_the_floor(schedule):
    assert schedule(100, 100, 10, 3.0, 0.3) == pytest.approx(0.3)
    assert schedule(1000, 100, 10, 3.0, 0.3) == pytest.approx(0.3)
    assert schedule(55, 100, 10, 3.0, 0.3) == pytest.approx(1.65)  # half way


@each_schedule
def test_schedules_without_warmup_start_at_the_peak(schedule):
    assert schedule(0, 100, 0, 3.0, 0.3) == 3.0


@each_schedule
@pytest.mark.parametrize("name", ["step", "total", "warmup"])
@pytest.mark.parametrize("value", [-1, math.nan])
def test_schedules_refuse_what_is_no_length(schedule, name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a number of at least 0, got {value}"):
        schedule(**({"step": 5, "total": 100, "warmup": 10, "peak": 1.0} | {name: value}))


@each_schedule
def test_schedules_without_steps(schedule):
    assert schedule(0, 0, 0, 3.0, 0.3) == (3.0 if schedule is optim.constant else 0.3)
    assert schedule(1, 1, 0, 3.0, 0.3) == (3.0 if schedule is optim.constant else 0.3)
    assert schedule(2, 3, 4, 3.0, 0.3) == 1.5  # a rise longer than all the rest
