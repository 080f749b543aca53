"""Options that several commands share, and options made of the fields of settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer

from refocus.errors import InputError, Message
from refocus.settings import Setting, settings_of

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Called:
    """Beside an option whose parameter the library calls differently.

    As in `on: Annotated[list[str], typer.Option(...), Called("suites")]`.
    """

    name: str


@dataclass(frozen=True)
class Rows:
    """Beside an option whose values are names of rows, which its help lists.

    The table is read only then, as most tables import torch.

    table: "module:TABLE", a mapping, or a function without arguments that returns one. title: above
    the list. inline: whether the option's help ends with the names. described: whether what the
    rows say about themselves is shown below the help.
    """

    table: str
    title: str
    inline: bool = True
    described: bool = False


Model = Annotated[
    str,
    typer.Option(
        help="timm name, hf:ID, torchvision:NAME or a model folder; `refocus models` lists "
        "families."
    ),
]
Names = Annotated[
    Path | None,
    typer.Option(
        help="Class names in the order of the model's outputs: a file with one a line, or a JSON "
        "list. For a model that carries none."
    ),
]
Order = Annotated[
    str | None,
    typer.Option(
        help="How class folders name the outputs of a model without names: natural (timm) or "
        "string (torchvision, transformers)."
    ),
]
MaskPolarity = Annotated[
    str,
    typer.Option(
        help="ask: stop where most masks seem to mark the background. keep: they are right. "
        "invert: exchange object and background."
    ),
]
Backgrounds = Annotated[
    Path | None,
    typer.Option(help="Folder of images without the classes' objects, for the shift real."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Workers = Annotated[int, typer.Option(help="Processes that decode images.", min=0)]
MaskScore = Annotated[
    float,
    typer.Option(help="Leave out masks that `refocus masks` gave a lower score.", min=0, max=1),
]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.", min=0)]


def spelling(name: str, value: str | None = None) -> str:
    """A parameter as an option: `--name`, `--name value`, or `--no-name` for one that is off."""
    dashed = name.replace("_", "-")
    if value in ("True", "False"):
        return f"--{dashed}" if value == "True" else f"--no-{dashed}"
    return f"--{dashed}" if value is None else f"--{dashed} {value}"


# --- options of settings ------------------------------------------------------------------------


def with_settings(
    kind: type,
    *,
    optional: Iterable[str] = (),
    spelt: Mapping[str, str] | None = None,
    beside: Mapping[str, Any] | None = None,
) -> Callable[[Function], Function]:
    """Give a command that takes `**given` an option for every field of a settings dataclass.

    Name, type, default, help and what is legal are the field's. Fields that must be given come
    first, then what the command declares itself, then the rest.

    optional: fields without a default that may be left out here, and are None then. spelt: fields
        whose option has another name. beside: a further annotation of an option, by field.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        first: list[inspect.Parameter] = []
        rest: list[inspect.Parameter] = []
        for setting in settings_of(kind):
            name = (spelt or {}).get(setting.name, setting.name)
            made = _parameter(setting, name, setting.name in optional, beside or {})
            (first if setting.default is MISSING else rest).append(made)
        every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*first, *own, *rest)]
        function.__signature__ = signature.replace(parameters=every)  # type: ignore[attr-defined]
        return function

    return decorate


def settings_from(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a settings dataclass from the values of its options.

    NAME=NUMBER pairs become a dictionary, a number or a word what it is.

    Raises:
        InputError: a pair that is none.
    """
    return {s.name: _value(s, given[s.name]) for s in settings_of(kind) if s.name in given}


def _parameter(
    setting: Setting, name: str, optional: bool, beside: Mapping[str, Any]
) -> inspect.Parameter:
    option, default, kind = spelling(name), setting.default, _typed(setting.kind)
    if _repeats(setting.kind):
        default = None
    if default is MISSING and optional:
        kind, default = kind | None, None
    if default is True:
        option = f"{option}/{spelling(name, 'False')}"
    info = typer.Option(option, help=_help(setting), metavar=_metavar(setting.kind))
    extras = [beside[setting.name]] if setting.name in beside else []
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=Annotated[(kind, info, *extras)],
    )


def _parts(kind: Any) -> list[Any]:
    """The types of a union; of another type itself."""
    return list(get_args(kind)) if get_origin(kind) is Union else [kind]


def _repeats(kind: Any) -> bool:
    """Whether its option may be given several times."""
    return get_origin(kind) is dict or Ellipsis in get_args(kind)


def _typed(kind: Any) -> Any:
    """What Typer parses: words and pairs stay text."""
    if _repeats(kind):
        return list[str] | None
    if any(get_origin(part) is Literal for part in _parts(kind)):
        return str | None if NoneType in _parts(kind) else str
    return kind


def _metavar(kind: Any) -> str | None:
    if get_origin(kind) is dict:
        return "<NAME=NUMBER>"
    if _repeats(kind):
        return _metavar(get_args(kind)[0]) or "<str>"
    if _typed(kind) is kind:
        return None  # Typer's own
    names = [
        "|".join(get_args(part)) if get_origin(part) is Literal else part.__name__
        for part in _parts(kind)
        if part is not NoneType
    ]
    return f"<{'|'.join(names)}>"


def _help(setting: Setting) -> str:
    """What a field means, and what it may hold where that is a range."""
    text = Message(setting.about).worded(spelling)
    if _repeats(setting.kind):
        return f"{text} Repeat for more."
    legal = setting.legal.removeprefix("a whole number ").removeprefix("a number ")
    bounded = legal != setting.legal and setting.name != "seed"
    return f"{text} [{legal.removeprefix('of ')}]" if bounded else text


def _value(setting: Setting, given: Any) -> Any:
    if get_origin(setting.kind) is dict:
        return dict(_pair(setting.name, pair) for pair in given or ())
    if _repeats(setting.kind):
        return tuple(given or ())
    if float in _parts(setting.kind) and isinstance(given, str):
        return _number(given)
    return given


def _pair(name: str, pair: str) -> tuple[str, float]:
    term, equals, value = pair.partition("=")
    number = _number(value)
    if not term or not equals or isinstance(number, str):
        raise InputError(f"‹{name}› {pair}: must be NAME=NUMBER")
    return term, number


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # a word; whether it is legal, the settings know
