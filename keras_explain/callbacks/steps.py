"""The numbers of the explained steps."""

from __future__ import annotations


class Steps:
    """Numbers what a logger explains, in all trainings that it sees.

    Numbers only grow: readers drop what was logged before at the same or a later step. They come
    from what Keras tells callbacks, and not from an optimizer, of which a model may have none or
    several, and which may step less often than there are batches.
    """

    def __init__(self) -> None:
        self.batches = 0  # seen so far
        self._last = -1
        self._first = 0  # batch of the execution that runs

    def resume(self, epoch: int, batches: int | None) -> bool:
        """Goes on where a training was stopped.

        Args:
            epoch: The first epoch of a `fit`: above 0 where a training is resumed.
            batches: How many batches an epoch has, where that is known.

        Returns:
            Whether all batches before this epoch are counted.
        """
        self.batches = max(self.batches, epoch * (batches or 0))
        return self.batches > 0 or epoch == 0

    def of_epoch(self, epoch: int) -> int:
        """The step of an epoch: its number, or the next one if that was had before."""
        self._last = max(epoch, self._last + 1)
        return self._last

    def begin(self, batch: int) -> None:
        """An execution begins with this batch of the epoch."""
        self._first = batch

    def end(self, batch: int, batches: int | None, every: int) -> int | None:
        """An execution has ended.

        Args:
            batch: Its last batch, by its number in the epoch.
            batches: How many batches an epoch has, where that is known: the last execution of an
                epoch may have fewer than `steps_per_execution`, which Keras does not tell.
            every: How many batches lie between two explained steps.

        Returns:
            How many batches were seen so far, if the next step is due.
        """
        before = self.batches
        last = batch if batches is None else min(batch, batches - 1)
        self.batches += max(last + 1 - self._first, 1)
        self._first = batch + 1
        return self.batches if before // every < self.batches // every else None
