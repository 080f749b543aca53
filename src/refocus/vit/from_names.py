"""From class names alone to a model folder: a zero-shot classifier of CLIP or SigLIP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from timm.data import ImageNetInfo
from torch import nn

from refocus.errors import InputError, first_line
from refocus.files import of_the_disk, read_text
from refocus.vit import zero_shot
from refocus.vit.classes import in_order
from refocus.vit.loading import save


def write_zero_shot(
    model: str,
    names: str | Path | Sequence[str],
    out: str | Path,
    *,
    templates: str | Path | None = None,
) -> nn.Module:
    """Make a classifier without training and save it as a model folder.

    Args:
        model: CLIP or SigLIP of transformers: hf:ID, or a folder that save_pretrained wrote.
        names: class names as the class folders of images are called: a list, or what `read_names`
            takes.
        out: new folder.
        templates: file of sentences with {} for the class, one a line; None: the 80 of CLIP's
            paper.

    Raises:
        InputError: fewer than two names or one twice, two that are the same words, a sentence
            without a place for the class, a model of another kind, or `out` exists.
    """
    folder = Path(out)
    if isinstance(names, (str, Path)):
        found = read_names(names)
    else:
        found = _distinct(in_order(names, "‹names›"), "")
    sentences = read_sentences(templates)
    if folder.exists():
        raise InputError(f"‹out› {out}: exists and is not overwritten; name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if of_the_disk(error):
            raise
        raise InputError(f"‹out› {out}: cannot be written ({error.strerror})") from error
    words = spoken_apart(found)
    made = zero_shot.build(model.removeprefix("hf:"), found, words, sentences)
    save(made, folder)
    return made


def read_names(given: str | Path) -> list[str]:
    """Class names from a file, from the folders of an ImageFolder, or from the text itself.

    A file has one a line, a text is "a,b,c".

    Raises:
        InputError: fewer than two, or one twice.
    """
    path = Path(given).expanduser()
    try:
        folder, file = path.is_dir(), path.is_file()
    except OSError:  # a long list is no file name
        folder = file = False
    if folder:
        found = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    elif file:
        found = _lines("names", path)
    else:
        found = [part.strip() for part in str(given).split(",") if part.strip()]
    return _distinct(found, f" {given}")


def read_sentences(file: str | Path | None) -> list[str]:
    """Templates with {} for the class from a file, one a line; None: the 80 of CLIP's paper."""
    if file is None:
        return zero_shot.templates()
    sentences = _lines("templates", Path(file))
    if bad := [s for s in sentences if s.count("{}") != 1 or "{{" in s]:
        raise InputError(f"‹templates›: {bad[0]!r} must hold {{}} once, where the class name goes")
    return sentences


def spoken_apart(names: Sequence[str]) -> list[str]:
    """Each folder's name as a word; WordNet ids that share one also by what they mean.

    Raises:
        InputError: two names that would be the same words, so that their outputs were equal.
    """
    words = [spoken(name) for name in names]
    counts = Counter(word.casefold() for word in words)  # tokenizers know no capitals
    for i, name in enumerate(names):
        if counts[words[i].casefold()] > 1 and (known := _wordnet(name)):
            text = str(known.label_name_to_description(name, detailed=True))
            words[i] += f", {text.partition(': ')[2].partition(';')[0]}"
    taken: dict[str, str] = {}
    for name, word in zip(names, words, strict=True):
        if (other := taken.setdefault(word.casefold(), name)) != name:
            raise InputError(
                f"‹names›: {other} and {name} are both {word!r} in a sentence, so their outputs "
                "would be equal; call one otherwise"
            )
    return words


def spoken(name: str) -> str:
    """A folder's name as a word: WordNet ids by ImageNet's table, underscores as spaces."""
    if known := _wordnet(name):
        return str(known.label_name_to_description(name)).split(",")[0]
    return name.replace("_", " ")


def _wordnet(name: str) -> ImageNetInfo | None:
    """The table of ImageNet's classes where a name is a WordNet id in it."""
    if not (len(name) == 9 and name[0] == "n" and name[1:].isdigit()):
        return None
    known = _table()
    return known if name in known.label_names() else None


@cache
def _table() -> ImageNetInfo:
    return ImageNetInfo("imagenet-22k")


def _distinct(names: list[str], shown: str) -> list[str]:
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"‹names›{shown}: {len(names)} names; at least two, each once, from a file, a folder "
            "or a,b,c"
        )
    return names


def _lines(parameter: str, file: Path) -> list[str]:
    try:
        text = read_text(file)
    except (OSError, ValueError) as error:
        raise InputError(
            f"‹{parameter}› {file}: cannot be read as text ({first_line(error)})"
        ) from error
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise InputError(f"‹{parameter}› {file}: is empty")
    return found
