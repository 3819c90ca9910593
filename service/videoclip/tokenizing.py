"""CLIP's tokenizer without torch and without open_clip: text -> token ids.

`Tokenizer` reads the artefact's tokenizer.json with the `tokenizers` library;
`build_tokenizer_json` writes that file from a list of merges. Both are proven equal to
`open_clip.tokenizer.SimpleTokenizer` (open_clip 3.3.0) by the tests.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

import ftfy
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as _RustTokenizer

START = "<start_of_text>"
END = "<end_of_text>"

# SimpleTokenizer's expression. It is used there without regard to case, on text that is already
# lower case. What this still adds is the long s, as in "'ſ", and the combining iota U+0345, whose
# other case is a letter: there it matches nothing and is dropped. Letters and digits are those of
# the Unicode version that the library knows; code points that it does not know yet may be split
# in another way than by open_clip.
_WORDS = (
    r"<[sſ]tart_of_text>|<end_of_text>|'[sſ]|'t|'re|'ve|'m|'ll|'d"
    r"|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"
)


class Tokenizer:
    """Text to token ids, as CLIP's text tower expects them.

    Args:
        path: tokenizer.json of an artefact.
        context_length: most tokens of a text, start and end included.

    Raises:
        ValueError: the file is no tokenizer, or lacks the start and end tokens.
    """

    def __init__(self, path: Path, context_length: int) -> None:
        if context_length < 2:
            raise ValueError(f"context_length: {context_length} is below 2")
        try:
            self._tokenizer = _RustTokenizer.from_file(str(path))
        except Exception as error:
            raise ValueError(f"{path.name}: not a tokenizer file ({error})") from error
        start, end = self._tokenizer.token_to_id(START), self._tokenizer.token_to_id(END)
        if start is None or end is None:
            raise ValueError(f"{path.name}: has no {START} or no {END} token")
        self.context_length = context_length
        self.vocabulary_size = self._tokenizer.get_vocab_size()
        self.start_id: int = start
        self.end_id: int = end

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Token ids of `texts`: start, words, end; then zeros.

        The array is only as wide as the longest text needs: the text tower is causal, so
        what follows the end token changes nothing (Open-VCLIP and CLIP pad to 77).

        Args:
            texts: any strings; an empty one gives start and end.

        Returns:
            int64 (n, L) with L <= `context_length`, and bool (n,): True where a text was cut.
            A cut text ends with the end token.
        """
        rows = self._rows([clean(text) for text in texts])
        truncated = np.array([len(row) > self.context_length for row in rows], dtype=np.bool_)
        width = min(max((len(row) for row in rows), default=2), self.context_length)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        for row, target, cut in zip(rows, ids, truncated, strict=True):
            if cut:
                target[:] = [*row[: width - 1], self.end_id]
            else:
                target[: len(row)] = row
        return ids, truncated

    def _rows(self, cleaned: list[str]) -> list[list[int]]:
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(cleaned)]
        for number, text in enumerate(cleaned):
            if START in text or END in text:
                rows[number] = self._row_with_specials(text)
        return rows

    def _row_with_specials(self, text: str) -> list[int]:
        """SimpleTokenizer takes the names of its special tokens in a text for the tokens."""
        words = self._tokenizer.pre_tokenizer.pre_tokenize_str(text)
        row = [self.start_id]
        for word, _ in words:
            if word == START:
                row.append(self.start_id)
            elif word == END:
                row.append(self.end_id)
            else:
                row.extend(token.id for token in self._tokenizer.model.tokenize(word))
        return [*row, self.end_id]


def clean(text: str) -> str:
    """Text as CLIP's tokenizer sees it: mended, unescaped, single spaces, lower case."""
    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(mended.split()).lower()


def build_tokenizer_json(merges: Sequence[tuple[str, str]]) -> str:
    """The tokenizer.json of a CLIP byte-level BPE with these merges.

    Ids are those of SimpleTokenizer: 256 bytes, 256 bytes that end a word, one for each merge,
    start, end. The file does not clean text (`clean` does), because the library's own
    normalizers differ from Python's lower case and from ftfy.

    Args:
        merges: pairs in the order of their rank, e.g. ``[("t", "h"), ("th", "e</w>")]``; as in a
            CLIP merges file after its first line, which must not end in an empty line.

    Raises:
        ValueError: a pair is not made of tokens that exist when it is reached.
    """
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    known = set(tokens)
    for rank, pair in enumerate(merges):
        if len(pair) != 2 or any(part not in known for part in pair):
            raise ValueError(f"merge {rank}: {pair!r} is not a pair of known tokens")
        tokens.append("".join(pair))
        known.add(tokens[-1])
    tokens += [START, END]
    # Two merges may make the same token: the later id wins, as in SimpleTokenizer.
    vocabulary = {token: number for number, token in enumerate(tokens)}
    words = {"Regex": _WORDS}
    document: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": words, "behavior": "Removed", "invert": True},
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                    "use_regex": False,
                },
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": START, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": END, "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {
                name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]}
                for name in (START, END)
            },
        },
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in merges],
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"


def _byte_alphabet() -> list[str]:
    """The letters that stand for the 256 bytes, in CLIP's order: first the printable ones."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = len([byte for byte in range(256) if byte not in printable])
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(others)]
