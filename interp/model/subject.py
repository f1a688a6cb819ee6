"""Subject: a hooked model. One small interface over every backend.

`capture` keeps only the sites that are asked for and stops after the last of them; `edited` applies
edits to every forward pass in its scope, `generate` with its KV cache included, and leaves the
model as it was. Opening one checks its logits against the plain transformers model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..errors import UserError
from .backends import Backend
from .batch import Batch, Sampling, Step, edited_positions, model_inputs, pick
from .devices import Split, is_elsewhere, is_split
from .ends import ends_of
from .families import ModelSpec, read_spec
from .hooked import Hooked
from .identities import check, looked_at, probe_rows
from .loaded import LoadedWeights
from .loading import load
from .parity import parity
from .places import DENSE_ONLY, expert_reason
from .plain import context_of, plain_logits
from .prompting import Bos, Prompting
from .site import Site
from .token_ids import token_ids
from .weights import Weights

if TYPE_CHECKING:
    from transformers import Cache

    from .backends.native import NativeBackend

BackendName = Literal["native", "bridge", "nnsight"]
NO_GRADIENTS = (
    "gradients keep every weight that they pass in memory, and this model does not fit there: give "
    "a --device that holds all of it, or more GPUs to split it over"
)


class Subject(Hooked):
    """A model that can be read and edited at its sites; made by `open_subject`."""

    def __init__(
        self, backend: Backend, spec: ModelSpec, prompting: Prompting, device: torch.device
    ) -> None:
        super().__init__(backend, device)
        self.spec = spec
        self.prompting = prompting
        """What becomes of text, and which ids are no text."""
        self.ends: tuple[int, ...] = ()
        """The ids that end a generated text."""
        self.context: int | None = None
        """The maximum number of tokens in a pass, where the model limits it."""
        self.weights: Weights | None = None
        """The stored weights, if the model came from a folder."""
        self.split = False
        """Whether its parts are on several devices, or left in its files."""
        self.cache_name = "past_key_values"
        """The model's own name for the keys and values of earlier tokens."""
        self.beside: dict[str, Any] = {}
        """What others keep of it for as long as it is in memory."""
        self._cache_config: Any = None
        """By which a cache is laid out, where layers keep other things than keys and values."""
        self.parity = float("nan")
        """Largest difference of its logits from plain transformers' on a probe, a padded row in
        it."""
        self.site_error = float("nan")
        """Largest relative difference of the sites that it offers from what its weights make of
        the sites before (`identities`)."""
        self.site_errors: dict[str, float] = {}
        """By kind of site, those that are not offered too."""

    @property
    def checks(self) -> dict[str, float]:
        """How well it agrees with plain transformers and with itself, for a run's manifest."""
        return {"parity": self.parity, "site_error": self.site_error}

    def parameter(self, name: str) -> nn.Parameter:
        """A weight of the model in memory, by its name in transformers.

        Raises:
            UserError: this backend's model has other names; a split model has left it elsewhere.
        """
        backend = self._native("weights are edited")
        parameter: nn.Parameter = backend.model.get_parameter(backend.names.own(name))
        if parameter.is_meta:
            raise UserError(
                f"'{name}' is read for each pass, so that an edit of it would be lost: edit the "
                "model's files, or give a --device that holds all of it"
            )
        return parameter

    @property
    def network(self) -> nn.Module:
        """The transformers model in memory, for its modules' names.

        Raises:
            UserError: this backend has another; it is split.
        """
        model: nn.Module = self._native("a network is frozen").model
        self.check_whole()
        return model

    def check_whole(self) -> None:
        """Raise UserError for a split model, of whose pass a network is to be made: it keeps every
        weight that the pass has met."""
        if self.split:
            raise UserError(
                "a frozen network keeps every weight of its model: give a --device that holds all "
                "of them (cpu, cuda)"
            )

    @property
    def loaded(self) -> LoadedWeights:
        """The canonical weights of the model in memory.

        Raises:
            UserError: this backend has another.
        """
        return LoadedWeights(self._native("weights are read").model, self.spec)

    def _native(self, what: str) -> NativeBackend:
        from .backends.native import NativeBackend

        if not isinstance(self._backend, NativeBackend):
            raise UserError(f"{what} through the native backend: open with it")
        return self._backend

    def tokens(self, texts: str | Sequence[str]) -> Batch:
        """Texts as ids, as the model expects them (`Prompting.ids`), padded on the left."""
        rows = [texts] if isinstance(texts, str) else list(texts)
        return self.pad([self.prompting.ids(row) for row in rows])

    def chat(self, messages: Sequence[Mapping[str, str]]) -> Batch:
        """A conversation in the model's chat template, ready for the assistant's turn."""
        return self.pad([self.prompting.chat(messages)])

    def counted(
        self, batch: Batch, no_data: Sequence[int] | None = None
    ) -> Bool[Tensor, "batch pos"]:
        """Which positions are data: no padding, no BOS and no other special token.

        Args:
            no_data: the ids that are none, instead of the special ones.
        """
        left_out = self.prompting.special if no_data is None else no_data
        ids = torch.tensor(left_out, dtype=torch.long, device=batch.ids.device)
        return batch.mask & ~torch.isin(batch.ids, ids)

    def pad(self, rows: Sequence[Sequence[int]]) -> Batch:
        """Rows of ids as one left-padded batch."""
        if not len(rows):
            raise UserError("an empty prompt: give at least one token")
        padded = [token_ids(row, self.spec.d_vocab, dims=(1,)) for row in rows]
        ids = pad_sequence(padded, batch_first=True, padding_side="left")
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(-ids.shape[1], 0) >= -lengths[:, None]
        return Batch(ids.to(self.device), mask.to(self.device))

    def text(self, ids: Int[Tensor, " pos"]) -> str:
        """Ids as text; those of a model without a tokenizer as `#id`."""
        return self.prompting.text(ids.tolist())

    @torch.no_grad()
    def logits(self, batch: Batch | Tensor) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of one forward pass, edits in scope applied."""
        whole = self._as_batch(batch)
        return self._pass(model_inputs(whole), edited_positions(whole, whole.mask))

    @torch.no_grad()
    def capture(
        self, batch: Batch | Tensor, sites: Iterable[str | Site]
    ) -> dict[Site, Float[Tensor, "batch pos ..."]]:
        """The activations at some sites (names or globs), edits in scope applied.

        Runs no further than the last of them and keeps nothing else.

        Raises:
            UserError: a site the model lacks.
        """
        whole = self._as_batch(batch)
        return self._read(model_inputs(whole), edited_positions(whole, whole.mask), sites)

    def linked(
        self, batch: Batch | Tensor, sites: Iterable[str | Site]
    ) -> dict[Site, Float[Tensor, "batch pos ..."]]:
        """As `capture`, with the graph from each site to the later ones, for
        `torch.autograd.grad(later, earlier)`. Heads come whole.

        Raises:
            UserError: a site the model lacks.
        """
        whole = self._as_batch(batch)
        return self._link(model_inputs(whole), edited_positions(whole, whole.mask), sites)

    def generate(
        self,
        batch: Batch | Tensor,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        cache: Cache | None = None,
    ) -> Int[Tensor, "batch new"]:
        """New tokens with a KV cache, as `stream` gives them, greedy at temperature 0."""
        whole, how = self._as_batch(batch), Sampling(temperature, seed=seed)
        new = [step.ids for step in self.stream(whole, max_new_tokens, how, cache)]
        return torch.stack(new, 1) if new else whole.ids[:, :0]

    def said(
        self, batch: Batch | Tensor, max_new_tokens: int
    ) -> tuple[Float[Tensor, "batch d_vocab"], Int[Tensor, "batch new"]]:
        """The logits of the next token, and greedy new tokens as `generate` gives them: the prompt
        goes through the model once.

        Args:
            max_new_tokens: at least 1.
        """
        steps = list(self.stream(batch, max_new_tokens))
        return steps[0].logits, torch.stack([step.ids for step in steps], 1)

    def stream(
        self,
        batch: Batch | Tensor,
        max_new_tokens: int,
        how: Sampling = Sampling(),  # noqa: B008  it is a tuple
        cache: Cache | None = None,
    ) -> Iterator[Step]:
        """New tokens one by one, with a KV cache, until every text has ended; the edits that are in
        scope when a token is asked for apply to it.

        An edit at "all" positions acts on the prompt and on every new token, at the "last" one on
        the prompt's last token and on every new token, and one with a mask on the prompt alone.
        Rows that have ended are filled with the end token.

        Args:
            cache: keys and values of the tokens before `batch.ids`, which `batch.mask` covers too.

        Raises:
            UserError: more tokens than the model's context has, or no way of choosing them.
        """
        from transformers import DynamicCache

        whole = self._as_batch(batch)
        self.check_length(whole.mask.shape[1] + max_new_tokens)
        how.check()
        new = DynamicCache(config=self._cache_config) if cache is None else cache
        return self._steps(whole, max_new_tokens, how, new)

    @torch.no_grad()
    def _steps(self, whole: Batch, most: int, how: Sampling, cache: Cache) -> Iterator[Step]:
        generator = torch.Generator(self.device).manual_seed(how.seed)
        ends = torch.tensor(self.ends, dtype=torch.long, device=self.device)
        ids, mask = whole
        done = torch.zeros(len(ids), dtype=torch.bool, device=self.device)
        for number in range(most):
            step = Batch(ids, mask)
            inputs = {**model_inputs(step), self.cache_name: cache, "use_cache": True}
            logits = self._pass(inputs, edited_positions(step, whole.mask, number > 0))[:, -1]
            picked = pick(logits, how, generator)
            picked = torch.where(done, ends[0] if len(ends) else picked, picked)
            yield Step(picked, logits)
            done = done | torch.isin(picked, ends)
            if bool(done.all()):
                return
            ids = picked[:, None]
            mask = torch.cat([mask, torch.ones_like(done)[:, None]], 1)

    def _as_batch(self, batch: Batch | Tensor) -> Batch:
        if not isinstance(batch, Batch):
            ids = token_ids(batch, self.spec.d_vocab).to(self.device)
            ids = ids if ids.ndim == 2 else ids[None]
            batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool))
        batch = Batch(*(each.to(self.device) for each in batch))
        self.check_length(batch.ids.shape[1])
        return batch

    def check_length(self, length: int) -> None:
        """Raise UserError for more tokens than the model's context has."""
        if self.context is not None and length > self.context:
            raise UserError(
                f"{length} tokens are more than the model's context of {self.context}: shorten them"
            )

    def at_most(self, length: int) -> int:
        """So many tokens, or the model's context where that is smaller."""
        return length if self.context is None else min(length, self.context)

    @property
    def tokenizer(self) -> Any:
        """transformers' tokenizer. Raises UserError where the model has none."""
        return self.prompting.tokenizer


