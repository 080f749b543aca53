"""Options that several commands share, and options made of the fields of settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer

from refocus.errors import InputError
from refocus.settings import Setting, names_a_file, setting, settings_of

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

    table: "module:TABLE", a mapping, or a function without arguments that returns one. After a
        change of its rows run `python scripts/help_rows.py`. title: above the list. inline: whether
        the option's help ends with the names. described: whether what the rows say about themselves
        is shown below the help.
    """

    table: str
    title: str
    inline: bool = True
    described: bool = False


Model = Annotated[
    str,
    typer.Option(
        help="timm name, hf:ID, torchvision:NAME, or the folder of a model or of a finished run; "
        "`refocus models` lists families."
    ),
]
Names = Annotated[
    Path | None,
    typer.Option(
        help="Class names in the order of the model's outputs: a file with one per line, or a JSON "
        "list. For models that carry no names."
    ),
]
Order = Annotated[
    str | None,
    typer.Option(
        help="How class folders name the outputs of a model without names: natural (timm) or "
        "string (torchvision, transformers)."
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        help="Log losses, the final table and maps to tensorboard, trackio, wandb or mlflow."
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", hidden=True, help="Not needed: the same command resumes anyway.")
]


def spelling(name: str, value: str | None = None) -> str:
    """A parameter as an option: `--name`, `--name value`, or `--no-name` for one that is off."""
    dashed = name.replace("_", "-")
    if value in ("True", "False"):
        return f"--{dashed}" if value == "True" else f"--no-{dashed}"
    return f"--{dashed}" if value is None else f"--{dashed} {value}"


def option(name: str, hint: Any) -> Any:
    """The option for a field that settings share, where a command has no settings."""
    field = setting(name, hint)
    return typer.Option(help=_help(field), metavar=_metavar(field))


# --- options of settings ------------------------------------------------------------------------


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """A command's signature with the annotations of its parameters evaluated.

    What it returns stays a text: results live in modules that load torch.
    """
    raw, names = inspect.signature(function), inspect.unwrap(function).__globals__
    parameters = [
        p.replace(annotation=eval(p.annotation, names)) if isinstance(p.annotation, str) else p
        for p in raw.parameters.values()
    ]
    return raw.replace(parameters=parameters)


def with_settings(
    kind: type,
    *,
    optional: Iterable[str] = (),
    needed: Iterable[str] = (),
    spelt: Mapping[str, str] | None = None,
    beside: Mapping[str, Any] | None = None,
) -> Callable[[Function], Function]:
    """Give a command that takes `**given` an option for every field of a settings dataclass.

    Name, type, default, help and what is legal are the field's. Fields that must be given come
    first, then what the command declares itself, then the rest.

    optional: fields without a default that may be left out here, and are None then. needed: fields
        with a default that must be given here. spelt: fields whose option has another name. beside:
        a further annotation of an option, by field.
    """

    def decorate(function: Function) -> Function:
        signature = signature_of(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        first: list[inspect.Parameter] = []
        rest: list[inspect.Parameter] = []
        for field in settings_of(kind):
            name = field.name
            asked = replace(field, default=MISSING) if name in needed else field
            made = _parameter(asked, (spelt or {}).get(name, name), name in optional, beside or {})
            (first if asked.default is MISSING else rest).append(made)
        every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*first, *own, *rest)]
        function.__signature__ = signature.replace(parameters=every)  # type: ignore[attr-defined]
        return function

    return decorate


def is_named(context: typer.Context, parameter: str) -> bool:
    """Whether an option was given on the command line."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def settings_from(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a settings dataclass from the values of its options.

    NAME=NUMBER and NAME=PATH pairs become a dictionary, words between commas a tuple, a number or a
    word what it is. What may be repeated and was not given at all keeps its default.

    Raises:
        InputError: a pair that is none.
    """
    return {
        s.name: _value(s, given[s.name])
        for s in settings_of(kind)
        if s.name in given and not (Ellipsis in get_args(s.kind) and given[s.name] is None)
    }


def _parameter(
    setting: Setting, name: str, optional: bool, beside: Mapping[str, Any]
) -> inspect.Parameter:
    option, default, kind = spelling(name), setting.default, _typed(setting.kind)
    shown: Any = True
    if default is MISSING and optional:
        kind, default = kind | None, None
    elif default is not MISSING and _repeats(setting.kind):
        kind, shown, default = kind | None, ", ".join(default) or False, None
    if setting.kind is bool and default is not False:
        option = f"{option}/{spelling(name, 'False')}"
    info = typer.Option(option, help=_help(setting), metavar=_metavar(setting), show_default=shown)
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
        return list[str]
    if any(get_origin(part) is Literal for part in _parts(kind)):
        return str | None if NoneType in _parts(kind) else str
    return kind


def _metavar(setting: Setting) -> str | None:
    kind = setting.kind
    if get_origin(kind) is dict:
        return "<NAME=PATH>" if setting.is_path else "<NAME=NUMBER>"
    if _repeats(kind):
        return f"<{_words(get_args(kind)[:1]) or 'str'}>"
    if setting.is_path and str in _parts(kind):
        return "<path>"
    # else Typer's own
    return f"<{_words(_parts(kind))}>" if _typed(kind) is not kind else None


def _words(kinds: Iterable[Any]) -> str:
    """Types and words as help shows what may be given: `float|auto`, `str`."""
    return "|".join(
        "|".join(get_args(kind)) if get_origin(kind) is Literal else kind.__name__
        for kind in kinds
        if kind is not NoneType
    )


def _help(setting: Setting) -> str:
    """What a field means, and what it may hold where that is a range.

    Other fields are still marked; the command puts its options in their place.
    """
    text = setting.about
    if get_origin(setting.kind) is dict:
        return f"{text} Can be repeated."
    if _repeats(setting.kind):
        return f"{text} Repeat the option, or separate values by commas."
    legal = setting.legal.removeprefix("a whole number ").removeprefix("a number ")
    bounded = legal != setting.legal and setting.name != "seed"
    return f"{text} [{legal.removeprefix('of ')}]" if bounded else text


def _value(setting: Setting, given: Any) -> Any:
    if get_origin(setting.kind) is dict:
        return (_paths if setting.is_path else _numbers)(setting.name, given or ())
    if _repeats(setting.kind):
        return tuple(word.strip() for text in given for word in text.split(","))
    if float in _parts(setting.kind) and isinstance(given, str):
        return _number(given)
    if int in _parts(setting.kind) and isinstance(given, str):
        return int(given) if given.removeprefix("-").isdecimal() else _number(given)
    return given


def _paths(name: str, given: Iterable[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for pair in given:
        key, equals, path = pair.partition("=")
        # a path may hold a drive letter and "="
        if not equals or not path or not names_a_file(key):
            raise InputError(
                f"‹{name}› {pair}: must be NAME=PATH, with a name that can be a file name"
            )
        if key in found:
            raise InputError(f"‹{name}› {pair}: the name {key!r} is used twice")
        found[key] = Path(path).expanduser()
    return found


def _numbers(name: str, given: Iterable[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        number = _number(value)
        if not key or not equals or isinstance(number, str):
            raise InputError(f"‹{name}› {pair}: must be NAME=NUMBER")
        found[key] = number
    return found


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # a word; whether it is legal, the settings know
