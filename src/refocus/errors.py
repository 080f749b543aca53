"""The one error that means "your input": the command line prints its single line and exits with
status 2.
"""


class InputError(ValueError):
    """Something the user gave cannot be used; the message names the file or option, the value and
    what is legal.
    """


def first_line(error: Exception) -> str:
    """Of another library's message, for one of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
