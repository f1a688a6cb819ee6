"""What goes beside an exported lens: what it was fitted on, and how sure it is, layer by layer."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..errors import UserError
from ..model.catalog import known_as
from ..runs.command import command
from ..runs.store import Run, open_run
from .files import STUDIES
from .lens import Lens

MEANS = {
    "agreement": "cosine of the maps from the prompts of even and of odd number",
    "trace": "trace of the map over the width of the stream",
    "norm": "length of the map over the root of the width",
    "logit_kl": "KL of the model's distribution from the logit lens', held-out passages, nats",
    "kl": "the same from this lens'",
}
"""Columns of `layers.parquet`."""


def run_of(lens: Lens) -> Run:
    """The run that a lens is from.

    Raises:
        UserError: it is from a file of its own.
    """
    folder = Path(lens.source).parent
    if not (folder / "manifest.json").is_file():
        raise UserError(f"{lens.source or lens.name} is in no run, which a card is written from")
    return open_run(folder, STUDIES[lens.name])


def card(lens: Lens, file: str) -> str:
    """Markdown: the model, the passages, the file, and the run's `layers.parquet`.

    Args:
        file: the lens' name beside the card.
    """
    run = run_of(lens)
    config, rows = run.config, run.table("layers")
    model = known_as(lens.weights.folder)
    corpus = config["corpus"] or "the installed Python's documentation and code"
    columns = [name for name in rows if name in MEANS]
    lines = [
        f"# {lens.name.capitalize()} lens of {model}",
        f"`{file}` holds the maps of {len(lens.maps)} layers, fitted on {config['prompts']} "
        f"passages of {config['length']} tokens from {corpus}, each of another document, without "
        f"their first {config['skip']} positions. It holds for the weights "
        f"`{lens.weights.fingerprint()[:12]}`, unfolded.",
        f"```sh\n.venv/bin/{shlex.join(command(run.study, config))}\n```",
        "\n".join(f"- {name}: {MEANS[name]}" for name in columns),
        "\n".join(
            [
                f"| layer | {' | '.join(columns)} |",
                "|---" * (1 + len(columns)) + "|",
                *(
                    f"| {row['layer']} | {' | '.join(f'{row[name]:.3f}' for name in columns)} |"
                    for row in rows.to_dict("records")
                ),
            ]
        ),
    ]
    return "\n\n".join(lines) + "\n"
