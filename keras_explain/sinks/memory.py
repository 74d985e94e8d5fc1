"""Records kept in memory."""

from __future__ import annotations

from keras_explain.core.record.explanation import Explanation
from keras_explain.sinks.base import Record, Sink


class Memory(Sink):
    """Keeps every record, for plots and tests. `clear` empties it.

    Example:

    ```python
    memory = kx.sinks.Memory()
    logger = kx.callbacks.ExplanationLogger("grad_cam", x[:8], y[:8], sinks=[memory])
    model.fit(x, y, epochs=10, callbacks=[logger])
    memory.history()["grad_cam"][-1]     # (9, Explanation)
    ```

    Attributes:
        records: The records, in the order of writing.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        """Keeps the record."""
        self.records.append(record)

    def flush(self) -> None:
        """Has nothing to do."""

    def close(self) -> None:
        """Has nothing to do: the records stay."""

    def clear(self) -> None:
        """Forgets all records."""
        self.records.clear()

    def history(self) -> dict[str, list[tuple[int, Explanation]]]:
        """Explainer name -> its explanations by step, as `kx.plots.epochs` takes them."""
        history: dict[str, list[tuple[int, Explanation]]] = {}
        for record in self.records:
            history.setdefault(record.name, []).append((record.step, record.explanation))
        return history
