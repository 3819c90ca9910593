"""What Text4Vis adds to the visual tower, so that a video is more than a set of frames.

Text4Vis (AAAI 2023), Table 4 and its released code. Its third choice, TAP, is the plain mean over
the frames and needs nothing here: it is what `temporal_head = "none"` means.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.errors import Refusal
from training.models.attention import frame_attention
from training.models.perceptron import mlp
from training.models.towers import open_clip

# Of the released checkpoints: the table of positions is as long as CLIP's texts.
POSITIONS = 77
_LAYERS = 6
_EPSILON = 1e-12
_STD = 0.02


class TemporalTransformer(nn.Module):
    """T-Trans: six pre-norm blocks over the frame embeddings, added to their input.

    Names are those of the released `fusion_model`. No mask, and at first no identity: all weights
    are random.
    """

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        blocks = open_clip().transformer
        self.frame_position_embeddings = nn.Embedding(POSITIONS, width)
        self.transformer = blocks.Transformer(
            width,
            _LAYERS,
            heads,
            act_layer=blocks.QuickGELU,
            norm_layer=functools.partial(blocks.LayerNorm, eps=_EPSILON),
        )
        for module in self.modules():
            # This includes the projection out of an attention; the one into it is no layer of its
            # own, and keeps torch's uniform initialisation (Glorot & Bengio, 2010).
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=_STD)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, frame_embeddings: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), not normalised. Raises Refusal for more than 77 frames."""
        T = frame_embeddings.shape[1]
        if T > POSITIONS:
            raise Refusal(f"t-trans: {T} frames, but it has positions for {POSITIONS}")
        positions = self.frame_position_embeddings.weight[:T].to(frame_embeddings.dtype)
        # The frames of a clip attend to each other as the tokens of a frame do in the tower.
        x = (frame_embeddings + positions).unsqueeze(1)  # (B, 1, T, D)
        for block in self.transformer.resblocks:
            x = x + frame_attention(block.attn, block.ln_1(x), queries=None)
            x = x + mlp(block.mlp, block.ln_2(x))
        return frame_embeddings + x.squeeze(1)


class TokenConvolution(nn.Module):
    """A convolution over time, each channel of a token by itself.

    TokenT1D: of the class token. A block of the visual tower has one of these, and applies it
    twice: before its attention and before its MLP. The residual stream itself is what is convolved.

    T1D: of all tokens, each at its own place in the picture. The paper has it for ResNets only, in
    their last stages (res4, res5), and no code of it was released. What comes nearest in a
    transformer is the later half of the blocks, once in each, on what the attention reads and not
    on the residual stream, as in a ResNet's branch. On the frame embeddings it would do next to
    nothing: the mean over the frames that comes after it is the same in any order.
    """

    def __init__(self, width: int, *, all_tokens: bool = False) -> None:
        super().__init__()
        self.all_tokens = all_tokens
        self.conv = nn.Conv1d(width, width, 3, padding=1, groups=width, bias=False)
        quarter = width // 4
        nn.init.zeros_(self.conv.weight)
        self.conv.weight.data[:quarter, 0, 2] = 1  # from the next frame
        self.conv.weight.data[quarter : 2 * quarter, 0, 0] = 1  # from the one before
        self.conv.weight.data[2 * quarter :, 0, 1] = 1

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, N, D), the class token first. Same shape; beyond the ends there are zeros."""
        before, own, after = self.conv.weight[:, 0].to(x.dtype).unbind(-1)
        chosen = x if self.all_tokens else x[:, :, :1]
        padded = F.pad(chosen, (0, 0, 0, 0, 1, 1))  # (B, T + 2, tokens, D)
        # Three products and not a convolution call: with the weights of the identity this is the
        # identity bit for bit, on every device.
        moved = padded[:, :-2] * before + chosen * own + padded[:, 2:] * after
        return moved if self.all_tokens else torch.cat([moved, x[:, :, 1:]], dim=2)
