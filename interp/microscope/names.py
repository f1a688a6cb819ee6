"""The kinds of part whose contributions add up to a logit."""

EMBEDDING, ATTENTION, MLP, BIAS = "embedding", "attention", "MLP", "bias"
"""The embedding's layer is -1, that of the last bias (of the final norm and the unembedding) is the
number of layers."""
KINDS = (EMBEDDING, ATTENTION, MLP, BIAS)
