"""What a tuning run found, as typed records: `results.json` of a run folder, out and in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refocus.outputs import read_json
from refocus.records import from_json
from refocus.results import Compared

SCHEMA = 2  # of results.json; 1 is that of versions up to 0.1


@dataclass(frozen=True)
class Candidate:
    """One share of the way from the original to the tuned weights, measured on the check images.

    in_domain, swapped: top-1 in percent on the images as they are and with the background of
        another class, against the original weights.
    most_lost: points of in-domain top-1 that are lost at most, with 95 % confidence (below 0: it
        gained). least_gained: points on swapped backgrounds that are gained at least, likewise.
    stands: whether it passes both tests of the do-no-harm rule.
    relevance_loss: Eq. 3 of the paper with its weights; of the ends and of what stands.
    """

    share: float
    in_domain: Compared
    swapped: Compared
    most_lost: float | None = None
    least_gained: float | None = None
    stands: bool = False
    relevance_loss: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The do-no-harm rule's answer, for a reader who wants one sentence.

    ship: whether tuned weights are advised. share: which, 0 being the original ones.
    sentence: what improved, what it cost, how sure that is, what to do, what would make it surer.
    needed: check images that would decide, where these were too few; None where they were enough,
        or where no number would be.
    """

    ship: bool
    share: float
    sentence: str
    needed: int | None = None


@dataclass(frozen=True)
class TuneResults:
    """What `refocus.tune` returns and `results.json` holds.

    candidates: the points on the line between original and tuned weights, the original first.
    unseen: kind of shift -> top-1 of the judged candidate against the original on the check images,
        for shifts that no objective trains on.
    advised_share: what the rule advises. chosen_share: what was kept in `model/`.
    """

    model: str
    objective: str
    lr: float
    best_epoch: int
    check_images: int
    tolerance: float
    candidates: tuple[Candidate, ...]
    advised_share: float
    chosen_share: float
    verdict: Verdict
    trained_classes: tuple[str, ...]
    unseen: dict[str, Compared] = field(default_factory=dict)
    schema: int = SCHEMA


def results_of(folder: str | Path) -> TuneResults:
    """The results of a finished run, of this version or of an earlier one.

    Raises:
        InputError: there are none, or not such as refocus writes.
    """
    path = Path(folder) / "results.json"
    content = read_json(path)
    if isinstance(content, dict) and "schema" not in content:
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
