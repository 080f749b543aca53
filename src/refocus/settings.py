"""Settings: frozen dataclasses whose annotations say everything once.

That is the type of a field, what is legal and what it means.

    @dataclass(frozen=True)
    class Plan:
        shots: Annotated[Count, about("Training images per class.")] = 3

        def __post_init__(self) -> None:
            check(self)

`check` refuses all else in one line; the command line makes its options of `settings_of`. Imports
no torch.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from refocus.errors import InputError

Text = Annotated[str, Meta(pattern=r"\S")]  # more than blanks
Count = Annotated[int, Meta(ge=1)]
CountOrZero = Annotated[int, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]  # what numpy and torch take
Positive = Annotated[float, Meta(gt=0)]
PositiveOrZero = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
PositiveFraction = Annotated[float, Meta(gt=0, le=1)]
AtLeastTwo = Annotated[int, Meta(ge=2)]
_PATH = "path"
_FILE_NAME = re.compile(r'(?!\.{1,2}\Z)[^/\\:*?"<>|\x00-\x1f]+')  # on any system
_LONGEST = 200  # bytes of a name; file systems take 255, endings are put behind it
_LARGEST = 2**32 - 1  # of whole numbers; no count comes near
if TYPE_CHECKING:  # what may be given; `check` makes texts of paths
    PathText = str | Path
    Folders = Mapping[str, str | Path]
    Reference = str | Path  # a model's name or folder
else:
    PathText = Annotated[str, Meta(pattern=r"\S", extra={_PATH: True})]
    Folders = dict[Text, PathText]
    Reference = Text


def about(text: str) -> Meta:
    """What a field means, for people: the command line shows it as the help of its option."""
    return Meta(description=text)


def names_a_file(name: str) -> bool:
    """Whether a name can be that of a file or folder on any system, and not of one elsewhere."""
    long = len(name.encode("utf-8", "replace")) > _LONGEST
    return _FILE_NAME.fullmatch(name) is not None and not long


# --- fields that several settings share -----------------------------------------------------------

Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    about("Where to compute; auto uses a GPU if there is one."),
]
Workers = Annotated[
    Annotated[int, Meta(ge=0, le=256)]  # each costs memory before it does a thing
    | Literal["auto"],
    about(
        "Number of processes that read images ahead. auto: none if the network runs on the CPU, "
        "which it fills, else up to 8."
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16"],
    about("Number format that networks answer in; bf16 is faster where the hardware has it."),
]
SeedOfAll = Annotated[Seed, about("Seed of all random choices.")]
BatchSize = Annotated[Count, about("Images per forward pass.")]
MaskScore = Annotated[Fraction, about("Leave out masks that `refocus masks` scored lower.")]
MaskPolarity = Annotated[
    Literal["ask", "keep", "invert"],
    about(
        "ask: stop if most masks seem to mark the background. keep: use them as they are. "
        "invert: swap object and background."
    ),
]
Faithful = Annotated[
    CountOrZero, about("Number of images for insertion and deletion (36 forward passes each).")
]


# --- one field ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One field of a settings dataclass.

    hint: its annotation. default: MISSING where a value must be given. about: what it means, a
    sentence in which other fields are marked as in `refocus.errors`.
    """

    name: str
    hint: Any
    default: Any
    about: str

    @property
    def kind(self) -> Any:
        """Its type without what is legal: `int | None`, `float | Literal["auto"]`, ..."""
        return _bare(self.hint)

    @property
    def is_path(self) -> bool:
        """Whether it holds the path of a file or folder, or several by name."""
        return _is_path(self.hint)

    @property
    def legal(self) -> str:
        """What it may hold, in words: "a whole number of at least 1"."""
        return _words(self.hint)


