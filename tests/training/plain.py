"""The towers restated from the papers' formulas: every token in every layer, nothing saved.

Written with torch's own layers (`nn.MultiheadAttention`, `F.conv1d`) and loops where they are
obvious; it shares no code with `training.models`, only the weights.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.models.network import VideoCLIP


def plain_frames(network: VideoCLIP, clips: Tensor) -> Tensor:
    """(B, T, 3, S, S) -> (B, T, D): Open-VCLIP's attention, ViFi-CLIP's prompts, Text4Vis's heads.

    As the authors' code does it: prompts are tokens like any others until a layer overwrites them.
    """
    B, T = clips.shape[:2]
    visual = network.visual
    state = dict(network.state_dict(keep_vars=True))
    context, deep = state.get("visual.prompts.context"), state.get("visual.prompts.deep")
    x = _embed(visual, clips, context)
    for i, block in enumerate(visual.transformer.resblocks):
        if deep is not None and 0 < i <= len(deep):
            kept = x[:, : x.shape[1] - deep.shape[1]]
            x = torch.cat([kept, deep[i - 1].expand(B * T, -1, -1)], dim=1)
        kernel = state.get(f"visual.transformer.resblocks.{i}.control_point.conv.weight")
        every = network.temporal_head == "t1d"
        x = x if every else _shift(x, kernel, T=T)
        y = block.ln_1(_shift_all(x, kernel, T=T) if every else x)
        if network.temporal == "neighbour":
            x = x + _neighbours(block.attn, y, T=T)
        else:
            x = x + _attention(block.attn, y, y)
        x = x if every else _shift(x, kernel, T=T)
        x = x + block.mlp(block.ln_2(x))
    out = (visual.ln_post(x)[:, 0] @ visual.proj).view(B, T, -1)
    return _t_trans(visual.temporal_head, out) if network.temporal_head == "t-trans" else out


def plain_texts(network: VideoCLIP, texts: list[list[int]], *, context_length: int) -> Tensor:
    """One text at a time, without its padding: (n, D)."""
    state = dict(network.state_dict(keep_vars=True))
    context, deep = state.get("prompts.context"), state.get("prompts.deep")
    found = []
    for text in texts:
        words = network.token_embedding(torch.tensor(text))
        if context is not None:
            words = torch.cat([words[:1], context, words[1:]])
        assert len(words) <= context_length
        x = (words + network.positional_embedding[: len(words)]).unsqueeze(0)
        mask = torch.full((len(words), len(words)), float("-inf")).triu(1)
        for i, block in enumerate(network.transformer.resblocks):
            if deep is not None and 0 < i <= len(deep):
                x = x.clone()
                x[:, 1 : 1 + deep.shape[1]] = deep[i - 1]
            y = block.ln_1(x)
            x = x + _attention(block.attn, y, y, mask=mask)
            x = x + block.mlp(block.ln_2(x))
        found.append(network.ln_final(x[0, -1]) @ network.text_projection)
    return torch.stack(found)


def _embed(visual: Any, clips: Tensor, context: Tensor | None) -> Tensor:
    """Prompts come after the positions were added, and before the first norm."""
    x = visual.conv1(clips.flatten(0, 1)).flatten(2).transpose(1, 2)
    n = len(x)
    x = torch.cat([visual.class_embedding.expand(n, 1, -1), x], dim=1)
    x = x + visual.positional_embedding
    if context is not None:
        x = torch.cat([x, context.expand(n, -1, -1)], dim=1)
    out: Tensor = visual.ln_pre(x)
    return out


def _attention(attn: Any, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """nn.MultiheadAttention itself, which is (batch, tokens, width) in open_clip or not."""
    q, k = (queries, keys) if attn.batch_first else (queries.transpose(0, 1), keys.transpose(0, 1))
    out: Tensor = attn(q, k, k, need_weights=False, attn_mask=mask)[0]
    return out if attn.batch_first else out.transpose(0, 1)


def _neighbours(attn: Any, y: Tensor, *, T: int) -> Tensor:
    """K and V of t+1, t-1 and t side by side; zeros, not masked, where there is none."""
    n, N, D = y.shape
    heads, d = attn.num_heads, D // attn.num_heads
    q, k, v = (
        F.linear(y, attn.in_proj_weight, attn.in_proj_bias)
        .view(n // T, T, N, 3 * D)
        .chunk(3, dim=-1)
    )
    nothing = torch.zeros(n // T, N, D)
    out = []
    for t in range(T):
        sides = []
        for z in (k, v):
            after = z[:, t + 1] if t + 1 < T else nothing
            before = z[:, t - 1] if t > 0 else nothing
            z = torch.cat([after, before, z[:, t]], dim=1)
            sides.append(z.view(-1, 3 * N, heads, d).transpose(1, 2))
        queries = q[:, t].reshape(-1, N, heads, d).transpose(1, 2)
        weights = (queries @ sides[0].transpose(-1, -2) / d**0.5).softmax(-1)
        out.append((weights @ sides[1]).transpose(1, 2).reshape(-1, N, D))
    result: Tensor = attn.out_proj(torch.stack(out, dim=1).view(n, N, D))
    return result


def _shift(x: Tensor, kernel: Tensor | None, *, T: int) -> Tensor:
    """Convolve the class token over time, channel by channel."""
    if kernel is None:
        return x
    first = x[:, 0].view(-1, T, x.shape[2]).transpose(1, 2)
    moved = F.conv1d(first, kernel, padding=1, groups=x.shape[2]).transpose(1, 2)
    out = x.clone()
    out[:, 0] = moved.reshape(-1, x.shape[2])
    return out


def _shift_all(x: Tensor, kernel: Tensor | None, *, T: int) -> Tensor:
    """Convolve every token over time, channel by channel, one token after another."""
    out = x.clone()
    for token in range(x.shape[1]):
        out[:, token] = _shift(x[:, token : token + 1], kernel, T=T)[:, 0]
    return out


def _t_trans(head: Any, frames: Tensor) -> Tensor:
    """Six pre-norm encoder layers of torch's own, with QuickGELU."""
    D = frames.shape[2]
    x = frames + head.frame_position_embeddings(torch.arange(frames.shape[1]))
    for block in head.transformer.resblocks:
        layer = torch.nn.TransformerEncoderLayer(
            D,
            block.attn.num_heads,
            dim_feedforward=4 * D,
            dropout=0.0,
            activation=lambda y: y * torch.sigmoid(1.702 * y),
            layer_norm_eps=1e-12,
            batch_first=True,
            norm_first=True,
        )
        weights = {
            "self_attn.in_proj_weight": block.attn.in_proj_weight,
            "self_attn.in_proj_bias": block.attn.in_proj_bias,
            "self_attn.out_proj.weight": block.attn.out_proj.weight,
            "self_attn.out_proj.bias": block.attn.out_proj.bias,
            "linear1.weight": block.mlp.c_fc.weight,
            "linear1.bias": block.mlp.c_fc.bias,
            "linear2.weight": block.mlp.c_proj.weight,
            "linear2.bias": block.mlp.c_proj.bias,
            "norm1.weight": block.ln_1.weight,
            "norm1.bias": block.ln_1.bias,
            "norm2.weight": block.ln_2.weight,
            "norm2.bias": block.ln_2.bias,
        }
        assert set(weights) == set(layer.state_dict())
        x = torch.func.functional_call(layer, weights, (x,))
    assert isinstance(x, Tensor)
    return frames + x
