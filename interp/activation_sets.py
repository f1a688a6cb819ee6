"""Activation sets: activations of a corpus on disk, shuffled, in shards.

    activations-00000.safetensors, …   one tensor [tokens, ...] a site, and row, position, token
    index.json                         written last; a folder without it is no activation set

The index names sites, tokens, seed, shards, the edits that were in scope, and fingerprints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .activations import Sites, Source, advancing, passes, per_token
from .errors import UserError
from .site import Site
from .store import RunWriter, save_tensors
from .subject import Subject

SCHEMA = 1
"""Version of an activation set's layout."""
SOURCES = ("row", "position", "token")


def collect(
    subject: Subject,
    rows: Iterable[Sequence[int]],
    sites: Sites,
    out: RunWriter | Path,
    shard_tokens: int = 2**16,
    seed: int = 0,
    batch_size: int = 8,
    fingerprints: Mapping[str, str] | None = None,
) -> ActivationSet:
    """Write activations to a folder (`activations/` of a run), shuffled, in shards.

    The shuffle is that of a bounded buffer, the same for all sites: when 2 * shard_tokens tokens
    are held, a random half of them becomes a shard. So a shard mixes tokens of many rows, and a
    token may come out any number of shards late, but not early: it is no shuffle of the whole
    corpus. Memory: up to four shards and one batch.

    Args:
        fingerprints: kept in the index, beside those of the model (where its files are known) and
            of the ids themselves.

    Raises:
        UserError: as `stream`; a finished set is there already; the folder cannot be written.
    """
    wanted = per_token(subject, sites)
    writer = RunWriter(out.path / "activations" if isinstance(out, RunWriter) else out, {})
    _clear(writer, shard_tokens)
    buffer, digest = _ShuffleBuffer(shard_tokens, seed), hashlib.sha256()
    shards: list[dict[str, Any]] = []
    form: dict[str, Any] = {}
    with advancing("collect", rows) as advance:
        for source, found in passes(subject, rows, wanted, batch_size):
            digest.update(torch.stack(source, 1).cpu().numpy().tobytes())
            tensors = {str(site): x.cpu() for site, x in found.items()}
            form = {name: _form(x) for name, x in tensors.items()}
            sources = zip(SOURCES, source, strict=True)
            buffer.add(tensors | {name: x.to("cpu", torch.int32) for name, x in sources})
            while buffer.full:
                shards.append(_write_shard(writer, len(shards), buffer.draw()))
            advance(len(source.token))
    while buffer.held:
        shards.append(_write_shard(writer, len(shards), buffer.draw()))
    model = {"model": subject.weights.fingerprint()} if subject.weights else {}
    prints = {**model, "rows": digest.hexdigest(), **(fingerprints or {})}
    tokens = sum(shard["tokens"] for shard in shards)
    made = {"seed": seed, "edits": [str(edit) for edit in subject.edits], "fingerprints": prints}
    index = {"sites": form, "tokens": tokens, **made}
    with writer.part("index.json") as making:
        making.write_text(json.dumps({"schema": SCHEMA, **index, "shards": shards}, indent=1))
    return ActivationSet(writer.path)


def _form(x: Tensor) -> dict[str, Any]:
    return {"dtype": str(x.dtype).removeprefix("torch."), "shape": list(x.shape[1:])}


def _clear(writer: RunWriter, shard_tokens: int) -> None:
    if shard_tokens < 1:
        raise UserError(f"shards of {shard_tokens} tokens: give at least 1")
    if writer.has("index.json"):
        raise UserError(f"{writer.path} holds an activation set already: choose another folder")
    try:
        writer.path.mkdir(parents=True, exist_ok=True)
        for remains in writer.path.glob("activations-*.safetensors"):
            remains.unlink()  # of a collect that was interrupted
    except OSError as error:
        raise UserError(f"cannot write {writer.path} ({error}): choose another folder") from error


def _write_shard(writer: RunWriter, number: int, tensors: dict[str, Tensor]) -> dict[str, Any]:
    name = f"activations-{number:05d}.safetensors"
    with writer.part(name) as making:
        save_tensors(tensors, making)
    return {"file": name, "tokens": len(tensors["token"])}


