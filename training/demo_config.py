"""What decides the demo model: the tables of ``configs/demo.toml``."""

from dataclasses import dataclass

from training.recipes import clip, open_vclip


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How much is drawn, and how it is filmed."""

    pictures: int
    source_videos: int
    validation_videos: int
    test_videos: int
    pixels: int
    frames: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of both towers; ``merges`` is the most the tokenizer may learn."""

    embed_dim: int
    quick_gelu: bool
    temporal: str
    merges: int
    vision: dict[str, int]
    text: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Everything that decides the demo model."""

    seed: int
    processes: int
    template_set: str
    world: WorldConfig
    network: NetworkConfig
    clip: clip.CLIPSettings
    open_vclip: open_vclip.OpenVCLIPSettings
