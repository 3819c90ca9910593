"""A BLIP-2 and a Llama of a few thousand random weights, saved as `transformers` saves them."""

from pathlib import Path
from typing import Any, Literal

import torch

from training.captioning.pretrained import transformers_library

WORDS = (  # noqa: SIM905 (as they are read)
    "a the red blue green star heart drop moves turns left right on grey ground and then . , "
    "The video shows These captions describe frames of one in order which appear : Summarise few "
    "words what happens whole Answer with sentence"
).split()
PAD, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SIZE = 16  # of BLIP-2's pictures
LLAMA2_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def save_blip2(folder: Path, *, decoder: Literal["opt", "t5"] = "opt") -> Path:
    """A BLIP-2 for pictures of `SIZE` pixels, with its processor."""
    library = transformers_library()
    tokenizer = _tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if decoder == "opt":
        text = library.OPTConfig(
            **common, hidden_size=16, num_hidden_layers=1, ffn_dim=16, num_attention_heads=2,
            max_position_embeddings=64, word_embed_proj_dim=16,
        )  # fmt: skip
    else:
        text = library.T5Config(
            **common, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
            decoder_start_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    config = library.Blip2Config(
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": SIZE, "patch_size": 8,
        },
        qformer_config={
            "vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 16, "max_position_embeddings": 8,
        },
        text_config=text,
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = _random(library.Blip2ForConditionalGeneration, config, seed=3)
    model.save_pretrained(folder)
    image_processor = library.BlipImageProcessor(size={"height": SIZE, "width": SIZE})
    library.Blip2Processor(image_processor, tokenizer).save_pretrained(folder)
    return folder


def save_llama(folder: Path, *, template: str | None = LLAMA2_TEMPLATE) -> Path:
    """A Llama with its tokenizer, which has no padding token, as Llama 2's has none."""
    library = transformers_library()
    tokenizer = _tokenizer(pad=False)
    tokenizer.chat_template = template
    config = library.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=512, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    _random(library.LlamaForCausalLM, config, seed=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _random(kind: Any, config: Any, *, seed: int) -> Any:
    """Weights large enough for answers that depend on what is asked."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def _tokenizer(*, pad: bool = True) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = [START, END, UNKNOWN, *([PAD] if pad else [])]
    words = {word: i for i, word in enumerate((*special, *WORDS))}
    tokens = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"bos_token": START, "eos_token": END, "unk_token": UNKNOWN}
    if pad:
        names["pad_token"] = PAD
    return transformers_library().PreTrainedTokenizerFast(tokenizer_object=tokens, **names)
