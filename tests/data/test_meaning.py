"""What the values of a file mean: right, or refused with a line, but never something else."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refocus.data.images import read_image, read_mask
from refocus.errors import InputError

SIZE = (30, 40)  # height, width
DISC = np.zeros(SIZE, bool)
DISC[8:20, 10:30] = True
DISC[12, 8] = True  # so that no flip or turn is the same


def of(values: dict[str, int], more: int = 0) -> np.ndarray:
    """Grey uint8 with `in` and `out` of the object, and `more` rows of `third` at the bottom."""
    grey = np.where(DISC, values["in"], values["out"]).astype(np.uint8)
    if more:
        grey[-more:] = values["third"]
    return grey


def palette(indices: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    picture = Image.fromarray(indices.astype(np.uint8), "P")
    picture.putpalette([v for colour in colours for v in colour])
    return picture


def transparent(
    indices: np.ndarray, colours: list[tuple[int, int, int]], entry: int
) -> Image.Image:
    picture = palette(indices, colours)
    picture.info["transparency"] = entry
    return picture


def transparent_grey() -> Image.Image:
    picture = Image.fromarray(of({"in": 200, "out": 77}))
    picture.info["transparency"] = 77
    return picture


def columns(step: int) -> Image.Image:
    """Ids 0, step, 2 step, ... of five columns each, beside two columns of 255."""
    ids = np.arange(SIZE[1]) // 5 * step
    ids[:2] = 255
    return Image.fromarray(np.repeat(ids[None], SIZE[0], 0).astype(np.uint8))


def rgba(rgb: tuple[int, int, int], alpha: np.ndarray, outside: int = 0) -> Image.Image:
    colours = np.full((*SIZE, 4), outside, np.uint8)
    colours[DISC, :3] = rgb
    colours[..., 3] = alpha
    return Image.fromarray(colours, "RGBA")


FULL = np.full(SIZE, 255, np.uint8)
SHAPE = DISC.astype(np.uint8) * 255
BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (128, 0, 0)

MASKS: dict[str, Callable[[], Image.Image]] = {
    "0 and 255": lambda: Image.fromarray(SHAPE),
    "0 and 1": lambda: Image.fromarray(DISC.astype(np.uint8)),
    "one bit": lambda: Image.fromarray(DISC),
    "RGB in grey": lambda: Image.fromarray(SHAPE).convert("RGB"),
    "16 bits, full range": lambda: Image.fromarray(DISC.astype(np.uint16) * 65535),
    "16 bits, 0 and 255": lambda: Image.fromarray(DISC.astype(np.uint16) * 255),
    "16 bits, 0 and 1": lambda: Image.fromarray(DISC.astype(np.uint16)),
    "palette, black first": lambda: palette(DISC, [BLACK, WHITE]),
    "palette, white first": lambda: palette(~DISC, [WHITE, BLACK]),
    "palette, red on black": lambda: palette(DISC, [BLACK, RED]),
    "palette, black on index 1": lambda: palette(~DISC, [RED, BLACK]),
    "palette, ramp": lambda: Image.fromarray(SHAPE).convert("P"),
    "cut-out": lambda: rgba((20, 160, 60), SHAPE),
    "cut-out on white": lambda: rgba((20, 160, 60), SHAPE, outside=255),
    "grey and alpha": lambda: Image.fromarray(np.dstack([FULL, SHAPE]), "LA"),
    "palette, transparent entry": lambda: transparent(DISC, [BLACK, WHITE], 0),
    "palette, transparent entry in colour": lambda: transparent(~DISC, [WHITE, RED], 1),
    "grey with a transparent value": transparent_grey,
    "nearly opaque, as WebP leaves it": lambda: Image.fromarray(
        np.dstack([SHAPE] * 3 + [FULL - (np.arange(SIZE[1]) % 2).astype(np.uint8)]), "RGBA"
    ),
    "alpha that says nothing": lambda: Image.fromarray(np.dstack([SHAPE, FULL]), "LA"),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_marks_the_object_however_it_is_stored(tmp_path: Path, name: str) -> None:
    MASKS[name]().save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    np.testing.assert_array_equal(mask[0].numpy(), DISC)
    inverted = read_mask(tmp_path / "m.png", invert=True)
    np.testing.assert_array_equal(inverted[0].numpy(), ~DISC)


@pytest.mark.parametrize(
    ("ending", "close"), [("bmp", 0), ("tif", 0), ("jpg", 0.06), ("webp", 0.2)]
)
def test_a_mask_may_be_of_any_format(tmp_path: Path, ending: str, close: float) -> None:
    Image.fromarray(SHAPE).save(tmp_path / f"m.{ending}")
    mask = read_mask(tmp_path / f"m.{ending}")[0].numpy()
    assert np.abs(mask - DISC).mean() <= close


@pytest.mark.parametrize("quality", [20, 40, 60, 80, 95])
@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_noise_of_a_lossy_format_is_no_object(tmp_path: Path, ending: str, quality: int) -> None:
    Image.fromarray(SHAPE).convert("RGB").save(tmp_path / f"m.{ending}", quality=quality)
    mask = read_mask(tmp_path / f"m.{ending}")[0].numpy() > 0.5
    assert (mask & DISC).sum() / (mask | DISC).sum() > 0.9


def soft(top: int) -> np.ndarray:
    ramp = np.linspace(0, top, SIZE[1]).round().astype(np.uint8)
    return np.repeat(ramp[None], SIZE[0], 0)


@pytest.mark.parametrize(
    "values",
    [soft(255), soft(243), of({"in": 255, "out": 0, "third": 128}, more=2), soft(255)[:, ::-1]],
    ids=["ramp", "ramp that ends below white", "three levels", "ramp backwards"],
)
def test_soft_masks_stay_soft(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png")[0].numpy()
    np.testing.assert_allclose(found, values / 255, atol=1e-6)


def outlined(ids: list[int]) -> np.ndarray:
    """Ids of areas of 8 x 8 pixels in a row, within an outline of 255."""
    values = np.zeros((100, 100), np.uint8)
    for place, number in enumerate(ids):
        values[40:48, 10 + 8 * place : 18 + 8 * place] = number
    values[38:50, 8 : 12 + 8 * len(ids)][values[38:50, 8 : 12 + 8 * len(ids)] == 0] = 255
    return values


def shallow(values: list[int], bits: int = 2, clear: int | None = None) -> bytes:
    """A grey PNG of a few bits, or of 16, one value a row; Pillow writes only 1, 8 and 16."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    def row(value: int) -> bytes:
        if bits == 16:
            return struct.pack(">8H", *[value] * 8)
        return bytes([sum(value << shift for shift in range(0, 8, bits))]) * bits

    head = struct.pack(">IIBBBBB", 8, len(values), bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row(value) for value in values))
    marks = b"" if clear is None else chunk(b"tRNS", struct.pack(">H", clear))
    parts = chunk(b"IHDR", head) + marks + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


