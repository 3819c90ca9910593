"""Multi-head attention over open_clip's own parameters, with and without neighbouring frames."""

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
    q, k, v = _project(attn, x, queries=queries)
    q = q.view(B, T, -1, heads, D // heads)
    # One padded copy of K and V; each frame's three neighbours are then a view of it: (B, 3N, D).
    k = F.pad(k, (0, 0, 0, 0, 1, 1)).flatten(1, 2)
    v = F.pad(v, (0, 0, 0, 0, 1, 1)).flatten(1, 2)
    answers = []
    for t in range(T):
        window = slice(t * N, (t + 3) * N)
        answers.append(
            F.scaled_dot_product_attention(
                q[:, t].transpose(1, 2),
                k[:, window].view(B, 3 * N, heads, D // heads).transpose(1, 2),
                v[:, window].view(B, 3 * N, heads, D // heads).transpose(1, 2),
            ).transpose(1, 2)
        )
    out = torch.stack(answers, dim=1).flatten(3)  # (B, T, queries, D)
    return F.linear(out, attn.out_proj.weight, attn.out_proj.bias)


def frame_attention(attn: nn.MultiheadAttention, x: Tensor, *, queries: int | None) -> Tensor:
    """Attention within each frame: plain CLIP. Shapes as in `neighbour_attention`."""
    B, T, _, D = x.shape
    heads = attn.num_heads
    q, k, v = (
        part.reshape(B * T, -1, heads, D // heads).transpose(1, 2)
        for part in _project(attn, x, queries=queries)
    )
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, -1, D)
    return F.linear(out, attn.out_proj.weight, attn.out_proj.bias)


def causal_attention(attn: nn.MultiheadAttention, x: Tensor, *, last: Tensor | None) -> Tensor:
    """Causal attention over text tokens.

    x: (n, L, D) normalised tokens. last: int64 (n,), the only position of each text that asks, or
    None for all. Returns (n, L, D), or (n, 1, D) with `last`.
    """
    n, L, D = x.shape
    heads = attn.num_heads
    split = (n, -1, heads, D // heads)
    if last is None:
        q, k, v = (p.reshape(split).transpose(1, 2) for p in _project(attn, x, queries=None))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        weight, bias = attn.in_proj_weight, attn.in_proj_bias
        asking = x.gather(1, last.view(n, 1, 1).expand(n, 1, D))
        q = F.linear(asking, weight[:D], bias[:D]).reshape(split).transpose(1, 2)
        kv = F.linear(x, weight[D:], bias[D:])
        k, v = (p.reshape(split).transpose(1, 2) for p in kv.chunk(2, dim=-1))
        seen = torch.arange(L, device=x.device) <= last.unsqueeze(1)  # (n, L)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen.view(n, 1, 1, L))
    out = out.transpose(1, 2).reshape(n, -1, D)
    return F.linear(out, attn.out_proj.weight, attn.out_proj.bias)


def _project(
    attn: nn.MultiheadAttention, x: Tensor, *, queries: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Q of the first `queries` tokens (None: all), K and V of all: each (B, T, tokens, D)."""
    weight, bias = attn.in_proj_weight, attn.in_proj_bias
    if queries is None:
        q, k, v = F.linear(x, weight, bias).chunk(3, dim=-1)
        return q, k, v
    D = x.shape[-1]
    q = F.linear(x[..., :queries, :], weight[:D], bias[:D])
    k, v = F.linear(x, weight[D:], bias[D:]).chunk(2, dim=-1)
    return q, k, v
