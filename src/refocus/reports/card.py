"""A model card made of a run and its report, and the upload of both to the Hub."""

from __future__ import annotations

import json
import logging
import re
import tempfile
from hashlib import sha256
from pathlib import Path
from shutil import copyfile
from typing import Any

from huggingface_hub import HfApi, ModelCardData, metadata_load

from refocus import __version__, outputs, references, runs
from refocus.errors import InputError, first_line
from refocus.evaluation.stored import RESULTS, read_evaluation
from refocus.figures.escape import inline
from refocus.figures.tables import Row, accuracy_rows, markdown, other_rows
from refocus.files import read_json, read_text, write_text
from refocus.results import Compared, Evaluation
from refocus.runs import MODEL, REPORTED, SELECTION
from refocus.tuning.recipe import Recipe, recipe_of
from refocus.tuning.results import Candidate, TuneResults, results_of
from refocus.vit.hub import in_one_line
from refocus.vit.inputs import check_path

CARD = "README.md"
log = logging.getLogger("refocus")
UNKNOWN = "unknown"  # as the Hub calls a licence that is not stated
_NOBODY = "YOU/MODEL"  # stands for the Hub's name of a model that has none yet
# ends a card that refocus wrote, with the digest of what stands before it
_SIGNED = re.compile(r"\n<!-- written by refocus: ([0-9a-f]{64}) -->\n\Z")
# settings that are paths of the machine, or models that may be some
_PLACES = ("model", "images", "masks", "val", "val_masks", "backgrounds", "teacher", "adain")
_CODE = re.compile(r"((?:py|torchvision):[^@]*@)(.+)", re.DOTALL)  # what stands before a path
_LOAD = {
    "timm": 'import timm\n\nmodel = timm.create_model("hf-hub:{repo}", pretrained=True)',
    "transformers": (
        "from transformers import AutoImageProcessor, AutoModelForImageClassification\n\n"
        'model = AutoModelForImageClassification.from_pretrained("{repo}")\n'
        'processor = AutoImageProcessor.from_pretrained("{repo}")'
    ),
    "refocus": (
        "import refocus\nfrom huggingface_hub import snapshot_download\n\n"
        'model = refocus.load(snapshot_download("{repo}"))'
    ),
}
_LIMITS = """\
- The accuracies hold for images like those they were measured on, and for these classes.
- Images with swapped backgrounds are composites. Objectives that train on such composites do
  better on them than on photographs.
- A relevance map is what an explanation method says about a decision, not the decision itself.
- Automatic masks are sometimes wrong, and wrong masks teach the wrong thing."""


def write_card(run: str | Path, *, repo: str = _NOBODY, licence: str = UNKNOWN) -> Path:
    """Write a finished run's model card, README.md in the folder of `tune`.

    It says what was tuned on what, the verdict, numbers with 95 % intervals (of `run/proof`, where
    `report` measured), limits, and how to load the model. Folders are named by their last part. A
    card that somebody edited is kept; any other is written anew, with the licence that it states
    where none is given.

    Args:
        run: folder of `tune` or of `run`.
        repo: the Hub's name of the model, for the lines that load it.
        licence: as the Hub calls it, such as "mit".

    Raises:
        InputError: no finished run, or an edited card that states another licence.
    """
    folder = _finished(run)
    card, text = folder / CARD, _current(folder, repo, licence)
    if text is not None:
        digest = sha256(text.encode("utf-8", "replace")).hexdigest()
        write_text(card, f"{text}\n<!-- written by refocus: {digest} -->\n")
    return card


def _current(run: Path, repo: str, licence: str) -> str | None:
    """The card as it is to be; None where the one that lies there was edited and is kept."""
    file = run / CARD
    if not file.exists():
        return card_text(run, repo, licence)
    text, stated = _text(file), _stated(file)
    if (signed := _SIGNED.search(text)) is not None:
        mine = text[: signed.start()]
        if sha256(mine.encode()).hexdigest() == signed[1]:
            return card_text(run, repo, stated if licence == UNKNOWN else licence)
    if licence not in (UNKNOWN, stated):
        raise InputError(
            f"‹licence› {licence}: {file} was edited and states the licence {stated!r}; write "
            f"`license: {licence}` at its top, or remove the file for a new card"
        )
    name = f"; it still calls the model {_NOBODY}" if _NOBODY in text else ""
    log.info("%s: was edited, so it is kept as it is%s", file, name)
    return None