def settings_of(kind: type) -> list[Setting]:
    """The fields of a settings dataclass in their order."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        setting(
            field.name,
            hints[field.name],
            field.default_factory() if field.default_factory is not MISSING else field.default,
        )
        for field in fields(kind)
    ]


def setting(name: str, hint: Any, default: Any = MISSING) -> Setting:
    """One field by its annotation."""
    about = next((meta.description for meta in _metas(hint) if meta.description), "")
    return Setting(name, hint, default, about)


def check(settings: Any) -> None:
    """Refuse what a field may not hold, for `__post_init__`.

    A path becomes the text it stands for, and a list from JSON a tuple.

    Raises:
        InputError: names the first such field, its value and what is legal.
    """
    for setting in settings_of(type(settings)):
        value = _checked(setting, getattr(settings, setting.name))
        object.__setattr__(settings, setting.name, value)


def _checked(setting: Setting, value: Any) -> Any:
    value = _plain(value)
    if setting.is_path and isinstance(value, dict):
        _check_names(setting.name, value)
    for shown, part, hint in _pieces(value, setting.hint):
        name = f"‹{setting.name}› {shown}".rstrip()
        try:
            found = msgspec.convert(part, hint)
        except msgspec.ValidationError as error:
            raise InputError(f"{name}: must be {_words(hint)}") from error
        if isinstance(found, float) and not math.isfinite(found):
            raise InputError(f"{name}: must be a finite number")
        if isinstance(found, int) and found > _LARGEST:
            raise InputError(f"{name[:60]}: must be at most {_LARGEST}")
    return msgspec.convert(value, setting.hint)


def _check_names(field: str, paths: Mapping[Any, Any]) -> None:
    """What is found out about NAME=PATH is kept in files and folders of that name."""
    for name, path in paths.items():
        if isinstance(name, str) and not names_a_file(name):
            raise InputError(
                f"‹{field}› {name}={path}: must be NAME=PATH, with a name that can be a file name"
            )


def _plain(value: Any) -> Any:
    """Paths as the texts they stand for, and numbers of numpy or torch as Python's.

    Also those in a dictionary, a list or a tuple.
    """
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_plain(part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _pieces(value: Any, hint: Any) -> Iterator[tuple[str, Any, Any]]:
    """What is checked by itself, so that the one that is wrong is named.

    Each entry of a dictionary, each item of a list, and at last the whole. In words, value and
    hint.
    """
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(kind) is dict and isinstance(value, dict):
        yield from ((f"{name}={part}", part, get_args(kind)[1]) for name, part in value.items())
    if get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        yield from ((str(part), part, get_args(kind)[0]) for part in value)
    yield str(value), value, hint


def _metas(hint: Any) -> list[Meta]:
    return [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Meta)]


def _is_path(hint: Any) -> bool:
    """Whether a field holds a path, or paths by name."""
    if get_origin(hint) in (Union, UnionType, dict):
        return any(_is_path(part) for part in get_args(hint))
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    marked = any((meta.extra or {}).get(_PATH) for meta in _metas(hint))
    return marked or (kind is not hint and _is_path(kind))


def _bare(hint: Any) -> Any:
    if get_origin(hint) is Annotated:
        return _bare(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(_bare(part) for part in get_args(hint))]  # noqa: UP007 - of a list
    if get_origin(hint) is tuple:
        return tuple[tuple(_bare(part) for part in get_args(hint))]  # type: ignore[misc]
    return hint


def _words(hint: Any) -> str:
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_words(part) for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is Literal:
        *most, last = map(str, get_args(kind))
        return f"{', '.join(most)} or {last}" if most else last
    if kind in (int, float):
        noun = "a whole number" if kind is int else "a number"
        return " ".join([noun, *_range([m for m in extras if isinstance(m, Meta)])])
    return {str: "a text that is not empty", bool: "True or False"}.get(kind, _shape(kind))


def _shape(kind: Any) -> str:
    """Of the collections that settings hold."""
    if get_origin(kind) is dict:
        return f"names with {'a path' if _is_path(get_args(kind)[1]) else 'a number'} each"
    if get_origin(kind) is tuple:
        first, *more = get_args(kind)
        if Ellipsis in more:
            return f"a list, each {_words(first)}"
        return f"{1 + len(more)} {'texts' if _bare(first) is str else 'numbers'}"
    return str(kind)


def _range(bounds: list[Meta]) -> list[str]:
    """What the bounds say, after "a number": nothing, or words such as "of at least 1"."""
    least, above, most = (
        next((getattr(b, key) for b in bounds if getattr(b, key) is not None), None)
        for key in ("ge", "gt", "le")
    )
    if least is not None and most is not None:
        return [f"between {least} and {most}"]
    low = [f"of at least {least}"] if least is not None else []
    low += [f"above {above}"] if above is not None else []
    return low + ([f"and at most {most}" if low else f"of at most {most}"] if most else [])
