"""One self-contained page: templates, styles and pictures in one file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image


def embed(path: Path) -> str:
    """A PNG as a data URI, so that a page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def page(template: str, **content: Any) -> str:
    """Render a template of the package; a missing value is an error, text is escaped."""
    return (
        Environment(
            loader=PackageLoader("refocus", "assets"), autoescape=True, undefined=StrictUndefined
        )
        .get_template(template)
        .render(**content)
    )


_SIDE = 200  # pixels of a tile's shorter side


def data_uri(picture: np.ndarray) -> str:
    image = Image.fromarray(picture)
    scale = _SIDE / min(image.size)
    image = image.resize(
        (round(scale * image.width), round(scale * image.height)), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
