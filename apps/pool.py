"""What the app's server holds in memory of models: one pool for all windows, with a limit.

Everything in it is named by its content (the weights' hash, what goes before a text, an adapter's
hash; an SAE's hash), never by a name or a path, which may mean something else by now. Whoever
borrows a thing has it alone: an edit applies to whatever runs, and some SAEs remember their last
input. Others wait in the order of asking. What is idle leaves, the least recently used first, when
something else needs its room; what is borrowed never does (`lending`).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import streamlit as st

from interp.apps.common import consent_to_sae
from interp.apps.lending import MODEL, OTHER, RUN, SAE, Key, Pool, limit
from interp.apps.words import plain
from interp.plain_path import found
from interp.runs.store import Run, Store
from interp.runs.study import ModelStudy, Study, plan, run_or_load

if TYPE_CHECKING:
    from interp.model.prompting import Bos
    from interp.model.subject import Subject
    from interp.model.weights import Weights
    from interp.obsprop.model_weights import StackedWeights
    from interp.saes import Sae

POOL = Pool(limit)
"""The server's own."""


@cache
def import_for_models() -> None:
    """Import what every model needs, once, and have the garbage collector leave it alone: Streamlit
    collects after every click, and would look at 400,000 objects of torch and transformers (.2 to
    .5 s). Before the first model is made: what is alive now and refers to itself stays for good."""
    import_module("transformers.modeling_utils")
    gc.collect()
    gc.freeze()


@contextmanager
def _in_the_window(name: str) -> Iterator[Callable[[], None]]:
    """A spinner that says what is waited for. Whatever the window does meanwhile ends the wait: a
    script that is not wanted any more is stopped when it next writes something."""
    with st.spinner(f"Another window has {plain(name)}; waiting for a turn …", show_time=True):
        note = st.empty()

        def look() -> None:
            note.empty()

        yield look


@contextmanager
def borrowed(model: str, bos: Bos = "auto", adapter: str = "") -> Iterator[Subject]:
    """A model for this window alone, without edits, until the block is left.

    Args:
        model: a catalog name, hub id, folder or .gguf file.
        bos: a BOS token before each text, as `open_subject` takes it.
        adapter: the folder of a LoRA adapter to merge into it, or "shipped".
    """
    weights, key = _identity(model, bos, adapter)

    def make() -> Subject:
        from interp.knob.adapter import open_tuned

        with st.spinner(f"opening {plain(model)} …", show_time=True):
            import_for_models()
            # eager: so that heads' patterns can be read
            return open_tuned(model, adapter or "none", bos=bos, attention="eager")

    with POOL.lent(key, model, 4 * weights.numbers, make, _in_the_window) as subject:
        subject.edits = ()
        try:
            yield subject
        finally:
            subject.edits = ()


def content(model: str, bos: Bos = "auto", adapter: str = "") -> Key:
    """What a model is, to remember an answer by: another wherever it would say something else."""
    return _identity(model, bos, adapter)[1]


def _identity(model: str, bos: Bos, adapter: str) -> tuple[Weights, Key]:
    from interp.knob.adapter import adapter_print
    from interp.model.prompting import start_of
    from interp.model.weights import open_weights

    weights = open_weights(model)
    prints = weights.fingerprints()
    start = start_of(weights.folder, prints["tokenizer"], bos)
    own = adapter_print(adapter or "none")
    return weights, (MODEL, *prints.values(), " ".join(map(str, start)), own)


def run(study: Study) -> Run:
    """`run_or_load` on a page. A study opens its model itself, so until it is done there is room
    for that copy as for any other: idle ones leave, or it waits."""
    made = Store().folder(study.STUDY, plan(study)["key"]) / "manifest.json"
    if made.exists() or not isinstance(study, ModelStudy):
        return run_or_load(study)
    own = (RUN, study.model, str(time.monotonic_ns()))
    size = 4 * study.stored_weights.numbers
    with POOL.lent(own, study.model, size, object, _in_the_window, keep=False):
        return run_or_load(study)


@contextmanager
def surveyed_sae(survey: Run) -> Iterator[Sae]:
    """The SAE of a survey, after the model that it is used with."""
    from interp.latents.prompt import survey_config
    from interp.latents.prompt import surveyed_sae as opened

    config = survey_config(survey)
    key = (SAE, str(survey.manifest["fingerprints"]["saes"]), config.site)
    with _lent_sae(key, config.source, lambda: opened(survey)) as sae:
        yield sae


@contextmanager
def saes(places: Collection[str]) -> Iterator[dict[str, Sae]]:
    """SAEs by what opens them, after the model that they are used with."""
    from interp.directions.sets import sae_place
    from interp.saes.open import open_sae, saes_fingerprint

    with ExitStack() as stack:
        opened: dict[Key, Sae] = {}
        paths = {place: sae_place(place, Store()) for place in places}
        keys = {place: (SAE, saes_fingerprint(path), "") for place, path in paths.items()}
        for key, place in sorted((key, place) for place, key in keys.items()):
            if key not in opened:  # one SAE may lie in two places
                lent = _lent_sae(key, paths[place], partial(open_sae, paths[place]))
                opened[key] = stack.enter_context(lent)
        yield {place: opened[key] for place, key in keys.items()}


def _lent_sae(key: Key, source: str, make: Callable[[], Sae]) -> AbstractContextManager[Sae]:
    consent_to_sae(source)  # a survey or an address may come from anybody

    def opened() -> Sae:
        with st.spinner("opening the SAE …", show_time=True):
            return make()

    return POOL.lent(key, source, _files(source), opened, _in_the_window)


@contextmanager
def stacked_weights(model: str) -> Iterator[StackedWeights]:
    """The heads' weights of a model, read from its files: no text goes through them."""
    from interp.obsprop.model_weights import StackedWeights

    weights, key = _identity(model, "auto", "")

    def make() -> StackedWeights:
        with st.spinner("reading the heads' weights …"):
            return StackedWeights(weights)

    size = 4 * weights.spec.n_layers * weights.spec.d_model * weights.spec.d_head
    size *= weights.spec.n_heads + weights.spec.n_kv_heads
    key = (OTHER, "heads", *key)
    with POOL.lent(key, f"the heads of {model}", size, make, _in_the_window) as stacked:
        yield stacked


@contextmanager
def kept(key: Key, name: str, make: Callable[[], Any]) -> Iterator[Any]:
    """Anything else that a page keeps, by its content."""
    with POOL.lent((OTHER, *key), name, 0, make, _in_the_window) as value:
        yield value


def _files(source: str) -> int:
    """Bytes of the tensors in a folder; 0 for what is none."""
    folder = found(source)
    each = folder.rglob("*.safetensors") if folder and folder.is_dir() else ()
    return sum(file.stat().st_size for file in each)
