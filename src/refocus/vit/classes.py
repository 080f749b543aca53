"""Which class each output of a model is: its names, their order, and ImageNet's classes by name.

Names that a model carries decide. A model without names has 1000 outputs in ImageNet's order, or
outputs in the order of the folders it was trained on, which libraries sort in two ways.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from refocus.errors import InputError, Message, first_line
from refocus.files import read_text
from refocus.vit.wrappers import unwrap

log = logging.getLogger("refocus")

ORDERS = ("natural", "string")
_ORDER = "refocus_order"  # attribute on a loaded model: how folders name its outputs
_NAMED_BY = "refocus_named_by"  # attribute on a model whose names are those of folders it met
_SAME = 990  # of ImageNet's 1000 descriptions, which are then in its order


def natural(name: str) -> list[int | str]:
    """timm's order of class folders: numbers by value, letters without case (class2, class10)."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())]


def by_order(folders: Sequence[str], order: str) -> list[str]:
    """Class folders in timm's natural order, or as strings (torchvision, transformers, Keras)."""
    return sorted(folders, key=natural) if order == "natural" else sorted(folders)


def plain(name: str) -> str:
    """A name as it is compared: a Mac writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def loose(name: str) -> str:
    """A name without case, blanks and what stands for them, to find near matches."""
    return re.sub(r"[\s_\-]+", "", plain(name)).casefold()


# --- what a model says --------------------------------------------------------------------------


def head_size(model: nn.Module) -> int | None:
    """Outputs of the classifier head; None where a model of the user's own does not say."""
    inner: Any = unwrap(model)
    last = _last_layer(inner)
    if last is not None:
        return last.out_features
    if hasattr(inner, "num_classes"):
        return int(inner.num_classes)
    return int(inner.config.num_labels) if hasattr(inner, "config") else None


def _last_layer(model: Any) -> nn.Linear | None:
    """The layer that answers, where the libraries have one.

    After `model.head = nn.Linear(24, 7)` the model says of itself what it said before.
    """
    if hasattr(model, "get_classifier"):  # timm
        head = model.get_classifier()
    else:  # transformers, torchvision
        head = getattr(model, "classifier" if hasattr(model, "config") else "heads", None)
    last = head[-1] if isinstance(head, nn.Sequential) and len(head) else head
    return last if isinstance(last, nn.Linear) else None


def class_count(model: nn.Module) -> int:
    """Outputs of the classifier head.

    Raises:
        InputError: a model of the user's own that does not say.
    """
    count = head_size(model)
    if count is None:
        raise InputError(
            f"{type(model).__name__}: does not say how many classes it has; give it an attribute "
            "num_classes"
        )
    return count


def label_names(model: nn.Module) -> list[str] | None:
    """The checkpoint's own names, or None.

    None also where they are of another head, as timm leaves them after `reset_classifier`.
    """
    names = _carried(model)
    return names if names and len(names) == class_count(model) else None


def _carried(model: nn.Module) -> list[str]:
    names = (getattr(unwrap(model), "pretrained_cfg", {}) or {}).get("label_names") or []
    return in_order(names, "label_names")


def in_order(names: object, shown: str) -> list[str]:
    """Names in the order of the outputs: from a list or whatever else has an order, or `by_index`.

    shown: what they are called.

    Raises:
        InputError: a set, a text, or something in it that is no name.
    """
    if isinstance(names, Mapping):
        return by_index(names, shown)
    ordered = isinstance(names, Iterable) and not isinstance(
        names, str | bytes | bytearray | set | frozenset
    )
    if not ordered:
        raise InputError(
            f"{shown}: {type(names).__name__} {names!r:.60}; must be a list of names in the order "
            "of the outputs, or a dictionary from index to name"
        )
    found = list(cast(Iterable[Any], names))
    if odd := [name for name in found if not isinstance(name, str | int)]:
        raise InputError(f"{shown}: holds {odd[0]!r:.60}; must hold texts, one for each output")
    return [str(name) for name in found]


def by_index(labels: Mapping[Any, str], shown: str) -> list[str]:
    """Names in the order of the outputs, from index -> name; indices count from 0, or from 1.

    shown: what the table is called.

    Raises:
        InputError: other keys; says which.
    """
    try:
        numbered = {int(key): str(name) for key, name in labels.items()}
    except (TypeError, ValueError):  # names -> indices, say
        numbered = {}
    keys = sorted(numbered)
    if len(keys) != len(labels) or keys not in (
        list(range(len(keys))),
        list(range(1, len(keys) + 1)),
    ):
        first = ", ".join(str(key) for key in [*labels][:5])
        raise InputError(f"{shown} has the keys {first}; must be 0 to {len(labels) - 1}, each once")
    if keys and keys[0] == 1:
        log.info("%s counts from 1: its first name is taken for output 0", shown)
    return [numbered[key] for key in keys]


