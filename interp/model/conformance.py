"""What the workbench can do with each architecture, measured on a tiny random model of it.

`check_family` saves the model, reads its weights from the files, opens it with every backend and
goes on with a prompt. Each cell is a number, or the reason why there is none.
"""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from ..errors import UserError
from .families import FAMILIES, UNFIT, WRAPPERS
from .loaded import LoadedWeights
from .subject import BackendName, Subject, open_subject
from .weights import Weights

NOT_OPENED = "not opened"
STEPS = 6
"""Tokens that are generated."""


class Row(NamedTuple):
    """One architecture; each cell a number as text, or a reason."""

    architecture: str
    atlas: str
    """Largest difference of the weights read from files from those in memory."""
    parity: str
    """Largest difference of the native backend's logits from plain transformers'."""
    sites: str
    """Largest relative difference of its sites from what the weights make of them."""
    generation: str
    """Greedy tokens with a cache that whole passes give too."""
    bridge: str
    nnsight: str
    """The larger of both differences with these backends."""


def tiny_model(model_type: str, **changes: Any) -> Any:
    """A random model of two layers, its norms' gains random too.

    Args:
        changes: fields of its config.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    auto: Any = AutoModelForCausalLM
    if model_type in WRAPPERS:
        auto, wrapper = AutoModelForImageTextToText, WRAPPERS[model_type]
        tiny = wrapper.tiny_config(FAMILIES[wrapper.text].tiny)
    else:
        tiny = {**FAMILIES[model_type].tiny}
    model = auto.from_config(AutoConfig.for_model(model_type, **{**tiny, **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def architectures() -> list[str]:
    """Every architecture that the table has a word on."""
    return [*FAMILIES, *WRAPPERS, *UNFIT]


def what_it_is(model_type: str) -> str:
    """An architecture in a few words, from the table alone."""
    if reason := UNFIT.get(model_type):
        return reason
    if wrapper := WRAPPERS.get(model_type):
        return f"a {wrapper.text} model inside" + (f"; {wrapper.no_sites}" * bool(wrapper.no_sites))
    family = FAMILIES[model_type]
    kinds = "up, gate, down" if family.gate else "up, down"
    notes = [kinds, "experts" * bool(family.experts), family.inside, family.no_sites]
    return "; ".join(filter(None, notes))


def check_family(model_type: str) -> Row:
    """A row of the table."""
    family = FAMILIES.get(model_type)
    reason = UNFIT.get(model_type, "") or (family.inside if family else "")
    if reason:
        return Row(model_type, reason, *[NOT_OPENED] * 5)
    torch.manual_seed(len(model_type))
    model = tiny_model(model_type)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        atlas = _number(_files_differ(Weights(Path(folder)), model))
    opened = {backend: _opened(model, backend) for backend in get_args(BackendName)}
    native = opened["native"]
    if isinstance(native, str):
        return Row(model_type, atlas, native, *[NOT_OPENED] * 4)
    others = [_agreement(opened[backend]) for backend in ("bridge", "nnsight")]
    return Row(
        model_type, atlas, _number(native.parity), _sites(native), _generation(native), *others
    )


def _files_differ(stored: Weights, model: Any) -> float:
    """The largest difference of any neuron and of the unembedding."""
    spec, loaded = stored.spec, LoadedWeights(model, stored.spec)
    worst = float((stored.W_U() - loaded.W_U()).abs().max())
    for layer in range(spec.n_layers):
        for bank, kind in itertools.product(stored.banks(layer), spec.kinds):
            ours, theirs = (
                each.neurons(kind, layer, bank.expert)  # type: ignore[arg-type]
                for each in (stored, loaded)
            )
            worst = max(worst, float((ours - theirs).abs().max()))
    return worst


def _opened(model: Any, backend: BackendName) -> Subject | str:
    try:
        return open_subject(copy.deepcopy(model), backend)
    except UserError as error:
        return str(error)


def _agreement(subject: Subject | str) -> str:
    if isinstance(subject, str):
        return subject
    return _number(max(subject.parity, subject.site_error)) + _missing(subject)


def _sites(subject: Subject) -> str:
    return _number(subject.site_error) + _missing(subject)


def _missing(subject: Subject) -> str:
    kinds = sorted({site.kind for site in subject.refused})
    return f", without {', '.join(kinds)}" if kinds else ""


def _generation(subject: Subject) -> str:
    """Greedy generation with a cache against whole passes, of two prompts of unequal length."""
    batch = subject.pad([[5, 6, 7, 8], [3, 4]])
    rows = [ids[real].tolist() for ids, real in zip(batch.ids, batch.mask, strict=True)]
    subject.ends = ()
    new = subject.generate(batch, STEPS)
    same = torch.ones_like(new, dtype=torch.bool)
    for step in range(STEPS):
        picked: Tensor = subject.logits(subject.pad(rows))[:, -1].argmax(-1)
        same[:, step] = picked == new[:, step]
        rows = [[*row, int(token)] for row, token in zip(rows, picked, strict=True)]
    return f"{int(same.sum())} of {same.numel()}"


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}"
