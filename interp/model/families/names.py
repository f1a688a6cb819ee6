"""Where a family's parts are in what is at hand: the files of a model, or a model in memory.

The table has the names of transformers' causal-LM class. A base class's checkpoint lacks the prefix
(the hub's gpt2 stores `h.0.mlp…`), a model with a text model inside has another
(`language_model.model.layers…`, `model.language_model.layers…`). Both are found by the embedding.
"""

from __future__ import annotations

from collections.abc import Collection

from .family import Family


class Names:
    """The names that there are, by those of the table (both without ".weight")."""

    def __init__(self, family: Family, there: Collection[str]) -> None:
        """`there`: the names of all tensors."""
        self.family, self.there = family, there
        own = family.embed.removeprefix(family.prefix)
        plain = (f"{family.embed}.weight", f"{own}.weight")
        nested = [name for name in there if name.endswith(f".{own}.weight")]
        found = next((name for name in plain if name in there), "")
        found = found or (nested[0] if len(nested) == 1 else plain[0])
        self.prefix = found.removesuffix(f"{own}.weight")
        """What stands where the table has the family's prefix."""

    def own(self, name: str) -> str:
        """A part of the base model, as it is called here; what stands beside it as it is."""
        base = self.family.prefix
        return self.prefix + name.removeprefix(base) if name.startswith(base) else name

    @property
    def embed(self) -> str:
        return self.own(self.family.embed)

    @property
    def final_norm(self) -> str:
        return self.own(self.family.final_norm)

    def part(self, layer: int, name: str) -> str:
        """A part of a layer."""
        return f"{self.own(self.family.layer.format(layer))}.{name}"

    @property
    def head(self) -> str:
        """The unembedding, which stands beside the base model; "" if none is there."""
        for name in self.family.head:
            if f"{name}.weight" in self.there:
                return name
            nested = [each for each in self.there if each.endswith(f".{name}.weight")]
            if len(nested) == 1:
                return nested[0].removesuffix(".weight")
        return ""
