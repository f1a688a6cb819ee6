"""The registry: what the workbench can do, one entry an analysis.

The command line, the app's navigation, the labels of stored runs and the docs' index come from it.
Everything heavy is named by an import string, `module:name`, and imported when it is used, so that
`interp --help` needs no torch. A package of one's own adds an analysis through the entry point
group `interp.analyses`; see docs/extending.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import PurePath
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from .papers import (
    DARK_MATTER,
    DECODING,
    HEADS,
    JACOBIAN_LENS,
    KNOB,
    LAYERS,
    NEURON_CIRCUITS,
    OBSERVABLES,
    PATCHING,
    RELP,
    SAEBENCH,
    TARS,
    TOUR,
    TUNED_LENS,
    Paper,
)
from .plugins import outside
from .runs import fit

GROUP = "interp.analyses"


class Page(NamedTuple):
    """A page of the app: a module with a function `page()`."""

    module: str
    title: str
    icon: str
    """A Material symbol."""
    shows: tuple[tuple[str, str], ...] = ()
    """The studies whose runs it shows, each with what the URL says before the run's key."""

    @property
    def address(self) -> str:
        """Its part of the URL."""
        return self.module.removeprefix("interp.apps.").replace(".", "-")


@dataclass(frozen=True)
class Analysis:
    """One analysis of the workbench."""

    name: str
    """Its command, and the first half of its studies' names: `neurons` in `neurons.atlas`."""
    sentence: str
    """What it is, for `interp --help` and the docs."""
    studies: tuple[str, ...] = ()
    """Configs of its studies, as import strings."""
    commands: str = ""
    """Its command group, an import string; by default each study is a command."""
    section: str = ""
    """Heading over its pages in the app; by default its name."""
    pages: tuple[Page, ...] = ()
    label: tuple[str, ...] = ()
    """Config fields that tell its runs apart, beside the model."""
    figures: str = ""
    """A function that gives a run's figures by name (`plots.Figures`), an import string."""
    papers: tuple[Paper, ...] = ()
    """What to cite."""
    speeds: str = ""
    """A function of a model's name that gives what `interp bench all` times (`timing.Pair`s), an
    import string."""

    def configs(self) -> list[Any]:
        """The config classes of its studies."""
        return [load(where) for where in self.studies]


