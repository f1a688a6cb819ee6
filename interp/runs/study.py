"""A study: a frozen config, what it depends on, and one function that writes its run.

The command line, the notebooks and the app all go through `run_or_load`, so there is one code path
from a config to a result.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..errors import UserError
from ..model.catalog import DEFAULT_MODEL
from ..model.prompting import Bos
from ..plain_path import plain_path
from ..progress import waiting
from .making import open_or_make
from .manifest import SCHEMA, key_of
from .store import Run, Store, usual_store
from .workers_task import Workers
from .writer import RunWriter

if TYPE_CHECKING:
    from ..model.prompting import Prompting
    from ..model.subject import Subject
    from ..model.weights import Weights


class Study(Protocol):
    """What a config dataclass offers to be a study.

    A field with `metadata={"key": False}` (a device, say) does not change the result and stays
    out of the run's key.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    STUDY: ClassVar[str]
    """Name, `<analysis>.<study>`: the folder its runs are kept in."""
    VERSION: ClassVar[int]
    """Raised whenever the same config would give other results."""

    def fingerprints(self) -> dict[str, str]:
        """Hashes of the model and the data that the result depends on."""
        ...

    def check(self) -> None:
        """Raise UserError for settings that cannot work, before anything is written."""
        ...

    def run(self, out: RunWriter) -> dict[str, Any]:
        """Write every part that `out` does not have yet; return the metrics."""
        ...


@dataclass(frozen=True)
class ModelStudy:
    """What studies of one language model share. Where a config has a `corpus`, its text counts."""

    model: str = DEFAULT_MODEL
    """A catalog name, hub id, folder or .gguf file."""
    device: str = field(default="cpu", kw_only=True, metadata={"key": False})
    """Where to compute (cpu, cuda, cuda:1, mps); split, or split:24G with at most so much on each,
    puts the model on all GPUs, then in memory, and reads the rest from its files in each pass."""

    @property
    def own_device(self) -> str:
        """Where to compute what is none of the model's passes: `device`, and of a split model the
        first."""
        from ..model.devices import first_device

        return first_device(self.device)

    @cached_property
    def stored_weights(self) -> Weights:
        """The model's weights on disk, read tensor by tensor."""
        from ..model.weights import open_weights

        return open_weights(self.model)

    def fingerprints(self) -> dict[str, str]:
        prints = self.stored_weights.fingerprints()
        if hasattr(self, "corpus"):
            from ..text.corpus import fingerprint

            prints["corpus"] = fingerprint(self.corpus or None)
        return prints

    def check(self) -> None:
        from ..model.devices import Split, check_device

        if not Split.of(self.device):
            check_device(self.device)

    def open(self, out: RunWriter, **options: Any) -> Subject:
        """The model as a Subject; the manifest gets how well it agrees with plain transformers and
        with itself, its device, and how text is fed.

        Args:
            options: `open_subject`'s.
        """
        subject = self.open_here(**options)
        self.record(out, subject)
        return subject

    def open_here(self, **options: Any) -> Subject:
        """As `open`, in a worker, whose process has no run's folder: `facts_of` it go back with its
        parts."""
        from ..model.subject import open_subject

        with waiting(f"opening {self.model}"):
            return open_subject(self.model, device=self.device, **options)

    def record(self, out: RunWriter, subject: Subject) -> None:
        """Put `facts_of` into the manifest."""
        out.facts |= self.facts_of(subject)

    def facts_of(self, subject: Subject) -> dict[str, Any]:
        """What a manifest says of an opened model."""
        text = subject.prompting.record()
        return {**subject.checks, "device": self.device, "text": text}


@dataclass(frozen=True)
class PartedStudy:
    """What studies share whose parts several workers can make; mixed into the others."""

    workers: str | int = field(default="1", kw_only=True, metadata={"key": False})
    """Who makes the parts: a number of processes of this machine, ray for the cluster that this
    machine is part of, or ray://HOST:PORT."""
    gpus_per_worker: float = field(default=0.0, kw_only=True, metadata={"key": False})
    """GPUs of a worker, of which it sees no others."""
    memory_per_worker: str | int = field(default="", kw_only=True, metadata={"key": False})
    """What a worker takes, as in 24G: a cluster has as many at once as its memory holds. By default
    what is known of the study."""

    @property
    def spread(self) -> Workers:
        """Where the parts are made.

        Raises:
            UserError: the settings say nothing that there is.
        """
        found = Workers.of(self.workers, self.gpus_per_worker, self.memory_per_worker)
        return replace(found, memory=found.memory or self.worker_bytes) if found.address else found

    @property
    def worker_bytes(self) -> int:
        """What a worker takes by arithmetic, for a cluster to count with; 0 where nobody knows."""
        return 0


