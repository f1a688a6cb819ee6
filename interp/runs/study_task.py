"""Tasks of studies: parts that any worker makes from a study's settings alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from ..errors import UserError


class Config(Protocol):
    """What a task takes of a study."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def model(self) -> str: ...

    def fingerprints(self) -> dict[str, str]: ...


C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class StudyTask(Generic[C]):
    """A `workers_task.Task` of a study, to be given its `opened` and `make`."""

    config: C
    prints: tuple[tuple[str, str], ...]
    """The fingerprints that the run is of."""

    @classmethod
    def of(cls, config: C, **more: Any) -> Self:
        """Of a study here.

        Args:
            more: the fields that a subclass adds.
        """
        prints = tuple(config.fingerprints().items())
        return cls(replace(config), prints, **more)  # without what `config` has opened

    def open(self) -> Any:
        """`opened`, where the same model and data are.

        Raises:
            UserError: they are others.
        """
        own, wanted = self.config.fingerprints(), dict(self.prints)
        if other := [name for name in wanted if own.get(name) != wanted[name]]:
            raise UserError(
                f"{self.config.model} has another {other[0]} here than where the run was started: "
                "copy the same files to this machine"
            )
        return self.opened()

    def opened(self) -> Any:
        """What a worker keeps from part to part."""
        raise NotImplementedError
