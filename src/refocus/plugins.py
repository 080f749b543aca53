"""Tables that other packages can add rows to, by an entry point. Imports no torch.

A package adds a row by naming it in its `pyproject.toml` (docs/extending.md):

    [project.entry-points."refocus.probes"]
    blink = "my_package:BLINK"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from refocus.errors import InputError, first_line

T = TypeVar("T")


class Table(Mapping[str, T]):
    """The rows of refocus, and after them those of installed packages.

    Entry points are read once, when the table is first asked for a name; a row of another package
    is imported when it is first taken.

    group: the entry points' group, such as "refocus.probes".
    own: the rows of refocus.
    kind: what a row must be.
    """

    def __init__(self, group: str, own: dict[str, T], kind: type[T]) -> None:
        """Nothing is read yet."""
        self.group = group
        self.own = dict(own)
        self._rows = dict(own)
        self._kind = kind
        self._added: dict[str, EntryPoint] | None = None

    def __getitem__(self, name: str) -> T:
        """The row of a name.

        Raises:
            InputError: the row of another package cannot be imported, or is of another type.
        """
        if name not in self._rows and name in self._found():
            self._rows[name] = self._load(self._found()[name])
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        """Names of all rows; nothing is imported for them."""
        yield from dict.fromkeys((*self._rows, *self._found()))

    def __len__(self) -> int:
        """How many rows there are."""
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a row; nothing is imported for it."""
        return name in self._rows or name in self._found()

    @contextmanager
    def having(self, rows: Mapping[str, T]) -> Iterator[None]:
        """Within the block, with rows of the caller's own: for comparisons in one process.

        Raises:
            InputError: a name is taken.
        """
        if taken := sorted(name for name in rows if name in self):
            raise InputError(f"{self.group}: the name {taken[0]!r} is taken")
        self._rows |= rows
        try:
            yield
        finally:
            for name in rows:
                del self._rows[name]

    def _found(self) -> dict[str, EntryPoint]:
        if self._added is None:
            added: dict[str, EntryPoint] = {}
            for point in sorted(entry_points(group=self.group), key=_origin):
                if point.name in self._rows or point.name in added:
                    other = _origin(added[point.name]) if point.name in added else "refocus"
                    raise InputError(
                        f"entry point {self.group}: the name {point.name!r} of {_origin(point)} is "
                        f"taken by {other}; uninstall one of them or rename its row"
                    )
                added[point.name] = point
            self._added = added
        return self._added

    def _load(self, point: EntryPoint) -> T:
        what = f"entry point {self.group}: {point.name} of {_origin(point)}"
        try:
            row = point.load()
        except Exception as error:  # anything that the other package raises on import
            raise InputError(f"{what} cannot be loaded ({first_line(error)})") from error
        if not isinstance(row, self._kind):
            raise InputError(
                f"{what} is a {type(row).__name__}; it must be a "
                f"{self._kind.__module__}.{self._kind.__name__}"
            )
        return row


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name if point.dist else 'an unknown package'} ({point.value})"
