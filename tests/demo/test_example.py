"""The example that other tries start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from refocus import InputError
from refocus.demo import example


@pytest.mark.parametrize("count", [0, -1])
def test_an_example_without_images_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match=f"^per_class {count}: must be a whole number of at least"):
        example.write(tmp_path / "example", per_class=count)
    assert not (tmp_path / "example").exists()
