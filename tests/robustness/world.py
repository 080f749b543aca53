"""A small world to be hard on: a model, images, masks, and one finished folder of every command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import timm
import torch

from refocus.vit import loading
from tests.makers import NAMES, make_images
from tests.robustness.door import Door


@dataclass(frozen=True)
class World:
    """Folders below `root`, which tests read and do not write to, and the door."""

    root: Path
    door: Door

    @property
    def places(self) -> dict[str, Path]:
        return {path.name: path for path in self.root.iterdir()}

    def snapshot(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file, to see what a command wrote."""
        found = {}
        for path in self.root.rglob("*"):
            stat = path.lstat()
            file = (stat.st_size, stat.st_mtime_ns) if not path.is_dir() else (0, 0)
            found[str(path.relative_to(self.root))] = file
        return found


def tiny_model(folder: Path, seed: int = 0, side: int = 32) -> Path:
    """A ViT of random weights that answers in a millisecond."""
    torch.manual_seed(seed)
    config = {"input_size": (3, side, side), "crop_pct": 1.0, "label_names": NAMES}
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 4}
    name = "vit_tiny_patch16_224"
    model = timm.create_model(name, img_size=side, pretrained_cfg_overlay=config, **sizes)
    loading.save(model.eval(), folder)
    return folder


def build(root: Path, door: Door) -> World:
    """Every command once."""
    model, other = tiny_model(root / "model"), tiny_model(root / "other", seed=1)
    images, masks = make_images(root)
    given = ("--model", model, "--images", images, "--masks", masks)
    on = ("--model", model, "--against", other, "--on", f"own={images}")
    for arguments in (
        ("tune", *given, "--out", root / "run", "--epochs", 2, "--device", "cpu"),
        ("evaluate", *on, "--masks", f"own={masks}", "--out", root / "proof"),
        ("audit", *given, "--out", root / "audit", "--most", 8),
        ("probe", *given[:4], "--out", root / "probes", "--kind", "permutation", "--most", 4),
    ):
        done = door.run(*arguments, timeout=120)
        assert done.status == 0, f"{arguments[0]}: {done}"
    return World(root, door)
