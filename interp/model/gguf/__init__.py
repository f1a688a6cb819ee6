"""GGUF files: what is in one, and the transformers folder that stands for the same model."""