def class_names(model: nn.Module) -> list[str] | None:
    """Names by class index, each once: from the checkpoint, else timm's table of ImageNet's.

    None where there are none. ImageNet has two classes called crane: these get their WordNet ids.
    """
    if names := label_names(model):
        return names
    if subset := _imagenet(model):
        texts = [subset.index_to_description(i) for i in range(class_count(model))]
        counts = Counter(texts)
        return [
            text if counts[text] == 1 else f"{text} ({subset.index_to_label_name(i)})"
            for i, text in enumerate(texts)
        ]
    return None


def folder_names(model: nn.Module) -> list[str] | None:
    """What the class folders of a test set are called, by class index.

    WordNet ids for ImageNet models, else the class names.
    """
    subset = _imagenet(model)
    return label_names(model) or (list(subset.label_names()) if subset else None)


def class_folder_names(model: nn.Module) -> list[str]:
    """Class folder names, which are unique (ImageNet's descriptions are not)."""
    return folder_names(model) or [str(i) for i in range(class_count(model))]


def names_of(model: nn.Module) -> list[str]:
    """Readable class names."""
    return class_names(model) or [str(i) for i in range(class_count(model))]


def brief_names(model: nn.Module) -> list[str]:
    """Readable class names without the synonyms that ImageNet's have ("koala, koala bear, ...").

    They stay where the first alone is the name of two classes.
    """
    names = names_of(model)
    counts = Counter(name.partition(",")[0] for name in names)
    return [first if counts[first := name.partition(",")[0]] == 1 else name for name in names]


def order_of(model: nn.Module) -> str | None:
    """The order of folders that was given with a model; None where none was."""
    return getattr(unwrap(model), _ORDER, None)


def named_by(model: nn.Module) -> str | None:
    """The folders that a model without names was named by; None where the names are its own."""
    return getattr(unwrap(model), _NAMED_BY, None)


# --- names that a person gives ------------------------------------------------------------------


def name_outputs(
    model: nn.Module, names: Sequence[str], shown: str, *, by: str | None = None
) -> None:
    """Give a model class names, one for each output, in place of any that it carries.

    by: the folders that they were taken from, where nobody gave them (`named_by`).

    Raises:
        InputError: another number of names than of outputs, or a name twice; names `shown`.
    """
    names = [plain(str(name)) for name in names]
    if len(names) != class_count(model):
        raise InputError(
            f"{shown}: {len(names)} class names, but the model has {class_count(model)} outputs; "
            "must have one name for each output, in their order"
        )
    if doubled := _doubled(names):
        raise InputError(f"{shown}: {doubled}; must have each name once")
    described: Any = unwrap(model)
    described.pretrained_cfg = {
        **(getattr(described, "pretrained_cfg", None) or {}),
        "label_names": names,
    }
    setattr(described, _NAMED_BY, by)


def replace_names(model: nn.Module, names: Sequence[str], shown: str) -> None:
    """Give a model names in place of any that it carries, which is said.

    Raises:
        InputError: those that it carries, in another order; or as `name_outputs`.
    """
    try:
        carried = list(map(plain, label_names(model) or []))
    except InputError:  # of no order: names that are given decide
        carried = []
    given = list(map(plain, map(str, names)))
    pairs = enumerate(zip(carried, given, strict=False))
    first = next((i for i, (one, other) in pairs if one != other), None)
    if first is not None and sorted(carried) == sorted(given):
        raise InputError(
            f"{shown}: the names that the model carries, in another order: output {first} is "
            f"{carried[first]!r} there and {given[first]!r} here; leave ‹names› out, or correct "
            "the names in the config.json of the model"
        )
    name_outputs(model, names, shown)
    if first is not None:
        log.warning(
            Message(
                f"{shown}: in place of the names that the model carries: output {first} was "
                f"{carried[first]!r} and is {given[first]!r}"
            )
        )


def set_order(model: nn.Module, order: str) -> None:
    """Say in which order class folders name the outputs of a model that carries no names."""
    if order not in ORDERS:
        raise InputError(f"‹order› {order}: choose one of {', '.join(ORDERS)}")
    if label_names(model):
        log.info(Message(f"‹order› {order}: not needed, the model carries class names"))
        return
    setattr(model, _ORDER, order)


def read_names(file: Path) -> list[str]:
    """Class names in the order of a model's outputs: one a line, or JSON (a list, or id2label).

    Raises:
        InputError: not such a file.
    """
    try:
        if not file.is_file():
            raise OSError("no such file")
        text = read_text(file)
        content = json.loads(text) if file.suffix == ".json" else text.splitlines()
        if isinstance(content, dict):
            content = content.get("id2label", content)
        found = [name.strip() for name in in_order(content, "it") if name.strip()]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"‹names› {file}: cannot be read as names, one per line, or a JSON list "
            f"({first_line(error)})"
        ) from error
    if not found:
        raise InputError(f"‹names› {file}: is empty; must hold one name a line")
    return found


