"""A stored run that somebody changed: every answer is the right one, or none is given."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from interp.neurons.atlas import AtlasConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load

from .harness import Server
from .mutate import damaged

ASKED = {
    "command line": ("interp.cli:main", ("neurons", "top", "--limit", "20", "--json")),
    "notebook": ("tests.fuzz.answers:notebook", ()),
    "app": ("tests.fuzz.answers:app", ()),
}
MANY = 300


@pytest.fixture(scope="module")
def atlas(model_folder, tmp_path_factory):
    """A folder with a store of one atlas in it."""
    folder = tmp_path_factory.mktemp("atlas") / "sound"
    store = Store(folder / "runs")
    made = run_or_load(AtlasConfig(model=str(model_folder("llama"))), store)
    return made.path.relative_to(folder), folder


def flip(run: Path, rng: random.Random) -> str:
    """One bit of any file of the run."""
    file = rng.choice(
        sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size)
    )
    content = bytearray(file.read_bytes())
    at = rng.randrange(len(content))
    content[at] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return f"bit of byte {at} of {file.relative_to(run)}"


def edit(run: Path, rng: random.Random) -> str:
    """One or more values of the manifest or of the plan."""
    file = run / rng.choice(("manifest.json", "manifest.json", "run.json"))
    content, how = damaged(file.read_bytes(), ".json", rng)
    file.write_bytes(content)
    return f"{file.name}: {how}"


def stray(run: Path, rng: random.Random) -> str:
    """A file that is not the run's, a missing one, or one in the place of another."""
    parts = sorted(run.glob("neurons/*.parquet"))
    one, other = rng.sample(parts, 2)
    kind = rng.randrange(8)
    if kind == 0:
        shutil.copy(one, run / "neurons" / rng.choice(("L999.parquet", "a.parquet", "L0.parquet")))
    elif kind == 1:
        (run / "neurons" / "L998.parquet").symlink_to(one)
    elif kind == 2:
        one.unlink()
    elif kind == 3:
        shutil.copy(one, other)
    elif kind == 4:
        kept = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(kept)
    elif kind == 5:
        one.rename(run / one.name)
    elif kind == 6:
        half = run.with_name(f".{run.name}.fresh")
        shutil.copytree(run, half)
        (half / rng.choice(("manifest.json", "run.json"))).unlink()
    else:
        kept = one.read_bytes()
        one.unlink()
        (run.parent / "elsewhere").write_bytes(kept)
        one.symlink_to(run.parent / "elsewhere")
    return f"way {kind}, {one.name}, {other.name}"


WAYS = (flip, edit, stray)


def changed(server: Server, atlas, seeds, folder: Path) -> Counter:
    """Change the run once a seed and ask; fail at an answer that is not the right one."""
    where, sound = atlas
    counts: Counter = Counter()
    right = {}
    for seed in (None, *seeds):
        case = folder / "case"
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(sound, case)
        rng = random.Random(seed)
        way = WAYS[(seed or 0) % len(WAYS)]
        how = "" if seed is None else way(case / where, rng)
        for asked, (call, command) in ASKED.items():
            outcome = server.run(command, case, call)
            if seed is None:
                assert outcome.kind == "answer", outcome.err
                right[asked] = outcome.out
                continue
            what = f"seed {seed}, {way.__name__} ({how}), {asked}"
            assert outcome.kind in ("answer", "line"), f"{what}: {outcome.kind}\n{outcome.err}"
            same = outcome.kind == "line" or outcome.out == right[asked]
            assert same, f"{what}: another answer, and no word of it\n{outcome.out[:2000]}"
            counts[way.__name__, asked, outcome.kind] += 1
    return counts


def shown(counts: Counter) -> str:
    return "\n".join(json.dumps([*key, n]) for key, n in sorted(counts.items()))


def test_a_few_changes(atlas, server, tmp_path):
    counts = changed(server, atlas, range(3), tmp_path)
    assert counts.total() == 3 * len(ASKED)


@pytest.mark.slow
def test_many_changes(atlas, server, tmp_path):
    counts = changed(server, atlas, range(MANY), tmp_path)
    print(shown(counts))
    assert counts.total() == MANY * len(ASKED)
