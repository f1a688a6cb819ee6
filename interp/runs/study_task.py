"""Tasks of studies: parts that any worker makes from a study's settings alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

from ..errors import UserError
from .store import Store, usual_store
from .workers_task import Task, Workers

if TYPE_CHECKING:
    from .workers_lent import Lent


class Config(Protocol):
    """What a task takes of a study."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def model(self) -> str: ...

    def fingerprints(self) -> dict[str, str]: ...


C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class StudyTask(Generic[C]):
    """A `workers_task.Task` of a study, to be given its `opened` and `made`."""

    config: C
    prints: tuple[tuple[str, str], ...]
    """The fingerprints that the run is of."""
    runs: str
    """The folder of stored runs, where a study may look up another's."""

    @classmethod
    def of(cls, config: C, **more: Any) -> Self:
        """Of a study here.

        Args:
            more: the fields that a subclass adds.
        """
        prints, runs = tuple(config.fingerprints().items()), str(Store().root.absolute())
        return cls(config, prints, runs, **more)

    def __getstate__(self) -> dict[str, Any]:
        """For another process: settings, without what `config` has opened of this machine's files,
        which are not the other's."""
        return {**vars(self), "config": replace(self.config)}

    def open(self) -> Any:
        """This task and what it has `opened`, where the same model and data are.

        Raises:
            UserError: they are others.
        """
        with usual_store(Path(self.runs)):
            self._check()
            return self, self.opened()

    def make(self, opened: Any, part: Any) -> Any:
        """What is `made` of a part, by the task that was opened: its config has read the model's
        files already, which one that was sent anew has not."""
        task, kept = opened
        with usual_store(Path(self.runs)):
            return task.made(kept, part)

    def held(self, opened: Any, workers: Workers) -> Task[Any]:
        """This task for workers beside this process; where it is alone, with what it has opened."""
        return self if workers.beside else _Held(self, opened)

    def opened(self) -> Any:
        """What a worker keeps from part to part."""
        raise NotImplementedError

    def made(self, opened: Any, part: Any) -> Any:
        """The result of a part, by what was `opened`."""
        raise NotImplementedError

    def _check(self) -> None:
        own, wanted = self.config.fingerprints(), dict(self.prints)
        if other := [name for name in wanted if own.get(name) != wanted[name]]:
            raise UserError(
                f"{self.config.model} has another {other[0]} here than where the run was started: "
                "copy the same files to this machine"
            )


class LendingTask(StudyTask[C]):
    """One whose workers open it with arrays that are lent to them (`workers_lent`)."""

    def lend(self) -> Lent:
        """The arrays, made by the process that asks."""
        raise NotImplementedError

    def open(self, lent: Lent | None = None) -> Any:
        with usual_store(Path(self.runs)):
            self._check()
            return self, self.opened(lent)

    def opened(self, lent: Lent | None = None) -> Any:
        """What a worker keeps from part to part, with what is lent to it; else it is made."""
        raise NotImplementedError


class TaskInSteps(StudyTask[C]):
    """One whose parts are `made` in two steps (`workers_task.InSteps`)."""

    def begin(self, opened: Any, part: Any) -> Any:
        task, kept = opened
        with usual_store(Path(self.runs)):
            return task.begun(kept, part)

    def finish(self, opened: Any, begun: Any) -> Any:
        task, kept = opened
        with usual_store(Path(self.runs)):
            return task.finished(kept, begun)

    def made(self, opened: Any, part: Any) -> Any:
        return self.finished(opened, self.begun(opened, part))

    def begun(self, opened: Any, part: Any) -> Any:
        """The first step of a part, by what was `opened`."""
        raise NotImplementedError

    def finished(self, opened: Any, begun: Any) -> Any:
        """The result of a part that was `begun`."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class _Held:
    """A task of this process, which has opened what it needs."""

    task: StudyTask[Any]
    has: Any

    def open(self) -> Any:
        return self.task, self.has

    def make(self, opened: Any, part: Any) -> Any:
        return self.task.make(opened, part)
