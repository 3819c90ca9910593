"""`nice python -m tests.benchmarks.random_artefact STORE [MODEL]`: an artefact of full size.

Both towers, graphs, tokenizer and weight files of MODEL (ViT-B-16-quickgelu if none is named) as
`training publish` writes them, with random weights: as fast and as large as trained ones, and
nothing else. Each graph is compared with its network at one lambda and one clip only, instead of
at three and up to five, which is what makes publishing slow. Prints the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.tokenizing import build_tokenizer_json

MODEL = "ViT-B-16-quickgelu"


def publish_random(root: Path, model: str = MODEL) -> Path:
    """Publish an artefact of the size of `model` with random weights below `root`."""
    from training import parity
    from training.artefact import Description
    from training.models.endpoints import clip_end
    from training.models.network import build, describe
    from training.publish import publish
    from training.pull import _open_clip_merges

    vars(parity).update(CLIP_WEIGHTS=(0.0,), BATCHES=(1,))
    architecture = {**describe(model), "temporal": "none"}
    tuned = build(architecture, seed=2).state_dict()
    description = Description(
        name="random",
        recipe="random weights",
        architecture=architecture,
        sampling=Sampling(mode="uniform", frames=8),
        preprocessing=Preprocessing(
            image_size=224, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)
        ),
        tokenizer_json=build_tokenizer_json(_open_clip_merges()),
        template_set="kinetics",
        licence="Apache-2.0",
        pooling="mean_then_normalize",
    )
    clip = clip_end(architecture, build(architecture, seed=1).state_dict(), tuned)
    return publish(description, clip=clip, tuned=tuned, store=root, real_texts=("a dog",))


if __name__ == "__main__":
    print(publish_random(Path(sys.argv[1]), *sys.argv[2:3]))
