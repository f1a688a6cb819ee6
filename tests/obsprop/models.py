"""Models for identities in float64: every bias random, norms that do not round to float32.

Transformers' RMSNorms compute in float32 whatever the model's dtype, so a float64 model's own
activations carry errors of 1e-7. `exact` replaces those modules by the same formula in float64,
written out here; LayerNorms are torch's own and need no help.
"""

from typing import Any

import torch
from torch import nn

from interp.model.subject import Subject, open_subject
from interp.model.weights import Weights
from interp.obsprop.model_weights import StackedWeights

from ..conftest import FAMILY_CONFIGS, make_model

BIASED: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "gemma2": {"attention_bias": True},
    "gemma3_text": {"attention_bias": True},
    "qwen3": {"attention_bias": True},
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, BIASED.get(family, {})) for family in FAMILY_CONFIGS},
    "gpt_neox sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "granite": ("granite", {"attention_bias": True, "mlp_bias": True}),
    "olmo2": ("olmo2", {"attention_bias": True}),
}


class Exact(nn.Module):
    """RMSNorm in the dtype of its input."""

    def __init__(self, weight: torch.Tensor, shift: float, eps: float) -> None:
        super().__init__()
        self.weight, self.shift, self.eps = nn.Parameter(weight), shift, eps

    @property
    def gain(self) -> torch.Tensor:
        return self.weight + self.shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.gain


def exact(model: Any) -> Any:
    """The model in float64, its RMSNorms too."""
    model = model.double().eval().requires_grad_(False)
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module).__name__.endswith("RMSNorm"):
                shift = 1.0 if "Gemma" in type(module).__name__ else 0.0
                eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
                setattr(parent, name, Exact(module.weight.data, shift, eps))
    return model


def biased_model(family: str, **changes: Any) -> Any:
    """Biases are random, and matrices large enough for patterns and norms to matter."""
    model = make_model(family, **{**BIASED.get(family, {}), **changes})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif parameter.ndim == 2:
                parameter.mul_(8.0)
    return model


def opened(name: str, folder: Any, **changes: Any) -> tuple[Subject, StackedWeights]:
    """A random model of a family in float64, and its weights as read from its files."""
    family, own = MODELS[name]
    model = biased_model(family, **own, **changes)
    model.save_pretrained(folder)
    subject = open_subject(exact(model), attention="eager", dtype=torch.float64)
    return subject, StackedWeights(Weights(folder), torch.float64)
