"""`interp linearscope …`"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from ..linearscope.explain import BiasConfig, ExplainConfig
from ..linearscope.responses import ImpulseConfig, SvdConfig
from ..linearscope.tokens import TokensConfig
from ..linearscope.train_sketch import SketchConfig
from .common import (
    Json,
    answered,
    command,
    print_markdown,
    print_metrics,
    print_table,
    study_command,
    with_table,
)

linearscope = SubcommandApp()

study_command(linearscope, ExplainConfig, with_table("classes"))
study_command(linearscope, BiasConfig, with_table("pictures"))
study_command(linearscope, SvdConfig, with_table("values"))
study_command(linearscope, ImpulseConfig, with_table("places"))
study_command(linearscope, TokensConfig, with_table("tokens"))
study_command(linearscope, SketchConfig, with_table("held"))


@command(linearscope, "speed")
def speed(model: str = "efficientnet-lite0", json: Json = False) -> None:
    """The interpreter's cost in passes of the plain network, measured."""
    from ..linearscope.speed import measure

    metrics = measure(model)
    if not answered(json, "linearscope.speed", metrics):
        print_metrics(metrics, ".3g")


@command(linearscope, "architectures")
def architectures(markdown: bool = False, json: Json = False) -> None:
    """The interpreter's identities on architectures of timm and torchvision with random weights.

    What is refused is named. Three minutes of one processor; needs the extra `architectures`.

    Args:
        markdown: Print the table as Markdown (docs/architectures.md).
    """
    from ..linearscope.architectures import Row, architectures, measure
    from ..progress import progress

    listed, rows = architectures(), []
    with progress("measure the architectures", len(listed), "architectures") as advance:
        for one in listed:
            rows.append(measure(one)[0])
            advance(1, one.name)
    if not answered(json, "linearscope.architectures", {}, rows=[row._asdict() for row in rows]):
        show = print_markdown if markdown else print_table
        show(list(Row._fields), [list(row) for row in rows])