def open_subject(
    model: str | Path | nn.Module,
    backend: BackendName = "native",
    *,
    attention: Literal["sdpa", "eager"] | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer: Any = None,
    bos: Bos = "auto",
) -> Subject:
    """Open a model by catalog name, folder or hub id, or a transformers model, as a Subject.

    Args:
        model: a model in memory is copied, so it stays as it is; adapters on it are merged into
            the copy.
        backend: "native" (torch hooks), "bridge" (TransformerLens) or "nnsight".
        attention: "eager" computes attention patterns, so that `attn_pattern` can be read, and
            experts one by one; the bridge always does. By default what transformers takes for the
            family.
        device: cpu, cuda, cuda:1, mps; `split`, or `split:24G` with at most so much on each, for a
            model in files over all GPUs, then memory, then its files (`devices`). Inputs and what
            is read are on the subject's `device`, the first of them.
        bos: whether a BOS token goes before a text: as the tokenizer has it, always, or never.
    """
    if backend not in get_args(BackendName):
        raise UserError(f"no backend '{backend}': choose native, bridge or nnsight")
    patterns = "eager" if backend == "bridge" else attention
    if backend != "native" and Split.of(device):
        raise UserError(f"the {backend} backend splits no model: use backend='native'")
    hf, home, weights, tokenizer = load(model, device, dtype, patterns, tokenizer)
    spec = read_spec(hf.config.to_dict())
    if spec.family.no_sites:
        raise UserError(f"{spec.model_type} cannot be opened: {spec.family.no_sites}")
    double = next(hf.parameters()).dtype == torch.float64
    if spec.n_experts and (double or patterns == "eager"):
        # torch's grouped product knows no float64, and is one call that no interpreter follows
        hf.set_experts_implementation("eager")
    stored = LoadedWeights(hf, spec)
    context = context_of(hf)
    probe = Batch(*(x.to(home) for x in probe_rows(spec.d_vocab, context)))
    plain = plain_logits(hf, probe)
    adapter = getattr(
        import_module(f".backends.{backend}", __package__), f"{backend.title()}Backend"
    )
    prompting = Prompting(tokenizer, bos)
    subject = Subject(adapter(hf, spec), spec, prompting, home)
    subject.ends = ends_of(hf, tokenizer)
    text = hf.config.get_text_config()
    if "linear_attention" in (getattr(text, "layer_types", None) or ()):
        subject._cache_config = text
    if "cache" in signature(hf.forward).parameters:
        subject.cache_name = "cache"
    subject.double = double
    subject.split = is_split(hf)
    if is_elsewhere(hf):
        subject.no_gradients = NO_GRADIENTS
    subject.context = context
    subject.weights = weights
    own = subject.logits(probe)[probe.mask]
    subject.parity = parity(own, plain, spec.model_type, backend)
    _check_sites(subject, probe, stored)
    return subject


def _check_sites(subject: Subject, probe: Batch, weights: LoadedWeights) -> None:
    """Note how far its sites are from each other; those that are wrong are not offered any more."""
    found = subject.capture(probe, looked_at(subject.sites, subject.spec))
    checked = check(found, probe.mask, weights)
    subject.site_error, subject.site_errors = checked.largest, checked.errors
    subject.refused = {s: checked.faults[s.kind] for s in subject.sites if s.kind in checked.faults}
    for layer in weights.sparse:
        reason = expert_reason(subject.spec, layer)
        subject.absent |= {Site(kind, layer): reason for kind in DENSE_ONLY}
    subject.sites = tuple(site for site in subject.sites if site not in subject.refused)
