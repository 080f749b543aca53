"""Numbers that cross packages: an estimate with its interval, a paired change, the two together.

Every measuring function returns these; pages, tables and charts read their attributes. `against` is
the model compared with (the one before tuning), `model` the one that is judged.
"""

from __future__ import annotations

from dataclasses import dataclass

Interval = tuple[float, float]  # 95 %, low before high


@dataclass(frozen=True)
class Estimate:
    """One number over `n` images in the measure's unit; None where there is too little to say."""

    value: float | None
    interval: Interval | None
    n: int


@dataclass(frozen=True)
class Change:
    """`model` minus `against` over the same `n` images, in the measure's unit.

    p: two-sided p-value of the test that goes with the measure (McNemar's for accuracies).
    corrected, broken: images that `model` alone gets right, and that `against` alone does.
    """

    difference: float | None
    interval: Interval | None
    n: int
    p: float | None = None
    corrected: int | None = None
    broken: int | None = None

    @property
    def decided(self) -> int:
        """1 or -1 where the interval leaves 0 out and the test agrees, else 0."""
        if self.interval is None or (self.p is not None and self.p >= 0.05):
            return 0
        low, high = self.interval
        return 1 if low > 0 else -1 if high < 0 else 0


@dataclass(frozen=True)
class Compared:
    """One measure of a model and, where there is one, of the model it is compared with."""

    model: Estimate
    against: Estimate | None = None
    change: Change | None = None
