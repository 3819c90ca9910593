"""BLIP-2 and the language model, against loops that take the most probable token."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.training.captioning.tiny_models import SIZE, save_blip2, save_llama
from training.captioning.frame_captioner import FrameCaptioner
from training.captioning.pretrained import CaptionModelError, transformers_library
from training.captioning.prompt import OPENING, caption_of, llama2_prompt
from training.captioning.summariser import Summariser

CPU = torch.device("cpu")
ASKED = (
    ("a red star", "the star moves left"),
    ("a blue drop",),
    ("a heart on grey ground", "a heart", "the heart turns right and then left"),
)


def pictures(count: int = 5) -> NDArray[np.uint8]:
    """From dark to bright and noisy, uint8 (n, S, S, 3)."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, (count, SIZE, SIZE, 3))
    return (noise + np.linspace(0, 215, count)[:, None, None, None]).astype(np.uint8)


def slow_captions(folder: Path, *, tokens: int) -> list[str]:
    """One picture and one token at a time, normalised by hand."""
    library = transformers_library()
    model = library.Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    texts = []
    for picture in pictures():
        x = (np.asarray(Image.fromarray(picture)) / 255 - mean) / std
        pixels = torch.tensor(x, dtype=torch.float32).permute(2, 0, 1)[None]
        question = [model.config.image_token_index] * 3 + [tokenizer.bos_token_id]
        encoder_decoder = model.config.text_config.is_encoder_decoder
        answer = [tokenizer.pad_token_id] if encoder_decoder else []
        for _ in range(tokens):
            ids = torch.tensor([question if encoder_decoder else question + answer])
            more: dict[str, Any] = (
                {"decoder_input_ids": torch.tensor([answer])} if encoder_decoder else {}
            )
            with torch.no_grad():
                logits = model(pixel_values=pixels, input_ids=ids, **more).logits
            answer.append(int(logits[0, -1].argmax()))
            if answer[-1] == tokenizer.eos_token_id:
                break
        texts.append(tokenizer.decode(answer, skip_special_tokens=True).strip())
    return texts


@pytest.mark.parametrize("decoder", ["opt", "t5"])
def test_captions_are_the_most_probable_words(tmp_path: Path, decoder: Any) -> None:
    """In one batch as one by one, for both kinds of decoder that BLIP-2 comes with."""
    folder = save_blip2(tmp_path, decoder=decoder)
    captioner = FrameCaptioner(str(folder), max_tokens=6, device=CPU)
    assert captioner.image_size == SIZE
    found = captioner.caption(pictures())
    assert found == slow_captions(folder, tokens=6)
    assert len(set(found)) > 1, "the tiny model says the same of every picture"
    assert "<image>" not in "".join(found)


def test_more_beams_are_at_least_as_probable(tmp_path: Path) -> None:
    """The search may find other words than the greedy one; it still says something of each."""
    folder = save_blip2(tmp_path)
    captioner = FrameCaptioner(str(folder), beams=3, max_tokens=4, device=CPU)
    assert len(captioner.caption(pictures(2))) == 2


def slow_answers(folder: Path, *, tokens: int) -> list[str]:
    """One question and one token at a time, without padding."""
    library = transformers_library()
    model = library.LlamaForCausalLM.from_pretrained(folder).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    texts = []
    for frame_captions in ASKED:
        prompt = llama2_prompt(frame_captions, start="<s>")
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer: list[int] = []
        for _ in range(tokens):
            with torch.no_grad():
                logits = model(torch.tensor([ids + answer])).logits
            answer.append(int(logits[0, -1].argmax()))
            if answer[-1] == tokenizer.eos_token_id:
                break
        texts.append(caption_of(tokenizer.decode(answer, skip_special_tokens=True)))
    return texts


def test_answers_are_the_most_probable_words(tmp_path: Path) -> None:
    """Questions of different lengths in one batch are answered as if each were alone."""
    folder = save_llama(tmp_path)
    found = Summariser(str(folder), max_tokens=8, device=CPU).merge(ASKED)
    assert found == slow_answers(folder, tokens=8)
    assert len(set(found)) > 1, "the tiny model gives the same answer to every question"
    assert all(text.startswith(f"{OPENING} ") for text in found)


@pytest.mark.parametrize("kind", [FrameCaptioner, Summariser])
def test_a_model_that_is_not_there_is_one_line(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty folder, and a name when no hub can be reached."""
    # The library reads HF_HUB_OFFLINE when it is imported; without it, it asks the hub six times.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (str(tmp_path), "nobody/nothing"):
        with pytest.raises(CaptionModelError, match="no such model in a folder, nor") as refused:
            kind(name)
        assert "\n" not in str(refused.value)
        assert name in str(refused.value)


def test_a_blip2_without_its_picture_token_is_refused(tmp_path: Path) -> None:
    """Folders that early versions of transformers saved say so in one line."""
    folder = save_blip2(tmp_path)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key in ("image_token_index", "image_token_id"):
        config.pop(key, None)
    path.write_text(json.dumps(config))
    with pytest.raises(CaptionModelError, match="its config has no image_token_index"):
        FrameCaptioner(str(folder))


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    """Only safetensors files are."""
    folder = save_llama(tmp_path)
    weights = transformers_library().LlamaForCausalLM.from_pretrained(folder).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CaptionModelError, match="language_model"):
        Summariser(str(folder))
