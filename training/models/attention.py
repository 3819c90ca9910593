"""Multi-head attention over open_clip's own parameters, with and without neighbouring frames."""

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
    B, T, N, D = x.shape
    heads = attn.num_heads
    split = (heads, D // heads)
    q, kv = _project(attn, x, queries=queries)
    if torch.is_grad_enabled():
        # One call for all frames: the slices below would each cost a zero-filled gradient.
        k, v = _Neighbours.apply(kv).flatten(0, 1).chunk(2, dim=-1)  # (B*T, 3N, D)
        out = _attend(
            q.reshape(B * T, -1, *split), k.unflatten(-1, split), v.unflatten(-1, split)
        ).view(B, T, -1, D)
    else:
        # One padded copy; every frame's three neighbours are then a view of it.
        q = q.unflatten(-1, split)
        k, v = F.pad(kv, (0, 0, 0, 0, 1, 1)).view(B, (T + 2) * N, 2 * D).chunk(2, dim=-1)
        frames = []
        for t in range(T):
            window = slice(t * N, (t + 3) * N)
            keys, values = k[:, window].unflatten(-1, split), v[:, window].unflatten(-1, split)
            frames.append(_attend(q[:, t], keys, values))
        out = torch.stack(frames, dim=1)
    return F.linear(out, attn.out_proj.weight, attn.out_proj.bias)


def frame_attention(attn: nn.MultiheadAttention, x: Tensor, *, queries: int | None) -> Tensor:
    """Attention within each frame: plain CLIP. Shapes as in `neighbour_attention`."""
    B, T, _, D = x.shape
    split = (attn.num_heads, D // attn.num_heads)
    q, kv = _project(attn, x, queries=queries)
    k, v = kv.flatten(0, 1).chunk(2, dim=-1)
    out = _attend(q.reshape(B * T, -1, *split), k.unflatten(-1, split), v.unflatten(-1, split))
    return F.linear(out.view(B, T, -1, D), attn.out_proj.weight, attn.out_proj.bias)


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
    q, k, v = (part.unflatten(-1, split).transpose(1, 2) for part in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
    return F.linear(out, attn.out_proj.weight, attn.out_proj.bias)


class _Neighbours(torch.autograd.Function):
    """(B, T, N, C) -> (B, T, 3N, C): the tokens of t-1, t and t+1, zeros beyond the ends."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        B, T, N, C = x.shape
        out = x.new_zeros(B, T, 3, N, C)
        out[:, 1:, 0] = x[:, :-1]
        out[:, :, 1] = x
        out[:, :-1, 2] = x[:, 1:]
        return out.view(B, T, 3 * N, C)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        before, own, after = gradient.unflatten(2, (3, -1)).unbind(2)
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


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v. q: (n, Q, heads, d); k, v: (n, K, heads, d). -> (n, Q, D)."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if torch.is_grad_enabled() and q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # torch's fused backward pass in bf16 takes three times as long as these products on a CPU.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        out = torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).flatten(2)