def _text(card: Path) -> str:
    try:
        return read_text(card)
    except (OSError, ValueError) as error:
        raise InputError(f"{card}: cannot be read as text ({first_line(error)})") from error


def _stated(card: Path) -> str:
    """The licence that stands in a card's metadata."""
    try:
        return str((metadata_load(card) or {}).get("license", UNKNOWN))
    except Exception as error:  # of huggingface_hub, or of the YAML library that it uses
        raise InputError(
            f"{card}: its metadata, between the lines ---, are no YAML ({first_line(error)})"
        ) from error


def push(
    run: str | Path,
    repo: str,
    *,
    licence: str = UNKNOWN,
    private: bool = False,
    api: HfApi | None = None,
) -> str:
    """Upload the model of a finished run to the Hub, with its card.

    Args:
        run: folder of `tune` or of `run`; a card in it that somebody edited is sent as it is.
        repo: OWNER/NAME; made where it is not there.
        licence: as the Hub calls it, such as "mit".
        private: whether a new repository is private.
        api: of the Hub; None: as you are logged in.

    Returns:
        The address of the model.

    Raises:
        InputError: no finished run, an edited card that states another licence, or the Hub refuses
            or cannot be reached.
    """
    folder, api = _finished(run), api or HfApi()
    text = _current(folder, repo, licence)
    if text is None:
        text = _text(folder / CARD)
    with tempfile.TemporaryDirectory() as place:
        for file in (folder / MODEL).iterdir():
            copyfile(file, Path(place, file.name))
        Path(place, CARD).write_text(text, encoding="utf-8")
        with in_one_line(f"‹repo› {repo}"):
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo,
                folder_path=place,
                commit_message=f"Tuned with refocus {__version__}",
            )
    return f"{api.endpoint}/{repo}"


def _finished(run: str | Path) -> Path:
    return runs.finished(check_path(run, "run"))


