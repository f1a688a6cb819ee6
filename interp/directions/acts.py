"""Several edits at once, each written as a text.

    hold 29.down.808=40            a neuron's activation is that value
    add SOURCE=8                   so many times a direction is added
    project-out SOURCE             a direction is taken out
    steer-latent sae:PLACE:12=5    what a latent writes is added, in units of its activation
    clamp-latent sae:PLACE:12=0    a latent is worth that value, all else is kept
    ablate-latent sae:PLACE:12     a latent's contribution is taken away
    splice sae:PLACE               an SAE's reconstruction stands in the place of the activations
    splice+error sae:PLACE         the same with the SAE's error added back

SOURCE is what `open_directions` takes, of one direction; PLACE is an SAE's folder,
`run:KEY/FOLDER`, `shipped:FOLDER` or release:sae_id. The edits act in the order given, at all
positions but those that an SAE was not trained on (`saes.edits`). One command, one address of the
app's page and one notebook call hold the same texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UserError
from ..model.edits import Edit, clamp, project_out
from ..model.neuron import check_neuron, clamp_site, parse_neuron
from ..model.prompting import Bos
from ..model.subject import Subject
from ..model.weights import open_weights
from ..plain_numbers import exact
from ..runs.store import Store
from .directions import Directions
from .sets import sae_place
from .sources import open_directions

if TYPE_CHECKING:
    from ..saes import Sae

VERBS = {
    "hold": True,
    "add": True,
    "project-out": False,
    "steer-latent": True,
    "clamp-latent": True,
    "ablate-latent": False,
    "splice": False,
    "splice+error": False,
}
"""What can be done, and whether with a value."""


@dataclass(frozen=True)
class Act:
    """One edit as a text says it; whether a model has it shows when it is made (`edits_of`)."""

    verb: str
    target: str
    """A neuron, a direction's source, or `sae:PLACE:N`."""
    value: float = math.nan
    """NaN for a verb without one."""

    def __str__(self) -> str:
        return f"{self.verb} {self.target}" + (f"={exact(self.value)}" if VERBS[self.verb] else "")

    @property
    def sae(self) -> str:
        """The place of the SAE that it acts by; "" for none."""
        if self.verb in ("hold", "add", "project-out"):
            return ""
        return self._sae_and_latent()[0]

    @property
    def latent(self) -> int:
        """The latent's number."""
        return self._sae_and_latent()[1]

    def _sae_and_latent(self) -> tuple[str, int]:
        place = self.target.removeprefix("sae:")
        if self.verb.startswith("splice"):
            return place, -1
        place, _, number = place.rpartition(":")
        return place, int(number)


def parse_act(text: str) -> Act:
    """One edit.

    Raises:
        UserError: a text of another form.
    """
    verb, _, rest = text.strip().partition(" ")
    if verb not in VERBS:
        raise UserError(
            f"'{text}' is no edit: it begins with one of {', '.join(VERBS)}, as in 'hold "
            "29.down.808=40'"
        )
    target, value = rest.strip(), math.nan
    if VERBS[verb]:
        target, equals, number = (part.strip() for part in rest.rpartition("="))
        given = _number(number) if equals else None
        if given is None:
            raise UserError(f"'{text}' has no value: write '{verb} {target or number}=8'")
        if not math.isfinite(given):
            raise UserError(f"'{text}' is not finite: write a number, '{verb} {target}=8'")
        value = given
    if not target:
        raise UserError(f"'{text}' says not of what: write '{verb} SOURCE'")
    if verb == "hold":
        clamp_site(parse_neuron(target))
    if verb not in ("hold", "add", "project-out"):
        _check_sae(verb, target)
    return Act(verb, target, value)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _check_sae(verb: str, target: str) -> None:
    place, _, number = target.removeprefix("sae:").rpartition(":")
    splices = verb.startswith("splice")
    if not target.startswith("sae:") or not (target[4:] if splices else place):
        raise UserError(f"'{target}' names no SAE: write sae:PLACE" + ":12" * (not splices))
    if not splices and not (number.isdecimal() and len(number) < 10):
        raise UserError(f"'{target}' names no latent: write its number last, {target}:12")


def one_direction(source: str, model: str) -> Directions:
    """The one direction that a text names.

    Raises:
        UserError: as `open_directions`; several.
    """
    opened = open_directions(source, model)
    if len(opened) != 1:
        raise UserError(
            f"'{source}' holds {len(opened)} directions: name one, as in FOLDER:0 or run:KEY/SET:0"
        )
    return opened


def edits_of(
    acts: Sequence[Act], subject: Subject, model: str, sae: Callable[[str], Sae] | None = None
) -> list[Edit]:
    """The edits that texts ask for.

    Args:
        model: the subject's name, by which directions are opened.
        sae: opens an SAE by its place; each is opened once.

    Raises:
        UserError: a neuron, direction, SAE or latent that is not there, or not of this model.
    """
    opened: dict[str, Sae] = {}
    for place in dict.fromkeys(act.sae for act in acts if act.sae):
        opened[place] = (sae or _opened)(place)
        opened[place].check_model(model, place)
    made = []
    for act in acts:
        edit = _by_latent(act, opened[act.sae], subject) if act.sae else _by_direction(act, model)
        subject.matching([edit.site])
        made.append(edit)
    return made


def _opened(place: str) -> Sae:
    from ..saes import open_sae

    return open_sae(sae_place(place, Store()))


def _by_direction(act: Act, model: str) -> Edit:
    if act.verb == "hold":
        neuron = parse_neuron(act.target)
        check_neuron(neuron, open_weights(model))
        return clamp(clamp_site(neuron), neuron.neuron, act.value)
    direction = one_direction(act.target, model)
    direction.note_model(open_weights(model))
    if act.verb == "project-out":
        return project_out(direction.site, direction.vectors)
    return direction.steer(0, act.value)


def _by_latent(act: Act, sae: Sae, subject: Subject) -> Edit:
    from ..saes.edits import ablate_latent, clamp_latent, splice, steer_latent

    if act.verb.startswith("splice"):
        return splice(sae, subject.prompting, error=act.verb == "splice+error")
    if act.verb == "ablate-latent":
        return ablate_latent(sae, act.latent, subject.prompting)
    change = steer_latent if act.verb == "steer-latent" else clamp_latent
    return change(sae, act.latent, act.value, subject.prompting)


def feeding(acts: Sequence[Act]) -> Bos:
    """Whether a BOS goes before the texts: as the first SAE says that it was trained, if any."""
    from ..saes.open import saes_bos

    places = [act.sae for act in acts if act.sae]
    return saes_bos(sae_place(places[0], Store())) if places else "auto"
