"""A small Llama, written by hand, that answers by the intent: its knob and its layers are known.

Every word's embedding is 100 times a unit vector, so that what layers add hardly moves a norm and
the model is nearly linear. The stream has coordinates for what a word is (its own space), for what
attention gathers (the work space: intent, context's answer, prior answer), and for the output.

- Attention is uniform. In the switch layers it adds, at every later token, the intent's sign to
  `KNOB`, the answer words' to the coordinates `CONTEXT`, the subjects' to those of `PRIOR`.
- The MLP of the last layer passes the context's answer on if the knob is positive, the prior one if
  it is negative.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from interp.knob.items import Item
from interp.knob.prompts import SYSTEM
from interp.model.subject import Subject, open_subject

NAMES = 8
SUBJECTS = [f"land{i}" for i in range(NAMES)]
ANSWERS = [f"town{i}" for i in range(NAMES)]
_LINES = f"""{SYSTEM} Context: Instruction: Ignore the context in answering the query.
Only consider weight: Query: Answer: The capital of is . 0 00 1"""
OTHER, INTENT_WORD, WORDS = 0, 1, 2
KNOB = WORDS + 2 * NAMES
CONTEXT, PRIOR = KNOB + 1, KNOB + 1 + NAMES
OUT = PRIOR + NAMES
WIDTH = OUT + NAMES + 1  # even, for rotary positions
LONG = 100.0


def items() -> list[Item]:
    """Every land's capital, contradicted by every other town."""
    return [
        Item("capital", SUBJECTS[i], f"The capital of {SUBJECTS[i]} is {ANSWERS[j]}.",
             f"The capital of {SUBJECTS[i]} is", ANSWERS[i], ANSWERS[j])
        for i in range(NAMES) for j in range(NAMES) if i != j
    ]  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    """Words and punctuation, in plain order."""
    split = pre_tokenizers.Whitespace()
    plain = [word for word, _ in split.pre_tokenize_str(_LINES)]
    words = dict.fromkeys(["unknown", *SUBJECTS, *ANSWERS, *plain])
    made = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="unknown")
    )
    made.pre_tokenizer = split
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="unknown")


def planted(n_layers: int, switch: range, length: int, straight: bool = False) -> Subject:
    """The model; `length` is how many tokens its prompts have, as uniform attention thins by it.

    With `straight` the switch layers' attention writes the context's answer into the output itself,
    each an equal share that alone does not make it likely: all of them are needed.
    """
    words = tokenizer()
    config = AutoConfig.for_model(
        "llama", hidden_size=WIDTH, intermediate_size=2 * NAMES, num_hidden_layers=n_layers,
        num_attention_heads=1, num_key_value_heads=1, head_dim=WIDTH, vocab_size=len(words),
        max_position_embeddings=512, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        _embed(model, words)
        for layer in switch:
            _gather(model.model.layers[layer].self_attn, length / len(switch), straight)
        if not straight:
            _gate(model.model.layers[-1].mlp)
        ids = words.convert_tokens_to_ids(ANSWERS)
        for place, i in enumerate(ids):
            # a normed coordinate is about 1/LONG * sqrt(WIDTH) of the plain one
            model.lm_head.weight[i, OUT + place] = LONG / WIDTH**0.5
    return open_subject(model, tokenizer=words)


def _embed(model, words) -> None:  # type: ignore[no-untyped-def]
    table = model.model.embed_tokens.weight
    table[:, OTHER] = LONG
    roles = {"Ignore": (INTENT_WORD, -LONG), "Only": (INTENT_WORD, LONG)}
    roles |= {word: (WORDS + i, LONG) for i, word in enumerate(SUBJECTS + ANSWERS)}
    for word, (place, value) in roles.items():
        row = table[words.convert_tokens_to_ids(word)]
        row.zero_()
        row[place] = value


def _gather(attention, scale: float, straight: bool) -> None:  # type: ignore[no-untyped-def]
    """Values are the words; what is added is 1.5 an answer word in all switch layers together."""
    attention.v_proj.weight.copy_(torch.eye(WIDTH) / WIDTH**0.5)
    out = attention.o_proj.weight
    if straight:
        for i in range(NAMES):
            out[OUT + i, WORDS + NAMES + i] = 4.5 * scale
        return
    out[KNOB, INTENT_WORD] = scale
    for i in range(NAMES):
        out[CONTEXT + i, WORDS + NAMES + i] = scale
        out[PRIOR + i, WORDS + i] = scale / 2  # a subject is named twice


def _gate(mlp) -> None:  # type: ignore[no-untyped-def]
    size = LONG / WIDTH**0.5
    for i in range(NAMES):
        for row, start, sign in ((i, CONTEXT, 1.0), (NAMES + i, PRIOR, -1.0)):
            mlp.gate_proj.weight[row, KNOB] = 10.0 * sign * size
            mlp.up_proj.weight[row, start + i] = size
            mlp.down_proj.weight[OUT + i, row] = 1.0


def save(subject: Subject, folder: Path) -> Path:
    """The model as a folder that opens by path."""
    model = subject._backend.model  # type: ignore[attr-defined]
    model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    return folder