def card_text(run: Path, repo: str, licence: str) -> str:
    """The card as Markdown, with the Hub's metadata before it."""
    recipe, results = recipe_of(run), results_of(run)
    config = read_json(run / MODEL / "config.json")
    library = _library(config)
    ref = references.split(str(recipe.model))[0]
    base = ref.removeprefix("hf:")
    data = ModelCardData(
        license=licence,
        library_name=library if library != "refocus" else None,
        pipeline_tag="image-classification",
        tags=["refocus", "vision-transformer", "image-classification"],
        base_model=base if ref == f"hf:{base}" == _last(ref) and not Path(base).exists() else None,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {inline(repo.rpartition('/')[2])}",
        _what(recipe, results, config),
        f"## What tuning changed\n\n{inline(results.conclusion)}",
        _numbers(run, results),
        f"## Data\n\n{_data(run, recipe, results)}",
        f"## Limits\n\n{_LIMITS}",
        f"## Use\n\n```python\n{_LOAD[library].format(repo=repo)}\n```",
        f"## Licence\n\n{_licence(licence)}",
        f"## Settings\n\n```json\n{_settings(recipe)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _library(config: Any) -> str:
    """Whose `config.json` it is, of those that load from the Hub by themselves."""
    if "architectures" in config and "own" not in config:
        return "transformers"
    return "timm" if "architecture" in config else "refocus"


def _what(recipe: Recipe, results: TuneResults, config: Any) -> str:
    name = config.get("architecture") or next(iter(config.get("architectures") or []), "ViT")
    kept = (
        "Tuning was not kept: these are the weights of the original model."
        if results.chosen_share == 0
        else f"The weights are {results.chosen_share:.0%} of the way from the original to the "
        "tuned ones."
    )
    return (
        f"A Vision Transformer ({inline(str(name))}) fine-tuned by "
        f"refocus {__version__}, objective `{inline(recipe.objective)}`, to rely on the object "
        f"more and on the background less. Original model: {inline(_last(recipe.model))}. {kept}"
    )


def _numbers(run: Path, results: TuneResults) -> str:
    """Tables of the reports of this run; without any, what the do-no-harm rule saw."""
    if found := _measured(run):
        suites = {name: entry for one in found for name, entry in one.suites.items()}
        table = markdown([*accuracy_rows(suites), *other_rows(suites)])
        note = "Intervals are of 95 %; `against` is the original model, on the same images."
        exact = {name: _in_float32(one) for one in found for name in one.suites}
        if half := [name for name in suites if not exact[name]]:
            note += f" Computed in bfloat16: {', '.join(map(inline, half))}."
        return f"{note}\n\n{table.strip()}"
    kept = next((c for c in results.candidates if c.share == results.chosen_share), None)
    if kept is None:
        return "No image was left to measure on."
    used = (
        "that chose the weights, so this is not an independent test (`refocus report` makes one):"
        if results.chosen_share == results.advised_share
        else "of the do-no-harm rule, which was switched off (`refocus report` measures more):"
    )
    note = f"On the {results.check_images} images {used}"
    return f"{note}\n\n{markdown(_rows(kept)).strip()}"


def _measured(run: Path) -> list[Evaluation]:
    """The evaluations of a run's reports; of a suite that several hold, the last one counts.

    That is the one on the page that `report` wrote last (of runs of earlier versions, which do not
    say it, the newest), but float32 comes before bfloat16.
    """
    said = read_json(run / REPORTED) if (run / REPORTED).exists() else None
    shown = said.get("records") if isinstance(said, dict) else None
    folders = [p for p in run.glob("proof*") if (p / outputs.MANIFEST).exists()]
    folders.sort(key=lambda p: (p.name == shown, [int(n) for n in re.findall(r"\d+", p.name)]))
    return sorted((read_evaluation(p / RESULTS) for p in folders), key=_in_float32)


def _in_float32(evaluation: Evaluation) -> bool:
    return evaluation.precision == "fp32"


def _rows(kept: Candidate) -> list[Row]:
    found: list[tuple[str, Compared]] = [
        ("as they are", kept.in_domain),
        ("on backgrounds of other classes (n counts pairs)", kept.swapped),
    ]
    return [Row(f"images {name}", "top-1, %", number) for name, number in found]


def _data(run: Path, recipe: Recipe, results: TuneResults) -> str:
    selection = read_json(run / SELECTION)
    counts = {part: len(selection[part]) for part in ("train", "select", "check")}
    names = ", ".join(map(inline, results.trained_classes[:10]))
    more = f", ... ({len(results.trained_classes)})" if len(results.trained_classes) > 10 else ""
    return (
        f"Trained on {counts['train']} images with foreground masks, of the classes {names}{more} "
        f"(folder {inline(_last(recipe.images))}). {counts['select']} other images chose the epoch "
        f"and {counts['check']} checked for harm."
    )


def _licence(licence: str) -> str:
    if licence == UNKNOWN:
        return "None is stated. The original model and the images have licences of their own."
    return f"{inline(licence)}. The original model and the images have licences of their own."


def _settings(recipe: Recipe) -> str:
    """The recipe without what is particular to a machine."""
    hidden = ("device", "workers")
    kept = {k: v for k, v in recipe.to_dict().items() if k not in hidden and v is not None}
    kept |= {name: _last(kept[name]) for name in _PLACES if name in kept}
    return json.dumps(kept, indent=2)


def _last(place: str | Path) -> str:
    """A model or folder as anybody may read it: of a path the last part, and no file of names."""
    ref = references.split(str(place))[0]
    if code := _CODE.fullmatch(ref):
        return f"{code[1]}{Path(code[2]).name}"
    path = ref.removeprefix("hf:").removeprefix("local-dir:")
    return Path(path).name if path.startswith("~") or Path(path).is_absolute() else ref