class _ShuffleBuffer:
    """Holds tokens until there are two shards of them, then gives out a random one."""

    def __init__(self, shard_tokens: int, seed: int) -> None:
        self.held = 0
        self._size = shard_tokens
        self._parts: list[dict[str, Tensor]] = []
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def full(self) -> bool:
        return self.held >= 2 * self._size

    def add(self, part: dict[str, Tensor]) -> None:
        self._parts.append(part)
        self.held += len(part["token"])

    def draw(self) -> dict[str, Tensor]:
        order = torch.randperm(self.held, generator=self._generator)
        drawn, kept = {}, {}
        for name in list(self._parts[0]):
            whole = torch.cat([part.pop(name) for part in self._parts])
            drawn[name], kept[name] = whole[order[: self._size]], whole[order[self._size :]]
        self._parts = [kept]
        self.held = len(kept["token"])
        return drawn


class ActivationSet:
    """Activations on disk, as `collect` wrote them; read shard by shard.

    Raises:
        UserError: no finished set there, another layout, or (while reading) a damaged shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "index.json"
        if not path.is_file():
            raise UserError(f"{folder} holds no finished activation set: collect it again")
        try:
            self.index: dict[str, Any] = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"cannot read {path} ({error}): collect it again") from error
        if self.index.get("schema") != SCHEMA:
            raise UserError(f"{path} is not of this version's layout ({SCHEMA}): collect it again")
        self.sites = tuple(Site.parse(name) for name in self.index["sites"])
        self.tokens = int(self.index["tokens"])

    def shards(
        self, sites: Sites | None = None
    ) -> Iterator[dict[Site, Float[Tensor, "tokens ..."]]]:
        """The shards in order, each whole; only the sites asked for are read."""
        wanted = self._chosen(sites)
        for number in range(len(self.index["shards"])):
            tensors = self._read(number, [str(site) for site in wanted])
            yield dict(zip(wanted, tensors, strict=True))

    def sources(self) -> Iterator[Source]:
        """Where the tokens of each shard come from, in the order of `shards()`."""
        for number in range(len(self.index["shards"])):
            yield Source(*self._read(number, SOURCES))

    def batches(
        self, size: int, seed: int = 0, sites: Sites | None = None
    ) -> Iterator[dict[Site, Float[Tensor, "tokens ..."]]]:
        """One pass in random batches of `size` tokens (the last may be smaller).

        Shards come in random order and tokens within each are shuffled; every token comes once.
        """
        if size < 1:
            raise UserError(f"batches of {size} tokens: give at least 1")
        wanted = self._chosen(sites)
        names = [str(site) for site in wanted]
        generator = torch.Generator().manual_seed(seed)
        rest: list[Tensor] = []
        for number in torch.randperm(len(self.index["shards"]), generator=generator).tolist():
            shard = self._read(number, names)
            order = torch.randperm(len(shard[0]), generator=generator)
            shard = [x[order] for x in shard]
            pool = [torch.cat(pair) for pair in zip(rest, shard, strict=True)] if rest else shard
            whole = len(pool[0]) - len(pool[0]) % size
            for start in range(0, whole, size):
                yield {s: x[start : start + size] for s, x in zip(wanted, pool, strict=True)}
            rest = [x[whole:].clone() for x in pool]
        if len(rest[0]):
            yield dict(zip(wanted, rest, strict=True))

    def _chosen(self, sites: Sites | None) -> list[Site]:
        given = self.sites if sites is None else [sites] if isinstance(sites, str) else sites
        wanted = [Site.parse(site) if isinstance(site, str) else site for site in given]
        if not wanted or not set(wanted) <= set(self.sites):
            raise UserError(
                f"{self.folder} holds {', '.join(self.index['sites'])}: choose of these"
            )
        return wanted

    def _read(self, number: int, names: Sequence[str]) -> list[Tensor]:
        about = self.index["shards"][number]
        path = self.folder / about["file"]
        try:
            with safe_open(path, "pt") as file:
                tensors = [file.get_tensor(name) for name in names]
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is missing or damaged ({error}): collect it again") from error
        if any(len(x) != about["tokens"] for x in tensors):
            raise UserError(f"{path} does not hold what index.json says: collect it again")
        return tensors
