"""Files of a model: weights, configs, tokenizers, GGUF, SAEs."""

from .harness import Target

TARGETS: list[Target] = []
