"""The tokenizer against open_clip's."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.videoclip.tokenizing import Tokenizer, build_tokenizer_json, clean
from training.models.towers import open_clip

CORPUS = (
    "",
    " ",
    "\t\n\r ",
    "a diagram",
    "A Person Riding a Horse!",
    "it's he'll they've we're I'm she'd can't 'twas 's 'S 'ſ",
    "x2 4711 3.14 ١٢٣ Ⅷ ½ ²",
    "naïve café Ångström ǅ İstanbul ΑΣ straße ﬁne ﬆop",
    "e\u0301 e\u0301\u0301 a\u0345b \u0345",
    "狗在滑板上 滑板をする犬 스케이트보드 강아지",
    "كلب على لوح تزلج",
    "\u202eabc\u202c \u200fשלום\u200e",
    "🐶🛹 👩🏽‍🚒 🏳️‍🌈 ❤️ 🇫🇷",
    "&lt;b&gt; &amp;amp; &#128054; &#0; &nbsp;x &notanentity; &#xD800;",
    "<start_of_text>",
    "<end_of_text>",
    "a <start_of_text> b<end_of_text>c",
    "!<start_of_text> <<end_of_text>>",
    "<START_OF_TEXT> <ſtart_of_text> &lt;end_of_text&gt;",
    "<|startoftext|> <|endoftext|> </w> a</w>",
    "nul\x00bell\x07esc\x1b[31m del\x7f unit\x1fsep\x85nel",
    "z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!",
    "schÃ¶n â€œquotesâ€\x9d",
    "\ud800 lone \udfff",
    "word " * 500,
    "w" * 5000,
    "犬" * 300,
    "!" * 300,
    "{} {0.__class__} %s $x \\n",
)
SMALL_MERGES = (
    ("t", "h"),
    ("th", "e</w>"),
    ("r", "e"),
    ("re", "d</w>"),
    ("s", "q"),
    ("c", "i"),
    ("ci", "r"),
    ("cir", "c"),
    ("l", "e</w>"),
    ("circ", "le</w>"),
    ("m", "o"),
    ("mo", "v"),
    ("i", "n"),
    ("in", "g</w>"),
    ("mov", "ing</w>"),
    ("n", "g</w>"),
    ("i", "ng</w>"),  # the same token as ("in", "g</w>"): the later id counts
    ("a", "ing</w>"),
)


def tokenizer_pair(folder: Path, merges: Sequence[tuple[str, str]], length: int) -> tuple[Any, Any]:
    """Our tokenizer and open_clip's for the same merges."""
    file = folder / "tokenizer.json"
    file.write_text(build_tokenizer_json(merges), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    packed = folder / "merges.txt.gz"
    packed.write_bytes(gzip.compress("\n".join(lines).encode()))
    reference = open_clip().tokenizer.SimpleTokenizer(bpe_path=str(packed), context_length=length)
    return Tokenizer(file, length), reference


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """CLIP's own 48,894 merges, 77 tokens."""
    path = open_clip().tokenizer.default_bpe()
    lines = gzip.decompress(Path(path).read_bytes()).decode().split("\n")
    merges = []
    for line in lines[1 : 49152 - 256 - 2 + 1]:
        first, second = line.split()
        merges.append((first, second))
    ours, reference = tokenizer_pair(tmp_path_factory.mktemp("full"), merges, 77)
    original = open_clip().tokenizer.SimpleTokenizer()
    assert original.encoder == reference.encoder
    return ours, original


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A handful of merges, two of which are never the best; 32 tokens."""
    return tokenizer_pair(tmp_path_factory.mktemp("small"), SMALL_MERGES, 32)


def assert_equal(pair: tuple[Any, Any], texts: Sequence[str]) -> None:
    """Same ids, zeros after the end, and a true word about truncation."""
    ours, reference = pair
    expected = reference(list(texts)).numpy()
    ids, truncated = ours.encode(texts)
    width = ids.shape[1]
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, expected[:, :width])
    assert not expected[:, width:].any()
    lengths = [len(reference.encode(text)) + 2 for text in texts]
    assert truncated.tolist() == [length > ours.context_length for length in lengths]
    assert width == min(max(lengths), ours.context_length)


@pytest.mark.parametrize("which", ["full", "small"])
@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_equal_on_difficult_texts(which: str, text: str, request: pytest.FixtureRequest) -> None:
    """Emoji, accents, scripts, entities, special names, control characters, long texts."""
    assert_equal(request.getfixturevalue(which), [text])


@pytest.mark.parametrize("which", ["full", "small"])
def test_equal_on_a_batch(which: str, request: pytest.FixtureRequest) -> None:
    """A batch is as wide as its longest text, and no text changes another."""
    pair = request.getfixturevalue(which)
    assert_equal(pair, CORPUS)
    assert_equal(pair, ["a", "a red circle", ""])


# Code points that Python does not know yet are left out: the `regex` module behind open_clip's
# tokenizer and the `tokenizers` library know different versions of Unicode.
known_text = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60)
PIECES = (
    "<start_of_text>", "<end_of_text>", "'s", "'ſ", "&amp;", "&lt;", " ", "\u0345", "!", "A", "1",
    "é", "ß", "🐶", "犬", "\x00", "\n", "the", "circle", "moving",
)  # fmt: skip
tricky_text = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@pytest.mark.parametrize("which", ["full", "small"])
@given(texts=st.lists(known_text | tricky_text, min_size=1, max_size=6))
@example(texts=["", "<start_of_text><start_of_text>"])
@settings(max_examples=150, deadline=None)
def test_equal_on_any_text(which: str, texts: list[str], request: pytest.FixtureRequest) -> None:
    """Hypothesis finds no text for which the ids differ."""
    assert_equal(request.getfixturevalue(which), texts)


@pytest.mark.slow
def test_equal_on_every_character(full: tuple[Any, Any]) -> None:
    """Each assigned character beside letters, digits and punctuation."""
    ours, reference = full
    for start in range(0, 0x110000, 0x4000):
        texts = [
            form.format(character)
            for character in map(chr, range(start, start + 0x4000))
            if known(character)
            for form in ("a{0}b 1{0}.", "!{0}! '{0} {0}{0}")
        ]
        if not texts:
            continue
        ids, _ = ours.encode(texts)
        for text, row in zip(texts, ids, strict=True):
            expected = [ours.start_id, *reference.encode(text), ours.end_id]
            assert row[: len(expected)].tolist() == expected, ascii(text)
        reference.cache = {name: name for name in ("<start_of_text>", "<end_of_text>")}


def known(character: str) -> bool:
    """Assigned in Python's Unicode, and not one of many alike (Han, Hangul, private use)."""
    import unicodedata

    name = unicodedata.name(character, "")
    alike = ("CJK UNIFIED", "HANGUL SYLLABLE", "TANGUT", "CJK COMPATIBILITY", "EGYPTIAN")
    return unicodedata.category(character) not in ("Cs", "Cn", "Co") and not name.startswith(alike)


def test_cleaning_is_open_clips() -> None:
    """ftfy, entities twice, white space, lower case."""
    for text in CORPUS:
        assert clean(text) == open_clip().tokenizer._clean_lower(text)
    assert clean("  A &amp;lt;\n B ") == "a < b"


def test_no_texts_give_no_rows(small: tuple[Any, Any]) -> None:
    """An empty list is not an error."""
    ids, truncated = small[0].encode([])
    assert ids.shape == (0, 2)
    assert truncated.shape == (0,)


def test_the_end_token_has_the_largest_id(full: tuple[Any, Any]) -> None:
    """The text tower finds the end of a text by argmax."""
    ours, _ = full
    assert (ours.start_id, ours.end_id, ours.vocabulary_size) == (49406, 49407, 49408)
    ids, _ = ours.encode(["a photo of a dog", "x " * 200])
    assert ids.argmax(axis=1).tolist() == [6, 76]
    assert ids.max() == ours.end_id


def test_the_file_is_json_and_stable() -> None:
    """The same merges give the same bytes, so that the artefact's revision is reproducible."""
    text = build_tokenizer_json(SMALL_MERGES)
    assert text == build_tokenizer_json(list(SMALL_MERGES))
    assert json.loads(text)["model"]["vocab"]["<end_of_text>"] == 512 + len(SMALL_MERGES) + 1


@pytest.mark.parametrize(
    "merges",
    [[("ab", "c")], [("t", "h"), ("th", "es</w>")], [("t", " ")], [("t",)], [("",)], [()]],
)
def test_a_merge_of_unknown_tokens_is_refused(merges: list[tuple[str, str]]) -> None:
    """The error names the merge; an empty last line of a merges file is such a one."""
    with pytest.raises(ValueError, match=r"merge \d+: .* is not a pair of known tokens"):
        build_tokenizer_json(merges)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2", b"\xff\xfe", b'{"model": 1}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    """One clear error that names the file, not the folder."""
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"^tokenizer\.json: not a tokenizer file"):
        Tokenizer(file, 77)


def test_a_tokenizer_without_the_special_tokens_is_refused(tmp_path: Path) -> None:
    """Another model's tokenizer has other names for start and end."""
    document = json.loads(build_tokenizer_json([]))
    document["model"]["vocab"] = {"a</w>": 0}
    document["post_processor"] = None
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="has no <start_of_text>"):
        Tokenizer(file, 77)
    with pytest.raises(ValueError, match="context_length: 1 is below 2"):
        Tokenizer(file, 1)
