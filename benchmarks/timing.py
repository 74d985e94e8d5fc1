"""Interleaved medians."""

import statistics
import time
from collections.abc import Callable, Mapping


def seconds(work: Callable[[], object]) -> float:
    """The time that one call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def interleaved(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The times of every contestant in turn, round after round, so that drift meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    return times


def ratio(times: Mapping[str, list[float]], a: str, b: str) -> float:
    """The median over rounds of how many times as long `a` takes as `b`."""
    if len(times[a]) != len(times[b]):
        return statistics.median(times[a]) / statistics.median(times[b])
    return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))