def load(where: str) -> Any:
    """What an import string names, `interp.neurons.atlas:AtlasConfig`."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)


BUILT_IN = (
    Analysis(
        "prompt",
        "A prompt under the microscope: its tokens, and which parts of a model say the next one.",
        studies=("interp.microscope.look:LookConfig",),
        commands="interp.cli.prompt:prompt",
        section="A prompt",
        pages=(
            Page(
                "interp.apps.prompt",
                "Prompt",
                "biotech",
                (("prompt.look", "of=A stored look&run="),),
            ),
        ),
        label=("prompt", "target", "against", "other"),
        figures="interp.microscope.figures:of_run",
    ),
    Analysis(
        "neurons",
        "Every MLP neuron of a model, through its LM head.",
        studies=(
            "interp.neurons.atlas:AtlasConfig",
            "interp.neurons.clamp:ClampConfig",
            "interp.neurons.effects:EffectsConfig",
            "interp.neurons.tars:TarsConfig",
        ),
        commands="interp.cli.neurons:neurons",
        section="Neurons",
        pages=(
            Page("interp.apps.atlas", "Neuron atlas", "map", (("neurons.atlas", "run="),)),
            Page("interp.apps.clamp", "Clamp", "tune", (("neurons.clamp", "run="),)),
            Page(
                "interp.apps.tars", "Remove a concept", "delete_sweep", (("neurons.tars", "run="),)
            ),
            Page("interp.apps.agree", "Agreement", "compare"),
        ),
        label=("neuron", "norm", "lens"),
        figures="interp.neurons.figures:of_run",
        papers=(DECODING, TARS),
    ),
    Analysis(
        "directions",
        "Decode, score, compare and steer with what an analysis left, or with your own vector.",
        studies=(
            "interp.directions.bring:ImportConfig",
            "interp.directions.tokens:TokenDirectionsConfig",
        ),
        commands="interp.cli.directions_model:directions",
        section="Directions",
        pages=(
            Page("interp.apps.directions", "Directions", "explore"),
            Page("interp.apps.direction", "One direction", "near_me"),
            Page("interp.apps.kept", "Collections", "bookmarks"),
            Page("interp.apps.steer", "Steer", "moving"),
        ),
        speeds="interp.directions.speed:pairs",
    ),
    Analysis(
        "obsprop",
        "Feature vectors of a task from one pair of prompts.",
        studies=(
            "interp.obsprop.study:ObspropConfig",
            "interp.obsprop.couple:CoupleConfig",
        ),
        commands="interp.cli.obsprop:obsprop",
        section="Directions",
        pages=(
            Page(
                "interp.apps.obsprop",
                "Observables",
                "route",
                (("obsprop.run", "run="), ("obsprop.couple", "view=Coupling&couple=")),
            ),
        ),
        label=("observable",),
        figures="interp.obsprop.figures:of_run",
        papers=(OBSERVABLES,),
        speeds="interp.obsprop.speed:pairs",
    ),
    Analysis(
        "knob",
        "The direction between context and prior knowledge.",
        studies=(
            "interp.knob.data:DataConfig",
            "interp.knob.finetune:FinetuneConfig",
            "interp.knob.search:SearchConfig",
            "interp.knob.learn:LearnConfig",
            "interp.knob.steer_prompt:SteerConfig",
            "interp.knob.run:RunConfig",
        ),
        commands="interp.cli.knob:knob",
        section="Directions",
        pages=(
            Page(
                "interp.apps.knob",
                "Context knob",
                "tune",
                (("knob.run", "run="), ("knob.learn", "run=")),
            ),
        ),
        figures="interp.knob.figures:of_run",
        papers=(KNOB,),
    ),
    Analysis(
        "lens",
        "What a vector at any layer says in the model's own vocabulary.",
        studies=(
            "interp.lens.fit:FitConfig",
            "interp.lens.tune:TuneConfig",
            "interp.lens.grid:ShowConfig",
            "interp.lens.compare:LensCompareConfig",
        ),
        commands="interp.cli.lens:lens",
        section="Lenses",
        pages=(
            Page(
                "interp.apps.lens",
                "Lenses",
                "layers",
                (
                    ("lens.show", "prompt="),
                    ("lens.compare", "view=Compared&comparison="),
                    ("lens.fit", "view=Jacobian&fit="),
                    ("lens.tune", "view=Tuned&training="),
                ),
            ),
        ),
        label=("prompt", "lens"),
        figures="interp.lens.figures:of_run",
        papers=(TUNED_LENS, JACOBIAN_LENS),
        speeds="interp.lens.speed:pairs",
    ),
    Analysis(
        "circuits",
        "Which neurons and heads made a model say a token, and whether they really did.",
        studies=(
            "interp.circuits.trace:TraceConfig",
            "interp.circuits.groups:GroupConfig",
            "interp.circuits.truth:TruthConfig",
            "interp.circuits.steering:SteerConfig",
            "interp.circuits.heads:HeadConfig",
            "interp.circuits.roles:RolesConfig",
            "interp.circuits.patching:PatchConfig",
        ),
        commands="interp.cli.circuits:circuits",
        section="Circuits",
        pages=(
            Page(
                "interp.apps.circuits",
                "Circuits",
                "hub",
                (("circuits.trace", "run="), ("circuits.group", "grouped=")),
            ),
            Page(
                "interp.apps.heads",
                "Heads and patching",
                "visibility",
                (
                    ("circuits.patch", "patch="),
                    ("circuits.head", "view=A head&head="),
                    ("circuits.roles", "view=Every head&heads="),
                ),
            ),
        ),
        label=("head", "site", "task", "prompt", "target", "against", "observable", "groups"),
        figures="interp.circuits.pictures:of_run",
        papers=(RELP, NEURON_CIRCUITS, HEADS, PATCHING),
    ),
    Analysis(
        "saes",
        "Sparse autoencoders: open or train any, survey their latents, act by them, measure them.",
        studies=(
            "interp.latents.survey:SurveyConfig",
            "interp.latents.effects:LatentEffectsConfig",
            "interp.latents.measure:MeasureConfig",
            "interp.saes.training:SaeTrainConfig",
            "interp.saes.activations:ActivationsConfig",
        ),
        commands="interp.cli.act:saes",
        section="SAEs",
        pages=(Page("interp.apps.latents", "Latents", "scatter_plot", (("saes.survey", "run="),)),),
        label=("saes", "site", "gives", "sites"),
        figures="interp.latents.figures:of_run",
        papers=(SAEBENCH,),
        speeds="interp.latents.speed:pairs",
    ),
    Analysis(
        "darkmatter",
        "What SAEs leave unexplained, linear and nonlinear.",
        studies=(
            "interp.darkmatter.measure:DarkMatterConfig",
            "interp.darkmatter.measure:PursuitConfig",
            "interp.darkmatter.synthetic:SyntheticConfig",
            "interp.darkmatter.error_saes:ErrorSaesConfig",
            "interp.darkmatter.ladder:LadderConfig",
        ),
        commands="interp.cli.darkmatter:darkmatter",
        section="SAEs",
        pages=(
            Page(
                "interp.apps.darkmatter",
                "Dark matter",
                "blur_on",
                (
                    ("darkmatter.run", "encoder="),
                    ("darkmatter.pursuit", "codes=encoder and pursuit&pursuit="),
                    ("darkmatter.synthetic", "view=Planted faults&planted="),
                    ("darkmatter.errors", "view=SAEs of the error&trained="),
                ),
            ),
        ),
        label=("site",),
        figures="interp.darkmatter.figures:of_run",
        papers=(DARK_MATTER,),
    ),
    Analysis(
        "linearscope",
        "The linear system that a network is for one input.",
        studies=(
            "interp.linearscope.explain:ExplainConfig",
            "interp.linearscope.explain:BiasConfig",
            "interp.linearscope.responses:SvdConfig",
            "interp.linearscope.responses:ImpulseConfig",
            "interp.linearscope.tokens:TokensConfig",
            "interp.linearscope.train_sketch:SketchConfig",
        ),
        commands="interp.cli.linearscope:linearscope",
        section="Linear interpreters",
        pages=(
            Page(
                "interp.apps.linearscope",
                "LinearScope",
                "grid_view",
                (
                    ("linearscope.explain", "votes="),
                    ("linearscope.bias", "view=Biases of many pictures&biases="),
                    ("linearscope.svd", "view=Singular vectors&svd="),
                    ("linearscope.impulse", "view=Responses&impulse="),
                    ("linearscope.tokens", "view=Tokens&tokens="),
                ),
            ),
        ),
        label=("image", "prompt"),
        figures="interp.linearscope.figures:of_run",
        papers=(TOUR,),
        speeds="interp.linearscope.speed:pairs",
    ),
    Analysis(
        "othello",
        "OthelloGPT: linear probes against SAEs.",
        studies=(
            "interp.othello.sae:SaeConfig",
            "interp.othello.probe:ProbeConfig",
            "interp.othello.compare:CompareConfig",
            "interp.othello.edit:EditConfig",
        ),
        commands="interp.cli.othello:othello",
        section="OthelloGPT",
        pages=(
            Page("interp.apps.othello", "Board", "grid_on"),
            Page(
                "interp.apps.othello_layers",
                "Probes and SAEs",
                "stacked_line_chart",
                (("othello.compare", "run="),),
            ),
        ),
        figures="interp.othello.figures:of_run",
        papers=(LAYERS,),
    ),
    Analysis(
        "bench",
        "The projection kernels against the bare matrix product.",
        studies=("interp.bench.kernels:KernelBenchConfig",),
        commands="interp.cli.bench:bench",
        section="Speed",
        pages=(Page("interp.apps.bench", "Kernels", "speed", (("bench.kernels", "run="),)),),
        figures="interp.bench.figures:of_run",
    ),
)


WORKBENCH = (
    Page("interp.apps.new", "New study", "add_circle"),
    Page("interp.apps.jobs", "Jobs", "pending_actions"),
)
VERBS = {
    name: Analysis(
        name,
        sentence,
        commands=commands,
        section="Workbench",
        pages=WORKBENCH if name == "jobs" else (),
    )
    for name, sentence, commands in (
        ("models", "Models by name: list, add, describe.", "interp.cli.models:models"),
        ("app", "Explore stored runs in the browser.", "interp.cli.app:app"),
        ("steer", "What a model says under several edits at once.", "interp.cli.steer:steer"),
        ("jobs", "The queue of studies: add, list, log, cancel, again.", "interp.cli.jobs:jobs"),
        ("figure", "Save a figure of a run as SVG, PDF or PNG.", "interp.cli.runs:figure"),
        ("keep", "Collections of directions, prompts and views.", "interp.cli.keep:keep"),
        ("report", "A run as one HTML file to send.", "interp.cli.runs:report"),
        ("cite", "What to cite for a run, as BibTeX.", "interp.cli.runs:cite"),
    )
}
"""Commands that are no analysis."""


@cache
def analyses() -> dict[str, Analysis]:
    """Every analysis by its name: the built-in ones, then those of installed packages."""
    every = {entry.name: entry for entry in BUILT_IN}
    for _, entry in outside(GROUP, "analysis", lambda _, entry: _unfit(entry, every)):
        every[entry.name] = entry
    return every


def _unfit(entry: Any, every: dict[str, Analysis]) -> str:
    """Why an outside entry cannot stand beside the others; "" if it can."""
    if not isinstance(entry, Analysis):
        return "it is no interp.analyses.Analysis"
    if entry.name in every or entry.name in VERBS:
        return f"the name '{entry.name}' is taken"
    if isinstance(entry.studies, str) or isinstance(entry.label, str):
        return "studies and label are tuples: ('my_package:MyConfig',)"
    others = [*every.values(), *VERBS.values()]
    addresses = {page.address for other in others for page in other.pages}
    names = {where.partition(":")[2] for other in every.values() for where in other.studies}
    if taken := addresses & {page.address for page in entry.pages}:
        return f"the page address '{taken.pop()}' is taken"
    if taken := names & {config.__name__ for config in entry.configs()}:
        return f"the config name '{taken.pop()}' is taken"
    return ""


def config_class(study: str) -> Any:
    """The config class of a study; None for one that is not installed."""
    entry = analyses().get(study.partition(".")[0])
    return next((kind for kind in (entry.configs() if entry else []) if study == kind.STUDY), None)


fit.look_up_with(config_class)


def place(study: str, key: str) -> tuple[str, dict[str, str]] | None:
    """The page that shows a study's run: its address and parameters; None where none does."""
    for entry in analyses().values():
        for page in entry.pages:
            if study in dict(page.shows):
                return page.address, dict(parse_qsl(dict(page.shows)[study] + key))
    return None


def label(study: str, config: dict[str, Any]) -> str:
    """What tells a run of a study apart from others of the same model."""
    entry = analyses().get(study.partition(".")[0])
    values = (config.get(name) for name in (entry.label if entry else ()))
    return " · ".join(_short(str(value)) for value in values if value)


def _short(value: str) -> str:
    """Of a whole path its end, which is what tells two apart."""
    return "/".join(PurePath(value).parts[-2:]) if PurePath(value).is_absolute() else value
