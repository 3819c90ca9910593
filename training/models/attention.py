"""Multi-head attention over open_clip's own parameters, with and without neighbouring frames."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def neighbour_attention(attn: nn.MultiheadAttention, x: Tensor, *, queries: int | None) -> Tensor:
    """Attention of every token of frame t over the tokens of frames t-1, t and t+1.

    Open-VCLIP, eq. 3, as its authors' code does it (`expand_temporal_view`): at the two ends of the
    clip the missing neighbour is a block of N keys and N values that are exactly zero, made after
    the projection (so not the bias) and *not* masked: they keep their share of the softmax.

    x: (B, T, N, D) normalised tokens. Only the first `queries` tokens of each frame ask; None: all.
    Returns (B, T, queries, D).
    """
    q, kv = _project(attn, x, queries=queries)
    gather: Callable[[Tensor], Tensor] = (
        _Neighbours.apply if torch.is_grad_enabled() else _with_neighbours
    )
    return _answer(attn, q, gather(kv))


def frame_attention(attn: nn.MultiheadAttention, x: Tensor, *, queries: int | None) -> Tensor:
    """Attention within each frame: plain CLIP. Shapes as in `neighbour_attention`."""
    q, kv = _project(attn, x, queries=queries)
    return _answer(attn, q, kv)


def causal_attention(attn: nn.MultiheadAttention, x: Tensor, *, last: Tensor | None) -> Tensor:
    """Causal attention over text tokens.

    x: (n, L, D) normalised tokens. last: int64 (n,), the only position of each text that asks, or
    None for all. Returns (n, L, D), or (n, 1, D) with `last`.
    """
    n, L, D = x.shape
    split = (attn.num_heads, D // attn.num_heads)
    weight, bias = attn.in_proj_weight, attn.in_proj_bias
    positions = torch.arange(L, device=x.device)
    if last is None:
        q, k, v = F.linear(x, weight, bias).chunk(3, dim=-1)
        seen = positions <= positions.unsqueeze(1)  # (L, L)
    else:
        asking = x.gather(1, last.view(n, 1, 1).expand(n, 1, D))
        q = F.linear(asking, weight[:D], bias[:D])
        k, v = F.linear(x, weight[D:], bias[D:]).chunk(2, dim=-1)
        seen = (positions <= last.unsqueeze(1)).view(n, 1, 1, L)
    q, k, v = (part.reshape(n, -1, *split) for part in (q, k, v))
    out = _attend(q, k, v, seen=seen)
    return F.linear(out, attn.out_proj.weight, attn.out_proj.bias)


def _with_neighbours(x: Tensor) -> Tensor:
    """(B, T, N, C) -> (B, T, 3N, C): the tokens of t-1, t and t+1, zeros beyond the ends."""
    padded = F.pad(x, (0, 0, 0, 0, 1, 1))
    return torch.cat([padded[:, :-2], x, padded[:, 2:]], dim=2)


class _Neighbours(torch.autograd.Function):
    """`_with_neighbours` with a backward pass of three sums, instead of three padded copies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 (torch's signature)
        return _with_neighbours(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004 (torch's signature)
        B, T, _, C = gradient.shape
        before, own, after = gradient.reshape(B, T, 3, -1, C).unbind(2)
        total = own.clone()
        total[:, :-1] += before[:, 1:]
        total[:, 1:] += after[:, :-1]
        return total


def _project(
    attn: nn.MultiheadAttention, x: Tensor, *, queries: int | None
) -> tuple[Tensor, Tensor]:
    """Q of the first `queries` tokens (None: all): (B, T, queries, D). K, V: (B, T, N, 2D)."""
    weight, bias = attn.in_proj_weight, attn.in_proj_bias
    D = x.shape[-1]
    asking = x if queries is None else x[:, :, :queries]
    return F.linear(asking, weight[:D], bias[:D]), F.linear(x, weight[D:], bias[D:])


def _answer(attn: nn.MultiheadAttention, q: Tensor, kv: Tensor) -> Tensor:
    """Attention of q (B, T, Q, D) over kv (B, T, K, 2D), and its output projection (B, T, Q, D)."""
    _, T, Q, D = q.shape
    split = (attn.num_heads, D // attn.num_heads)
    kv = kv.view(-1, kv.shape[2], 2, *split)
    out = _attend(q.reshape(-1, Q, *split), kv[:, :, 0], kv[:, :, 1]).view(-1, T, Q, D)
    return F.linear(out, attn.out_proj.weight, attn.out_proj.bias)


def _attend(q: Tensor, k: Tensor, v: Tensor, *, seen: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, over the keys that are `seen` (None: all).

    q: (n, Q, heads, d); k, v: (n, K, heads, d); seen: bool, broadcast to (n, heads, Q, K).
    Returns (n, Q, D).
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    # torch's fused backward pass in bf16 takes three times as long as two products on a CPU; and
    # an exporter writes fewer nodes for the products than for the fused call.
    slow_backward = torch.is_grad_enabled() and q.device.type == "cpu" and q.dtype == torch.bfloat16
    if slow_backward or torch.compiler.is_exporting():
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if seen is not None:
            scores = scores.masked_fill(~seen, float("-inf"))
        out = torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return out.transpose(1, 2).reshape(-1, q.shape[2], q.shape[1] * q.shape[3])