# --- ImageNet -----------------------------------------------------------------------------------


def imagenet_outputs(model: nn.Module) -> tuple[int, ...] | None:
    """For each of ImageNet's 1000 classes, in ImageNet's order, the model's output for it.

    Names that the model carries decide, WordNet ids or English ones, in any order; a model
    without names and 1000 outputs has ImageNet's order. None: another model.
    """
    if head_size(model) != 1000 or order_of(model):
        return None
    names = label_names(model)
    if names is None or imagenet_in_order(names):
        return tuple(range(1000))
    found = [imagenet_index(name) for name in names]
    if len(set(found)) != 1000 or None in found:
        return None
    return tuple(found.index(i) for i in range(1000))


def imagenet_in_order(names: Sequence[str]) -> bool:
    """Whether names are ImageNet's 1000, in its order."""
    if len(names) != 1000:
        return False
    same = sum(loose(name) in keys for name, keys in zip(names, _spellings(), strict=True))
    described = any(", " in name for name in names)  # lists of synonyms, which differ by source
    return same >= (_SAME if described else 1000)


def imagenet_index(name: str) -> int | None:
    """ImageNet's class of a WordNet id or an English name; None where there is none or several."""
    return _index_of_spelling().get(loose(name))


def readable(folder: str) -> str:
    """A class folder's name as people say it: the first synonym of a WordNet id, else its words."""
    index = imagenet_index(folder) if re.fullmatch(r"n\d{8}", folder) else None
    if index is not None:
        return ImageNetInfo("imagenet-1k").index_to_description(index).split(", ")[0]
    return " ".join(re.split(r"[\s_]+", plain(folder))).strip()


@cache
def _spellings() -> list[set[str]]:
    """Of each class its WordNet id, its whole description and each synonym, as `loose` has them."""
    info = ImageNetInfo("imagenet-1k")
    rows = [(info.index_to_label_name(i), info.index_to_description(i)) for i in range(1000)]
    return [{loose(n) for n in (wnid, text, *text.split(", "))} for wnid, text in rows]


@cache
def _index_of_spelling() -> dict[str, int]:
    counts = Counter(key for keys in _spellings() for key in keys)
    return {key: i for i, keys in enumerate(_spellings()) for key in keys if counts[key] == 1}


def _imagenet(model: nn.Module) -> ImageNetInfo | None:
    """Of a model without names of its own; None also where its head is another by now."""
    subset = None if order_of(model) else infer_imagenet_subset(unwrap(model))
    info = ImageNetInfo(subset) if subset else None
    return info if info and head_size(model) in (None, info.num_classes()) else None


# --- what cannot be scored ----------------------------------------------------------------------


def refuse_unusable_head(model: nn.Module, shown: str, *, renamed: bool = False) -> None:
    """Stop at a head whose softmax says nothing, and at names that do not name its outputs.

    renamed: names follow from elsewhere, so those in the checkpoint may be wrong.

    Raises:
        InputError: one output, independent outputs, a name twice, or another number of names.
    """
    inner: Any = unwrap(model)
    kind = getattr(getattr(inner, "config", None), "problem_type", None)
    if kind in ("multi_label_classification", "regression"):
        raise InputError(
            f"{shown}: its problem_type is {kind}, so its outputs are not shares of one answer; "
            "must be a classifier of one class for each image (single_label_classification)"
        )
    if head_size(model) == 1:
        raise InputError(
            f"{shown}: its head has one output, so there is nothing to choose between; must "
            "have two outputs or more"
        )
    if renamed or not (names := _carried(model)):
        return
    if len(names) != (count := class_count(model)):
        raise InputError(
            f"{shown}: names {len(names)} classes but has {count} outputs; fix label_names in its "
            "config.json, or give ‹names› with one name for each output"
        )
    if doubled := _doubled(names):
        if not imagenet_in_order(names):
            raise InputError(
                f"{shown}: {doubled}, so a class folder of that name has two outputs; give "
                "‹names› with one name for each output"
            )
        inner.pretrained_cfg = {**inner.pretrained_cfg, "label_names": None}  # WordNet ids then


def refuse_unfinished_weights(model: nn.Module, shown: str) -> None:
    """Stop at weights that are NaN or infinite, as a diverged training leaves them."""
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            raise InputError(
                f"{shown}: {name} holds values that are not finite (NaN or infinite), as a "
                "training that diverged leaves them; give another checkpoint"
            )


def _doubled(names: Sequence[str]) -> str:
    """'crane' is the name of outputs 0 and 2, where a name stands twice; else an empty text."""
    name, count = Counter(map(plain, names)).most_common(1)[0]
    places = [str(i) for i, other in enumerate(names) if plain(other) == name]
    return f"{name!r} is the name of outputs {' and '.join(places[:2])}" if count > 1 else ""