REFUSED: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "void beside 0 and 1": (
        lambda: Image.fromarray(of({"in": 1, "out": 0, "third": 255}, 2)),
        "255 beside 1, which look like object ids with void",
    ),
    "void beside a class": (
        lambda: Image.fromarray(of({"in": 15, "out": 0, "third": 255}, 2)),
        "object ids with void",
    ),
    "void beside a large id": (
        lambda: Image.fromarray(of({"in": 90, "out": 0, "third": 255}, 2)),
        "object ids with void",
    ),
    "ids 130 and 200": (
        lambda: Image.fromarray(of({"in": 130, "out": 0, "third": 200}, 5)),
        "object ids .up to 200",
    ),
    "one id": (lambda: Image.fromarray(of({"in": 130, "out": 0})), "object ids .up to 130"),
    "small ids": (
        lambda: Image.fromarray(of({"in": 2, "out": 0, "third": 1}, 5)),
        "object ids .up to 2",
    ),
    "many ids": (
        lambda: Image.fromarray((np.arange(1200) // 6).reshape(SIZE).astype(np.uint8)),
        "object ids .up to 199",
    ),
    "16-bit ids": (
        lambda: Image.fromarray(of({"in": 2, "out": 0, "third": 1}, 5).astype(np.uint16) * 300),
        "object ids",
    ),
    "palette of three": (
        lambda: palette(of({"in": 1, "out": 0, "third": 2}, 5), [BLACK, RED, WHITE]),
        "object ids .3 colours",
    ),
    "palette without black": (
        lambda: palette(DISC, [RED, (0, 0, 255)]),
        "object ids .2 colours",
    ),
    "red on black": (lambda: rgba((255, 0, 0), FULL).convert("RGB"), "is in colour"),
    "red on blue": (lambda: rgba((255, 0, 0), FULL, outside=90).convert("RGB"), "is in colour"),
    "void beside more ids than a few": (
        lambda: columns(3),
        "255 beside 3, 6, 9, 12, ..., which look like object ids with void",
    ),
    "void beside ids up to 140": (lambda: columns(20), "object ids with void"),
    "parts 1 to 6 in a void outline": (
        lambda: Image.fromarray(outlined([1, 2, 3, 4, 5, 6])),
        "255 beside 1, 2, 3, 4, ..., which look like object ids with void",
    ),
    "classes in a void outline": (lambda: Image.fromarray(outlined([90])), "255 beside 90"),
    "high ids in a void outline": (lambda: Image.fromarray(outlined([70, 110, 182])), "beside 70"),
    "ids without a gap, and void": (
        lambda: Image.fromarray(
            np.repeat(np.uint8([[*range(81), *[255] * 9]]), SIZE[0], 0)  # type: ignore[list-item]
        ),
        "object ids with void",
    ),
    "void on a transparent background": (
        lambda: transparent(outlined([1, 2]), [(i, 0, i) for i in range(256)], 0),
        "255 beside 1, 2 on a transparent background",
    ),
    "16-bit ids up to 256": (
        lambda: Image.fromarray(of({"in": 1, "out": 0}).astype(np.uint16) * 256),
        r"object ids \(up to 256 of 16 bits\)",
    ),
    "void beside a small id, 16 bits": (
        lambda: Image.fromarray(
            np.where(np.arange(SIZE[1]) < 2, 65535, DISC.astype(int)).astype(np.uint16)
        ),
        "object ids with void",
    ),
    "a mask in its colours and one in its alpha": (
        lambda: Image.fromarray(
            np.dstack([SHAPE] * 3 + [FULL - 255 * np.eye(*SIZE, dtype=np.uint8)]), "RGBA"
        ),
        "a mask in black and white and another one in its transparency",
    ),
    "a trimap that counts from 1": (
        lambda: Image.fromarray(of({"in": 1, "out": 2, "third": 3}, 2)),
        "object ids .up to 3",
    ),
    "nothing near background": (lambda: Image.fromarray(255 - soft(255) // 3), "all foreground"),
    "soft, nothing near foreground": (
        lambda: Image.fromarray(np.minimum(soft(255) // 2, 126) * (soft(255) % 3 > 0)),
        "object ids|all background",
    ),
    "a photograph": (
        lambda: Image.fromarray(
            np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        ),
        "is in colour",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_mean_something_else_is_refused(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    make().save(tmp_path / "m.png")
    with pytest.raises(InputError, match=rf"m\.png.*{message}"):
        read_mask(tmp_path / "m.png")


@pytest.mark.parametrize("values", [outlined([1, 2]), outlined([90]), of({"in": 7, "out": 0})])
def test_a_lossless_webp_is_no_lossy_one(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "m.webp", lossless=True)
    with pytest.raises(InputError, match="look like object ids"):
        read_mask(tmp_path / "m.webp")


@pytest.mark.parametrize(
    ("values", "bits", "found"),
    [([0, 3, 3], 2, 1.0), ([0, 15], 4, 1.0), ([0, 1, 3], 2, None), ([0, 1, 2, 15], 4, None)],
)
def test_levels_of_a_few_bits_may_be_ids(
    values: list[int], bits: int, found: float | None, tmp_path: Path
) -> None:
    (tmp_path / "m.png").write_bytes(shallow(values, bits))
    if found is None:
        with pytest.raises(InputError, match="of 2 or 4 bits, may be object ids or soft values"):
            read_mask(tmp_path / "m.png")
    else:
        assert read_mask(tmp_path / "m.png")[0, :, 0].tolist() == [0, *[found] * (len(values) - 1)]


def test_a_small_object_with_a_soft_edge_is_no_void(tmp_path: Path) -> None:
    large = Image.new("L", (1000, 1000))
    large.paste(255, (480, 480, 560, 520))
    for how in (Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.BOX):
        large.rotate(20, Image.Resampling.BICUBIC).resize((130, 130), how).save(tmp_path / "m.png")
        assert 0 < read_mask(tmp_path / "m.png").mean() < 0.01


def test_the_clear_value_of_16_bit_grey_is_white_in_an_image_and_background_in_a_mask(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.png").write_bytes(shallow([0, 60000], 16, clear=0))
    assert np.asarray(read_image(tmp_path / "a.png"))[:, 0, 0].tolist() == [255, 233]
    assert read_mask(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1]


@pytest.mark.parametrize("ending", ["tif", "gif", "webp", "png"])
def test_a_mask_of_several_pages_is_refused(tmp_path: Path, ending: str) -> None:
    more = [Image.fromarray(255 - SHAPE), Image.fromarray(SHAPE[::-1])]
    Image.fromarray(SHAPE).save(tmp_path / f"m.{ending}", save_all=True, append_images=more)
    with pytest.raises(InputError, match="it holds 3 pages or frames; save only the one"):
        read_mask(tmp_path / f"m.{ending}")
    assert read_image(tmp_path / f"m.{ending}").size == SIZE[::-1]  # of an animation the first


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.where(DISC, np.nan, 0).astype(np.float32), "not finite"),
        (np.where(DISC, -1, 0).astype(np.float32), "negative"),
        (np.where(DISC, np.inf, 0).astype(np.float32), "not finite"),
    ],
)
def test_masks_of_impossible_numbers_are_refused(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    Image.fromarray(values).save(tmp_path / "m.tif")
    with pytest.raises(InputError, match=message):
        read_mask(tmp_path / "m.tif")


# --- images -------------------------------------------------------------------------------------

GREY = np.linspace(0, 255, SIZE[0] * SIZE[1]).reshape(SIZE)


def rgb16(values: np.ndarray, path: Path) -> None:
    """A 16-bit RGB TIFF, which Pillow reads but does not write."""
    high = values.astype("<u2")
    tags = [(256, 3, SIZE[1]), (257, 3, SIZE[0]), (258, 3, 16), (259, 3, 1), (262, 3, 2),
            (273, 4, 8), (277, 3, 3), (278, 3, SIZE[0]), (279, 4, high.nbytes)]  # fmt: skip
    import struct

    bits = struct.pack("<HHH", 16, 16, 16)
    start = 8 + high.nbytes
    body = b"".join(
        struct.pack("<HHII", tag, kind, 3 if tag == 258 else 1, start if tag == 258 else value)
        for tag, kind, value in tags
    )
    directory = start + len(bits)
    path.write_bytes(
        b"II*\0" + struct.pack("<I", directory) + high.tobytes() + bits
        + struct.pack("<H", len(tags)) + body + struct.pack("<I", 0)
    )  # fmt: skip


UNKNOWN: dict[str, Callable[[Path], None]] = {
    "12 bits in 16": lambda p: Image.fromarray((GREY * 16).astype(np.uint16)).save(p, "PNG"),
    "10 bits in 16": lambda p: Image.fromarray((GREY * 4).astype(np.uint16)).save(p, "PNG"),
    "8 bits in 16": lambda p: Image.fromarray(GREY.astype(np.uint16)).save(p, "PNG"),
    "14 bits in 16": lambda p: Image.fromarray((GREY * 64).astype(np.uint16)).save(p, "TIFF"),
    "12 bits in 16, RGB": lambda p: rgb16(np.repeat((GREY * 16)[..., None], 3, -1), p),
    "float 0 to 1": lambda p: Image.fromarray((GREY / 255).astype(np.float32)).save(p, "TIFF"),
    "float 0 to 255": lambda p: Image.fromarray(GREY.astype(np.float32)).save(p, "TIFF"),
    "32 bits": lambda p: Image.fromarray((GREY * 257).astype(np.int32)).save(p, "TIFF"),
    "negative": lambda p: Image.fromarray((-GREY).astype(np.int32)).save(p, "TIFF"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_pixels_of_unknown_brightness_are_refused(tmp_path: Path, name: str) -> None:
    UNKNOWN[name](tmp_path / "x.img")
    with pytest.raises(InputError, match=r"x\.img.*unclear which of them is white"):
        read_image(tmp_path / "x.img")


def test_sixteen_bits_that_are_used_are_right(tmp_path: Path) -> None:
    Image.fromarray((GREY * 257).astype(np.uint16)).save(tmp_path / "g.png")
    rgb16(np.repeat((GREY * 257)[..., None], 3, -1), tmp_path / "c.tif")
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(tmp_path / "black.png")
    for name in ("g.png", "c.tif"):
        found = np.asarray(read_image(tmp_path / name), float)[..., 0]
        assert np.abs(found - GREY).max() <= 1
    assert np.asarray(read_image(tmp_path / "black.png")).max() == 0


HIDDEN = (255, 0, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_colours_hidden_under_alpha_do_not_reach_the_model(tmp_path: Path, mode: str) -> None:
    picture = rgba((90, 90, 90), SHAPE, outside=7)
    if mode == "P":
        picture = palette(DISC, [HIDDEN, (90, 90, 90)])
        picture.info["transparency"] = 0
        picture.save(tmp_path / "x.png", transparency=0)
    else:
        picture.convert(mode).save(tmp_path / "x.tif" if mode == "PA" else tmp_path / "x.png")
    found = np.asarray(read_image(next(tmp_path.iterdir())))
    assert (found[DISC] == 90).all()
    assert (found[~DISC] == 255).all()


@pytest.mark.parametrize("size", [(20000, 4), (1, 101), (4, 401)])
def test_extreme_shapes_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=f"is {size[0]}x{size[1]} pixels"):
        read_image(tmp_path / "x.png")
    Image.new("RGB", (400, 4)).save(tmp_path / "y.png")
    assert read_image(tmp_path / "y.png").size == (400, 4)


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("limit", [1000, 100])  # of 1200 pixels: Pillow warns, Pillow raises
def test_decompression_bombs_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], limit: int
) -> None:
    import warnings

    Image.fromarray(SHAPE).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as outside of tests: the reader itself must refuse
        with pytest.raises(InputError, match=r"x\.png.*decompression bomb"):
            read(tmp_path / "x.png")