@dataclass(frozen=True)
class TextStudy(ModelStudy):
    """A study that feeds text to its model. What goes before each text is part of the run's key;
    how it was asked for is not."""

    bos: Bos = field(default="auto", kw_only=True, metadata={"key": False})
    """A BOS token before each text: auto (as the model's own tokenizer has it), always or never."""

    @property
    def feeding(self) -> Bos:
        """`bos`, where nothing else decides."""
        return self.bos

    def fingerprints(self) -> dict[str, str]:
        return {**super().fingerprints(), **self.start_print()}

    def start_print(self) -> dict[str, str]:
        """The fingerprint of what goes before each text; none where nothing does."""
        start = self.start(self.feeding)
        return {"before each text": " ".join(map(str, start))} if start else {}

    def start(self, bos: Bos) -> tuple[int, ...]:
        """The ids before each text that is fed so."""
        from ..model.prompting import start_of

        weights = self.stored_weights
        return start_of(weights.folder, weights.fingerprints()["tokenizer"], bos)

    @cached_property
    def prompting(self) -> Prompting:
        """What becomes of text, of the tokenizer alone: what can be refused without the model."""
        from ..model.prompting import Prompting
        from ..model.tokenizer_files import load_tokenizer

        return Prompting(load_tokenizer(self.stored_weights.folder), self.feeding)

    def open_here(self, **options: Any) -> Subject:
        return super().open_here(bos=self.feeding, **options)

    def check_words(self, *words: str) -> None:
        """Raise UserError for a word that is not one token, or for two that are the same; "" is
        none."""
        from ..model.prompting import one_token

        size, given = self.stored_weights.spec.d_vocab, [word for word in words if word]
        known: dict[int, str] = {}
        for word in given:
            number = one_token(self.prompting, word, size)
            if number in known:
                raise UserError(f"{known[number]!r} and {word!r} are the same token: give two")
            known[number] = word

    def check_tokens(self, k: int) -> None:
        """Raise UserError for a `--k` that is no number of tokens of a distribution."""
        most = self.stored_weights.spec.d_vocab
        if not 1 <= k <= most:
            raise UserError(f"--k must be 1 to {most}, not {k}")


def plan(study: Study) -> dict[str, Any]:
    """What identifies a run; its `key` hashes the rest."""
    config = {f.name: getattr(study, f.name) for f in fields(study)}
    keyed = _keyed(study)
    identity = {
        "study": study.STUDY,
        "version": study.VERSION,
        "config": {name: config[name] for name in keyed},
        "fingerprints": study.fingerprints(),
    }
    unkeyed = [name for name in config if name not in keyed]
    about = {"config": config, "unkeyed": unkeyed, "key": key_of(identity)}
    return {"schema": SCHEMA, **identity, **about}


def _planned(study: Study, store: Store) -> dict[str, Any]:
    """`plan`. Where the model or the data are not there, so that the key is not known, the error
    names a stored run of the same settings."""
    try:
        return plan(study)
    except UserError as error:
        for run in store.looked_through(study.STUDY)[0]:
            # a setting outside of the key may choose what is read, such as a lens or SAEs
            names = [f.name for f in fields(study) if f.name in run.config and f.name != "device"]
            asked = json.loads(json.dumps({name: getattr(study, name) for name in names}))
            if asked == {name: run.config[name] for name in names}:
                raise UserError(
                    f"{error}; a run of these settings, which opens without, is {run.path}: "
                    f"`interp figure {run.path}`, a page of `interp app`, or interp.open_run"
                ) from error
        raise


def _keyed(study: Study) -> list[str]:
    """The settings that count for the key."""
    return [f.name for f in fields(study) if f.metadata.get("key", True)]


def run_or_load(
    study: Study, store: Store | None = None, out: Path | None = None, fresh: bool = False
) -> Run:
    """The finished run of a study: loaded if it is there, resumed or made if it is not.

    The parts of a stored run are checked against their hashes; damaged ones are made again.

    Args:
        study: a config.
        store: where this run, and those it needs, are looked up and kept; by default `Store()`.
        out: this run's own folder, instead of a place in the store.
        fresh: run again even if there is a finished run, which the new one replaces at its end.

    Raises:
        UserError: the model or the output is not usable, or `out` holds another run.
    """
    study = replace(study)  # what a config used before remembers of files may have changed

    with usual_store(store.root if store else None) as usual:
        planned = _planned(study, usual)
        path = plain_path(out) if out else usual.folder(study.STUDY, planned["key"])
        return open_or_make(path, planned, study.check, study.run, fresh)
