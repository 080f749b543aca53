"""The package as a whole: what importing costs, and that the files spell the pipeline."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import refocus

SOURCE = Path(refocus.__file__).parent
ORDER = [
    "__init__", "errors", "records", "recipe", "presets", "runs", "processes", "families", "timm_models",
    "transformers_models", "torchvision_models", "own_models", "zero_shot", "models", "attention", "relevance", "legrad",
    "rotations", "surgery", "perturbations", "attacks", "corruptions", "probing",
    "backbones", "bilateral", "discovery", "quality", "formats", "images", "report", "masks", "losses", "shifts", "composites",
    "shifted", "steps", "objectives", "harm", "selection", "checkpoints", "trainable", "loop", "rates", "finetune", "intervals",
    "metrics", "suites", "evaluation", "localization", "cues", "plans", "proof", "tables", "charts", "gallery", "paper",
    "grounds", "studies", "grid", "study_tables", "subsets", "study_pages", "study_run", "audits", "reports", "explanations",
    "probe_kinds", "probes", "probe_results", "probe_runs", "probe_charts", "probe_pages",
    "digits", "demo", "app_looks", "app_jobs", "app_folders", "app_parts", "app_compare",
    "app_mask", "app_work", "app", "app_server", "cli_masks",
    "cli_models", "cli_evaluate", "cli_probe", "cli_app", "cli_report", "cli_study", "cli",
]  # fmt: skip


def test_importing_refocus_does_not_import_torch() -> None:
    code = "import refocus, refocus.cli, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_module_has_a_place_in_the_order() -> None:
    assert sorted(p.stem for p in SOURCE.glob("*.py")) == sorted(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_module_imports_only_from_those_above_it(name: str) -> None:
    tree = ast.parse((SOURCE / f"{name}.py").read_text())
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "refocus":
            below = node.module.split(".")[1:] if node.module else []
            imported |= set(below[:1]) if below else {a.name for a in node.names if a.name in ORDER}
        if isinstance(node, ast.Import):
            imported |= {a.name.split(".")[1] for a in node.names if a.name.startswith("refocus.")}
    assert imported <= set(ORDER[: ORDER.index(name)])


def test_public_names_stay_functions_whatever_was_imported_before() -> None:
    for module in ORDER[1:]:
        if not module.startswith("app") or module in ("app_looks", "app_jobs", "app_folders"):  # these need an extra
            importlib.import_module(f"refocus.{module}")
    for name in refocus.__all__:
        assert not isinstance(getattr(refocus, name), ModuleType), name


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match="explain"):
        _ = refocus.explian
