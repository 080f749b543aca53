"""The one error that means "your input", and how a message names a parameter.

Python knows parameters, the command line knows options. So a text of the library marks a parameter,
as in `f"‹mask_score› {value}: must be between 0 and 1"` or, with a value of its own, in `"only with
‹lr=auto›"` and `"only with ‹do_no_harm=False›"`. Python reads the plain names (`str(error)`);
`refocus.cli.wording` puts the options of the running command in their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal, which torch's exporter writes
_PARAMETER = re.compile(r"‹(\w+)(?:=([^‹›]*))?›")


class Message:
    """A text that marks parameters with ‹ and ›; `str` gives it without the marks.

    That is how Python reads it. Give one to a logger where what is said names a parameter.
    """

    def __init__(self, marked: str) -> None:
        self.marked = marked

    def __str__(self) -> str:
        return self.worded(lambda name, value: name if value is None else f"{name}={value}")

    def worded(self, words: Callable[[str, str | None], str]) -> str:
        """The text with `words(name, value)` in place of each mark.

        `value` is None where the mark has none.
        """
        return _PARAMETER.sub(lambda found: words(found[1], found[2]), self.marked)


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line; it names the file or the parameter, the value and what is legal. It may
    mark parameters, see `refocus.errors`.

    Examples:
        >>> import refocus
        >>> try:
        ...     refocus.load("resnet50", pretrained=False)
        ... except refocus.InputError as error:
        ...     print(str(error)[:55])
        model resnet50: convolutions, no attention, so no atten
    """

    def __init__(self, marked: str) -> None:
        self.message = Message(marked)
        super().__init__(str(self.message))

    @property
    def marked(self) -> str:
        """The message with its marks, to build another one from."""
        return self.message.marked

    def renamed(self, parameter: str, to: str) -> InputError:
        """The same about another parameter, for a caller that calls it differently."""
        return InputError(re.sub(rf"‹{parameter}(?=[=›])", f"‹{to}", self.marked))

    def __reduce__(self) -> tuple[type[InputError], tuple[str]]:
        return type(self), (self.marked,)  # so that a worker process hands it over with its marks


def first_line(error: Exception) -> str:
    """The first line of another library's message, for use in one of ours.

    With the next one where it only leads up to that, as PyTorch's on weights that do not fit.
    """
    text = _COLOURS.sub("", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    until = next((i for i, line in enumerate(lines) if not line.endswith(":")), len(lines) - 1)
    return (" ".join(lines[: until + 1]) or type(error).__name__)[:200]
