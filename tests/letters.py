"""A real tokenizer of letters: one id a letter, its code, with or without a BOS of its own."""

from tokenizers import Tokenizer, decoders, models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast


def letter_tokenizer(bos: int | None = None, size: int = 128, **special: str):
    """Ids 0..size-1 are the characters of these codes; `bos` names one that `tokenizer(text)` puts
    before each text."""
    inner = Tokenizer(models.BPE({chr(i): i for i in range(size)}, []))
    inner.decoder = decoders.Fuse()
    if bos is not None:
        inner.post_processor = TemplateProcessing(
            single=f"{chr(bos)} $A", special_tokens=[(chr(bos), bos)]
        )
        special["bos_token"] = chr(bos)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)
