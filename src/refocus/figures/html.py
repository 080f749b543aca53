"""One self-contained page: templates, styles and pictures in one file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

_SIDE = 200  # pixels of a tile's shorter side


def page(template: str, **content: Any) -> str:
    """Render a template of the package; a missing value is an error, text is escaped."""
    return (
        Environment(
            loader=PackageLoader("refocus", "assets"), autoescape=True, undefined=StrictUndefined
        )
        .get_template(template)
        .render(**content)
    )


def data_uri(content: bytes, kind: str) -> str:
    """A picture as a data URI, so that a page needs no other file; kind: png, jpeg or svg+xml."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def embed(path: Path) -> str:
    """A PNG file as a data URI."""
    return data_uri(path.read_bytes(), "png")


def jpeg_uri(picture: Image.Image, quality: int = 82) -> str:
    """A picture as a data URI that does not make the page heavy."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return data_uri(buffer.getvalue(), "jpeg")


def tile_uri(pixels: np.ndarray) -> str:
    """Pixels uint8 `[H, W, 3]` at a tile's size, as a data URI."""
    picture = Image.fromarray(pixels)
    scale = _SIDE / min(picture.size)
    size = (round(scale * picture.width), round(scale * picture.height))
    return jpeg_uri(picture.resize(size, Image.Resampling.BICUBIC))
