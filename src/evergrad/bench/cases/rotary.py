"""Rotary positions, halves and interleaved."""

from __future__ import annotations

from typing import Any

from evergrad import ops
from evergrad.bench.cases.draw import Generator, integers, normal, over, pytorch
from evergrad.bench.op import Op


def draw_rotary(
    rng: Generator,
    tokens: tuple[int, ...],
    heads: int,
    head_dim: int,
    turned: int | None = None,
    interleaved: bool = False,
    positions: bool = False,
) -> dict[str, Any]:
    """`tokens`: (batch, tokens), or (total,); `turned`: how many numbers of a head are."""
    length = tokens[-1] + 3
    cos, sin = ops.rotary_table(length, head_dim if turned is None else turned, theta=100.0)
    return dict(
        x=normal(rng, *tokens, heads, head_dim),
        cos=cos,
        sin=sin,
        interleaved=interleaved,
        positions=integers(rng, length, *tokens) if positions else None,
    )


def torch_rotary(F: Any, t: Any) -> Any:
    """As models do it: the tables are laid out once, for all layers and steps. Neighbours are
    turned as complex numbers; halves meet each other by a roll, with the sign in the sines."""
    torch = pytorch()
    d = t.cos.shape[1]
    rows = torch.arange(t.x.shape[-3]) if t.positions is None else t.positions
    cos, sin = t.cos[rows][..., None, :], t.sin[rows][..., None, :]
    turns = torch.complex(cos, sin)
    both, signed = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)

    def turned(x: Any) -> Any:
        if t.interleaved:
            pairs = torch.view_as_complex(x.contiguous().unflatten(-1, (d, 2)))
            return torch.view_as_real(pairs * turns).flatten(-2)
        return torch.addcmul(x * both, x.roll(d, -1), signed)

    if 2 * d == t.x.shape[-1]:
        return lambda: turned(t.x)
    return lambda: torch.cat((turned(t.x[..., : 2 * d]), t.x[..., 2 * d :]), -1)


def rotary(variant: str, shape: str, plain: tuple[int, ...]) -> Op:
    per_head = f"{shape} heads dim"
    dims = dict(tokens=plain, heads=3, head_dim=6, positions=True)
    return Op(
        name="rotary",
        variant=variant,
        draw=draw_rotary,
        shapes=dict(
            x=per_head, out=per_head, dout=per_head, dx=per_head,
            cos="length half", sin="length half", positions=shape,
        ),
        strided=("x", "out", "dout", "dx"),
        tests=[
            dims,
            dict(dims, interleaved=True),
            *over("head_dim", (2, 8, 14, 16, 18, 30, 64, 66, 128, 130, 258),
                  tokens=plain, heads=2),
            *over("head_dim", (2, 8, 14, 16, 18, 30, 64, 66, 128, 130, 258),
                  tokens=plain, heads=2, interleaved=True),
            *over("turned", (0, 2, 16, 18), tokens=plain, heads=2, head_dim=21),
            *over("turned", (0, 2, 16, 18), tokens=plain, heads=2, head_dim=21, interleaved=True),
            dict(tokens=(0,) * len(plain), heads=2, head_dim=8),
        ],
        large=dict(tokens=(*plain[:-1], 300), heads=5, head_dim=64, positions=True),
        bench=[
            dict(tokens=(1024,) if len(plain) == 1 else (2, 512), heads=12, head_dim=64),
            dict(tokens=(1024,) if len(plain) == 1 else (2, 512), heads=12, head_dim=64,
                 interleaved=True),
        ],
        flops=lambda c: 6 * c.x.shape[-3] * c.x.shape[-2] * c.cos.shape[1],
        backward_flops=1.0,
        bytes=lambda c: 2 * c.x.nbytes + c.x.shape[-3] * c.cos.shape[1] * 8,
        grads=dict(x="dx"),
        bounds=dict(positions=lambda c: len(c.cos)),
        relative=(),
        torch=torch_rotary,
    )  # fmt: skip


ROTARY = rotary("", "batch tokens", (2, 5))
ROTARY_PACKED = rotary("packed", "total", (7,))
