"""A small byte-pair vocabulary, learnt from captions.

CLIP's tokenizer is a byte-level BPE with an end-of-word mark; a small network wants the same
tokenizer with fewer merges. Learning is done by the `tokenizers` library; what is kept is the list
of merges, the form in which open_clip and ``service.videoclip.tokenizing`` both read a vocabulary.
"""

import json
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

# Where open_clip's SimpleTokenizer cuts words (its pattern without the two special tokens).
WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
BYTES = 256


def learn_merges(texts: Iterable[str], *, count: int) -> list[tuple[str, str]]:
    """The ``count`` most useful merges of a corpus, in the order in which they apply.

    Fewer are returned when the corpus has no more pairs to merge. Equal counts are ordered by the
    library, which is deterministic for one version of it.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=2 * BYTES + count,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.lower() for text in texts), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges[:count]]
