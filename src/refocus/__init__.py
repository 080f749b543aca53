"""refocus: make a Vision Transformer look at the object.

Importing this package does not import torch: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what editors and type checkers see; `_PUBLIC` says the same to Python
    from refocus.data.images import read_image, read_mask
    from refocus.data.transforms import eval_image
    from refocus.errors import InputError
    from refocus.evaluation.classify import evaluate
    from refocus.evaluation.metrics import background_share, segmentation_scores
    from refocus.evaluation.settings import ShiftSettings
    from refocus.evaluation.shifted import shifts
    from refocus.flow.run import plan_run, run
    from refocus.flow.settings import RunSettings
    from refocus.masks.discovery import tokencut
    from refocus.masks.folder import find_masks
    from refocus.masks.settings import MaskSettings
    from refocus.objectives.by_name import objective
    from refocus.objectives.own_loops import TrainerMixin, collate, masked_images
    from refocus.probes.measure import probe
    from refocus.probes.settings import ProbeSettings
    from refocus.relevance.attention import attention_maps, recorded
    from refocus.relevance.gae import explain
    from refocus.reports.audit import audit
    from refocus.reports.report import report
    from refocus.reports.settings import AuditSettings, ReportSettings
    from refocus.tuning.recipe import Recipe
    from refocus.tuning.tune import resume, tune
    from refocus.vit.loading import load, save
    from refocus.vit.onnx import export_onnx

try:
    __version__ = version("refocus-vit")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "AuditSettings",
    "InputError",
    "MaskSettings",
    "ProbeSettings",
    "Recipe",
    "ReportSettings",
    "RunSettings",
    "ShiftSettings",
    "TrainerMixin",
    "__version__",
    "attention_maps",
    "audit",
    "background_share",
    "collate",
    "eval_image",
    "evaluate",
    "explain",
    "export_onnx",
    "find_masks",
    "load",
    "masked_images",
    "objective",
    "plan_run",
    "probe",
    "read_image",
    "read_mask",
    "recorded",
    "report",
    "resume",
    "run",
    "save",
    "segmentation_scores",
    "shifts",
    "tokencut",
    "tune",
]

# name -> module; no module may share a name, or importing it would shadow the function
_PUBLIC = {
    "AuditSettings": "reports.settings",
    "InputError": "errors",
    "MaskSettings": "masks.settings",
    "ProbeSettings": "probes.settings",
    "Recipe": "tuning.recipe",
    "ReportSettings": "reports.settings",
    "RunSettings": "flow.settings",
    "ShiftSettings": "evaluation.settings",
    "TrainerMixin": "objectives.own_loops",
    "attention_maps": "relevance.attention",
    "audit": "reports.audit",
    "background_share": "evaluation.metrics",
    "eval_image": "data.transforms",
    "collate": "objectives.own_loops",
    "evaluate": "evaluation.classify",
    "explain": "relevance.gae",
    "export_onnx": "vit.onnx",
    "find_masks": "masks.folder",
    "load": "vit.loading",
    "masked_images": "objectives.own_loops",
    "objective": "objectives.by_name",
    "plan_run": "flow.run",
    "probe": "probes.measure",
    "read_image": "data.images",
    "read_mask": "data.images",
    "recorded": "relevance.attention",
    "report": "reports.report",
    "resume": "tuning.tune",
    "run": "flow.run",
    "save": "vit.loading",
    "segmentation_scores": "evaluation.metrics",
    "shifts": "evaluation.shifted",
    "tokencut": "masks.discovery",
    "tune": "tuning.tune",
}


if not TYPE_CHECKING:  # else a type checker would believe in every name

    def __getattr__(name: str) -> object:
        """Load a public name when it is first used.

        Raises:
            AttributeError: no such name; says which there are.
        """
        if name not in _PUBLIC:
            raise AttributeError(
                f"module 'refocus' has no attribute {name!r}; it has {', '.join(__dir__())}"
            )
        value = getattr(import_module(f"refocus.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
