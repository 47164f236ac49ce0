"""What repro has to be told of a project; all else it reads from dvc.yaml and dvc.lock.

Of dvc.yaml's `artifacts` it knows three types: `model` (its hash names a run's model), `dataset`
(which MLflow lists by its `desc`) and `samples` (which MLflow shows as a table).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from repro.errors import UserError


class Params(Protocol):
    """params.yaml as the project typed it: a pydantic model with three members of its own."""

    @property
    def tracking(self) -> bool:
        """Whether MLflow records the runs."""

    @property
    def title(self) -> str:
        """What tells these params from others, in a few words."""

    def flat(self) -> dict[str, Any]:
        """Each param that decides a result by its dotted name, defaults filled in."""

    def model_dump(self) -> dict[str, Any]:
        """params.yaml as nested mappings: what DVC compares with dvc.lock."""


AnyParams = TypeVar("AnyParams", bound=Params)


@dataclass(frozen=True)
class Project(Generic[AnyParams]):
    """`load` reads params.yaml; `parse_older` a text that an earlier version may have written."""

    name: str  # of the experiment in MLflow
    load: Callable[[], AnyParams]
    parse_older: Callable[[str], AnyParams]
    faults: tuple[type[Exception], ...] = (UserError,)  # what the user can fix
    description: str = ""  # shown above MLflow's table
    columns: Mapping[str, int] = field(default_factory=dict)  # of that table: {name: pixels}
