"""What the methods that draw samples have in common: how many, or how sure."""

import abc
from dataclasses import replace
from typing import Any, ClassVar

from keras_explain.core import checks
from keras_explain.core.explainer import Explainer
from keras_explain.core.run.plan import Plan

ERROR = 0.05


class Sampled(Explainer, abc.ABC):
    """A method that draws samples: a fixed number, or `"auto"`: until it is sure.

    Args:
        error: With `"auto"`: the relative standard error at which a sample is done,
            `||standard error||_2 <= error * ||values||_2`. By default 0.05.
        max_passes: With `"auto"`: the most passes over a sample.
    """

    error: float | None = None
    max_passes: int | None = None

    counted: ClassVar[str] = "samples"
    """The field that says how many samples are drawn, or "auto"."""
    fewest: ClassVar[int] = 1
    """The least number that the field may say."""
    most: ClassVar[int] = 2**14
    """The default of `max_passes`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.is_auto:
            self._check_number()
            return
        if not isinstance(self.goal, (int, float)) or not 0 < self.goal < 1:
            raise ValueError(
                "Expected `error` as a share between 0 and 1, such as 0.05 for 5 %; no draws leave "
                f"an error of 0. Received: error={self.goal!r}."
            )
        checks.count("max_passes", self.limit)

    def _check_number(self) -> None:
        number = getattr(self, self.counted)
        if isinstance(number, str):
            raise ValueError(
                f'Expected `{self.counted}` to be a whole number, or "auto". '
                f"Received: {self.counted}={number!r}."
            )
        by_default = getattr(type(self), self.counted, 0)
        if number is not None or by_default is not None:
            checks.count(self.counted, number, least=self.fewest)
        for name in ("error", "max_passes"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f'Expected `{name}` with {self.counted}="auto", which it is for. '
                    f"Received: {self.counted}={number!r} and {name}={getattr(self, name)!r}."
                )

    @property
    def is_auto(self) -> bool:
        """Whether samples are drawn until the values are sure."""
        number: Any = getattr(self, self.counted)
        return isinstance(number, str) and number == "auto"

    @property
    def goal(self) -> float | None:
        """The relative standard error to be reached; None where the number of samples is fixed."""
        if not self.is_auto:
            return None
        return ERROR if self.error is None else self.error

    @property
    def limit(self) -> int:
        """The most passes over a sample."""
        return self.most if self.max_passes is None else self.max_passes

    @property
    def count(self) -> int:
        """How many samples are drawn at most."""
        return self.limit if self.is_auto else getattr(self, self.counted)

    @property
    def plan(self) -> Plan:
        return replace(super().plan, error=self.goal)
