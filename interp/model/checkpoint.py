"""A transformers model with every weight from its files, and from them alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from logging import Filter, LogRecord, getLogger
from pathlib import Path
from typing import Any

from ..errors import UserError, reason
from ..progress import log
from .agreement import LEFT_OUT, check_numbers
from .devices import HeldTensors, without_copies
from .ends import said_ends
from .families import read_spec
from .files import remembered, sha256
from .folder import check_folder, read_config
from .remote_files import check_is_here
from .sizes import check_implied
from .tensor_files import stored_tensors

FIX = "mend its config.json or fetch it again"


def load_model(folder: Path, **options: Any) -> Any:
    """The model of a plain checkpoint's folder, as `AutoModelForCausalLM` loads it.

    Raises:
        UserError: its weights are not here, `check_folder` refuses the folder, `complete_model`
            what is loaded, or that is not what the files hold.
    """
    check_is_here(folder)
    config, stored = check_folder(folder)
    model = complete_model(folder, **options)
    check_numbers(read_spec(config), stored, HeldTensors(model))
    return model


def tensor_names(folder: Path) -> frozenset[str]:
    """The names of all tensors of the model that a folder's config.json describes, whatever its
    files hold; remembered, as transformers takes seconds to start.

    Raises:
        UserError: transformers makes no model of it.
    """
    import torch

    def make() -> str:
        from transformers import AutoConfig

        with refusing(f"transformers cannot load the model in {folder}", FIX):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            with torch.device("meta"):  # names and shapes alone
                return json.dumps(sorted(_auto(folder).from_config(config).state_dict()))

    about = f"{sha256(folder / 'config.json')}|names|transformers {version('transformers')}"
    return frozenset(json.loads(remembered(about, r'\["[^"]+"(, "[^"]+")*\]', make)))


def _auto(folder: Path) -> Any:
    """The class of transformers' that makes the model: where there is no causal one of a model with
    a text model inside, that of the whole."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    alone = read_config(folder)["model_type"] in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return AutoModelForCausalLM if alone else AutoModelForImageTextToText


def complete_model(folder: Path, **options: Any) -> Any:
    """`AutoModelForCausalLM.from_pretrained`, or where transformers has no such class for a model
    with a text model inside, that model whole. Both fill what the files lack with random numbers.

    Raises:
        UserError: it cannot load it; config.json makes a far larger model than the files hold; a
            weight is missing, has another shape than config.json implies, or holds a NaN or an
            infinity; a bias is in the files and not in the model.
    """
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    asked = {"output_loading_info": True, "ignore_mismatched_sizes": True, **options}
    loaded: Any
    auto = _auto(folder)
    said_ends(folder)  # refuses what are no ids
    with refusing(f"transformers cannot load the model in {folder}", FIX), _without_report():
        config = options.get("config") or AutoConfig.from_pretrained(
            folder, trust_remote_code=False
        )
        check_implied(folder, auto, config, stored_tensors(folder))
        with without_copies(folder):
            loaded = auto.from_pretrained(folder, trust_remote_code=False, **asked)
    model, info = loaded
    _check_complete(folder, model, info)
    return model


@contextmanager
def refusing(problem: str, fix: str) -> Iterator[None]:
    """What transformers raises at configs that it did not expect, as one line."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (
        *(AssertionError, AttributeError, ArithmeticError, ImportError, LookupError, OSError),
        *(RuntimeError, TypeError, ValueError, StrictDataclassError),
    ) as error:
        raise UserError(f"{problem} ({_reason(error)}): {fix}") from error


def _reason(error: Exception) -> str:
    """What is wrong, without the library's advice."""
    said = reason(error)
    if field := re.match(r"Validation error for field '(\w+)'", said):
        return f"its config.json has a value as '{field[1]}' that cannot be"
    # a check of the whole config: what it raised comes behind
    said = re.sub(r"^Class validation error for validator '\w+': \w+: ", "", said)
    kind = type(error).__name__
    return said if said == kind else f"{kind}: {said}"


def _check_complete(folder: Path, model: Any, info: dict[str, Any]) -> None:
    import torch

    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{len(missing)} of the model's weights are not in its files, {missing[0]} among them: "
            "fetch it again"
        )
    for name, stored, implied in sorted(info["mismatched_keys"]):
        raise UserError(
            f"'{name}' in {folder} is {list(stored)} where config.json implies {list(implied)}"
        )
    _check_left_out(folder, model, sorted(info["unexpected_keys"]))
    held = HeldTensors(model)
    for name, weight in model.named_parameters():
        if weight.numel() and not torch.stack(torch.aminmax(held[name].detach())).isfinite().all():
            raise UserError(f"'{name}' in {folder} holds a NaN or an infinity: it is damaged")


def _check_left_out(folder: Path, model: Any, names: list[str]) -> None:
    """Raise UserError for a bias of a module that the model has without one; say what else the
    model has no place for."""
    for name in names:
        module, _, part = name.rpartition(".")
        if part.endswith("bias") and _has_weights(model, module):
            raise UserError(LEFT_OUT.format(folder=folder, name=name))
    if names:
        log.warning(
            "%s: %d of its tensors are no part of the model that config.json describes and are "
            "left out, %s among them",
            folder,
            len(names),
            names[0],
        )


def _has_weights(model: Any, name: str) -> bool:
    """Whether there is such a module, and it has numbers of its own."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return False
    return any(True for _ in module.parameters(recurse=False))


class _NoReport(Filter):
    """transformers prints a table of what is missing or left out, and accelerate that parts are on
    the meta device, which are said here in a line."""

    def filter(self, record: LogRecord) -> bool:
        said = record.getMessage()
        return "LOAD REPORT" not in said and "on the meta device" not in said


@contextmanager
def _without_report() -> Iterator[None]:
    rule = _NoReport()
    loggers = [
        getLogger("transformers.modeling_utils"),
        getLogger("accelerate.big_modeling"),
    ]
    for logger in loggers:
        logger.addFilter(rule)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(rule)
