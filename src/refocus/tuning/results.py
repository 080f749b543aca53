"""What a tuning run found, as typed records: `results.json` of a run folder, out and in."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refocus.files import read_json
from refocus.records import from_json
from refocus.results import SCHEMA, Compared


@dataclass(frozen=True)
class Candidate:
    """One share of the tuned weights, measured on the check images."""

    share: float  # 0 is the original, 1 the tuned weights
    in_domain: Compared  # top-1 on the images as they are, percent; against the original weights
    swapped: Compared  # with each other's background, percent; n counts pairs of two classes
    most_lost: float | None = None  # points in domain lost at most, 95 % sure; below 0: it gained
    least_gained: float | None = None  # points on swapped backgrounds gained at least, likewise
    stands: bool = False  # does it pass both tests of the do-no-harm rule?
    relevance_loss: float | None = None  # Eq. 3 of the paper; of the ends and of what stands


@dataclass(frozen=True)
class Verdict:
    """The do-no-harm rule's answer, for a reader who wants one sentence."""

    ship: bool  # are tuned weights advised?
    share: float  # which ones, 0 being the original
    sentence: str  # what improved, what it cost, how sure that is, what to do
    needed: int | None = None  # check images that would decide, where these were too few


def mixture(share: float) -> str:
    """Which weights a share stands for, in words."""
    if share in (0.0, 1.0):
        return "the tuned weights" if share else "the original weights"
    tuned = round(100 * share, 1)
    return f"weights averaged {tuned:g}/{100 - tuned:g} with the original"


@dataclass(frozen=True)
class TuneResults:
    """What `refocus.tune` returns and `results.json` holds."""

    model: str  # what was tuned
    objective: str  # name of the objective
    lr: float  # learning rate
    best_epoch: int  # whose weights were judged; counts from 0
    check_images: int  # images for the do-no-harm rule
    tolerance: float  # points of in-domain top-1 that may be lost
    candidates: tuple[Candidate, ...]  # points between original and tuned, the original first
    advised_share: float  # what the do-no-harm rule advises
    chosen_share: float  # what was kept in `model/`
    verdict: Verdict  # the rule's answer
    trained_classes: tuple[str, ...]  # names
    unseen: dict[str, Compared] = field(default_factory=dict)  # shift no objective trains on: top-1
    schema: int = SCHEMA  # version of this file; 1 where it was read from the first version's

    @property
    def kept_original(self) -> bool:
        """Whether `model/` holds the very weights that tuning began with."""
        return self.chosen_share == 0

    @property
    def conclusion(self) -> str:
        """The verdict, or what is known of the weights that were kept where the rule was off.

        What the rule promises holds for the weights that it advises, not for others.
        """
        verdict, kept = self.verdict, mixture(self.chosen_share)
        if self.chosen_share == self.advised_share:
            return verdict.sentence
        off = f"The do-no-harm rule was switched off: this model has {kept}"
        if verdict.ship:
            return (
                f"{off}, and the rule advises {mixture(verdict.share)}. What it promises of those "
                "does not hold for this model."
            )
        if not self.candidates:
            return f"{off}. {verdict.sentence}"
        return f"{off}, which the rule does not advise. {verdict.sentence}"


def results_of(folder: str | Path) -> TuneResults:
    """The results of a finished run, of this version or of an earlier one.

    Raises:
        InputError: there are none, or not such as refocus writes.
    """
    path = Path(folder) / "results.json"
    content = read_json(path)
    if isinstance(content, dict) and "schema" not in content:
        # what is no result of the first version either is left to `from_json`
        with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
            content = _from_first(content)
    return from_json(content, TuneResults, path)


# --- earlier versions ---------------------------------------------------------------------------


def _from_first(content: dict[str, Any]) -> dict[str, Any]:
    """Schema 1: plain numbers and a finding in words, judged without a bound on the rule's errors.

    What cannot be read is left to `from_json` to complain about.
    """
    found = content.get("candidates") or [{}]
    n = content.get("check_images")
    rest = {k: v for k, v in content.items() if k not in ("candidates", "finding")}
    advised = content.get("advised_share", 0.0)
    sentence = f"{content.get('finding')} (judged by the rule of an earlier version)"
    return {
        **rest,
        "candidates": [_candidate(c, found[0], n, advised) for c in found if c],
        "verdict": {"ship": advised != 0, "share": advised, "sentence": sentence},
        "trained_classes": content.get("trained_classes", []),
        "schema": 1,
    }


def _candidate(c: dict[str, Any], original: dict[str, Any], n: Any, advised: Any) -> dict[str, Any]:
    def compared(name: str, **moved: Any) -> dict[str, Any]:
        now, before = (float(found.get(name, 0)) for found in (c, original))
        change = {"difference": now - before, "interval": None, "n": n, **moved}
        model, against = ({"value": v, "interval": None, "n": n} for v in (now, before))
        return {"model": model, "against": against, "change": change}

    moved = {"corrected": c.get("corrected"), "broken": c.get("broken")}
    return {
        "share": c.get("share"),
        "in_domain": compared("in_domain"),
        "swapped": compared("swapped", **moved),
        "stands": c.get("share") == advised != 0,
        "relevance_loss": c.get("relevance_loss"),
    }
