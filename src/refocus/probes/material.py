"""The images, folders and models that a probe's settings stand for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from refocus import fingerprints
from refocus.data.folders import class_folders, image_files, scan
from refocus.data.sampling import chosen
from refocus.data.trained import gone_images, say_left_out, trained_images, without
from refocus.errors import InputError, Message
from refocus.evaluation import cues
from refocus.masks.trust import masked
from refocus.probes.batch import Options
from refocus.probes.choice import FOLDERS
from refocus.probes.registry import Probe
from refocus.probes.settings import ProbeSettings
from refocus.probes.tools.corruptions import SEVERITIES, published
from refocus.records import Sample
from refocus.vit.classes import folder_names, plain
from refocus.vit.loading import Models, identity
from refocus.vit.precision import decisive_precision

log = logging.getLogger("refocus")

OUTSIDE = -1  # label of an image of none of the model's classes
_LEAST = 2


def options_of(settings: ProbeSettings) -> Options:
    """What a probe may read, with the user's home folder in place of ~."""
    given = {name: getattr(settings, name) for name in (*FOLDERS, "mapping", "adain")}
    paths = {name: Path(text).expanduser() if text else None for name, text in given.items()}
    return Options(
        **paths,
        mask_polarity=settings.mask_polarity,
        saliency=settings.saliency,
        units=settings.units,
    )


@dataclass(frozen=True)
class Part:
    """Images below one root that a probe asks a model about.

    name: of the part, empty for the images themselves.
    """

    root: Path
    samples: list[Sample]
    name: str = ""


@dataclass(frozen=True)
class Material:
    """Images and models of one call.

    images: an ImageFolder. refs: "model", "against" -> as given.
    """

    images: Path | None
    settings: ProbeSettings
    refs: dict[str, str] = field(default_factory=dict)
    _said: set[Path] = field(default_factory=set, compare=False, repr=False)

    @cached_property
    def options(self) -> Options:
        """What a probe may read."""
        return options_of(self.settings)

    def root(self, probe: Probe) -> Path:
        """The folder that a probe's images lie in."""
        if probe.on == "cues":
            assert self.options.cues is not None
            return self.options.cues
        if probe.on == "imagenet_c":
            assert self.options.imagenet_c is not None
            return next(iter(published(self.options.imagenet_c).values())) / str(SEVERITIES[0])
        if probe.on == "transfer":
            assert self.options.transfer is not None
            return self.options.transfer
        if self.images is None:
            raise InputError("‹images›: missing; an ImageFolder of the model's classes")
        return self.images

    @cached_property
    def trained(self) -> frozenset[Path]:
        """The images that a run of `refocus tune` trained one of the models on."""
        return trained_images(*self.refs.values())

    @cached_property
    def gone(self) -> dict[str, str]:
        """Of these, the contents of those that lie elsewhere today."""
        return gone_images(*self.refs.values())

    def samples(self, probe: Probe, model: nn.Module) -> list[Sample]:
        """The images that a probe asks a model about: none that a model was tuned on.

        The first time, a notice says how many of a folder's images were.
        """
        root, every = self.root(probe), self._scanned(probe, model)
        found = without(every, self.trained, f"‹images› {root}", self.gone)
        if self.trained and root not in self._said:
            self._said.add(root)
            counts = {str(root): (len(every) - len(found), len(every))}
            say_left_out(counts, self.trained, self.gone)
        kept = self._spread(found, probe)
        if probe.fits:
            _refuse_single(kept, f"‹{'transfer' if probe.on == 'transfer' else 'images'}› {root}")
        return kept

    def _scanned(self, probe: Probe, model: nn.Module) -> list[Sample]:
        """All images in a probe's folder."""
        options, root = self.options, self.root(probe)
        if probe.on == "cues":
            cues.check(root, cues.mapping(model, options.mapping), parameter="cues")
            return self._named(cues.stimuli(root, "cues"))
        if "masks" in probe.needs:
            assert options.masks is not None
            polarity = options.mask_polarity
            every = scan(root, model, masks=options.masks, mask_polarity=polarity)
            return masked(every, options.masks, self.settings.mask_score)
        if probe.on == "transfer":
            folders = class_folders(root, "transfer")
            return [
                Sample(file, label)
                for label, files in enumerate(folders.values())
                for file in files
            ]
        parameter = "imagenet_c" if probe.on == "imagenet_c" else "images"
        return scan(root, model, parameter=parameter)

    def _named(self, stimuli: list[Sample]) -> list[Sample]:
        """Those whose names give both cues; the first time, a warning counts the others."""
        named, others = cues.by_name(stimuli)
        if others and (first := others[0].image) not in self._said:
            self._said.add(first)
            log.warning(
                Message(
                    f"‹cues› {self.options.cues}: the names of {len(others)} of its {len(stimuli)} "
                    f"stimuli do not give both cues, {first} first; they are left out"
                )
            )
        return named

    def parts(self, probe: Probe, model: nn.Module) -> list[Part]:
        """`samples`, and where a probe reads them the pictures outside of the model's classes."""
        found = [Part(self.root(probe), self.samples(probe, model))]
        if "outside" in probe.needs:
            assert self.options.outside is not None
            files = image_files(self.options.outside, "outside")
            _look_at_outside(files, found[0].samples, model, self.options.outside)
            strange = self._spread([Sample(file, OUTSIDE) for file in files], probe)
            found.append(Part(self.options.outside, strange, "outside"))
        return found

    def _spread(self, samples: list[Sample], probe: Probe) -> list[Sample]:
        """At most so many as the settings and the probe allow, spread over the classes."""
        caps = [cap for cap in (self.settings.most, probe.most) if cap is not None]
        kept = chosen(samples, min(caps) if caps else None, self.settings.seed)
        return [s for s in samples if s.image in kept]

    def models(self, loaded: Models) -> dict[str, list[str]]:
        """Which models these are, and whether they are still the same."""
        return {which: identity(ref, loaded[which]) for which, ref in self.refs.items()}

    def decisive(self, probe: Probe, loaded: Models) -> dict[str, Any]:
        """What decides every record of a probe; kept beside them in settings.json."""
        settings, options = self.settings, self.options
        read = {need: getattr(options, need) for need in probe.needs if need in FOLDERS}
        folders = read if probe.found else {"images": self.root(probe), **read}
        if options.adain and "styles" in probe.needs:
            folders["adain"] = options.adain
        if options.mapping and probe.on == "cues":
            folders["mapping"] = options.mapping
        return {
            **self.models(loaded),
            "folders": {
                name: [str(path.expanduser().resolve()), fingerprints.of_tree(path)]
                for name, path in folders.items()
            },
            "saliency": settings.saliency,
            "mask_score": settings.mask_score if "masks" in probe.needs else None,
            "mask_polarity": settings.mask_polarity if "masks" in probe.needs else None,
            "most": settings.most,
            "seed": settings.seed,
            **({"units": settings.units} if probe.reads_units else {}),
            **self._left_out(probe, loaded),
            **decisive_precision(settings.precision),
        }

    def _left_out(self, probe: Probe, loaded: Models) -> dict[str, list[str]]:
        """The images trained on, where a probe would measure any of them."""
        if probe.found or not self.trained:
            return {}
        every = self._scanned(probe, next(iter(loaded.values())))
        left = without(every, self.trained, f"‹images› {self.root(probe)}", self.gone)
        return {"leave_out": sorted(map(str, self.trained))} if len(left) < len(every) else {}


def _look_at_outside(
    files: Sequence[Path], samples: Sequence[Sample], model: nn.Module, root: Path
) -> None:
    """Pictures of none of the model's classes are no images of its classes.

    Raises:
        InputError: some of them are.
    """
    known = {sample.image.resolve() for sample in samples}
    if both := [file for file in files if file.resolve() in known]:
        raise InputError(
            f"‹outside› {root}: {len(both)} of its {len(files)} images are in ‹images›, {both[0]} "
            "first; must be pictures of none of the model's classes"
        )
    names = {plain(name) for name in folder_names(model) or ()}
    if alike := [file for file in files if plain(file.parent.name) in names]:
        log.warning(
            Message(
                f"‹outside› {root}: {len(alike)} of its {len(files)} images lie in folders called "
                f"like classes of the model, {alike[0].parent.name} first; pictures of these "
                "classes are not outside"
            )
        )


def _refuse_single(samples: list[Sample], shown: str) -> None:
    """A head is fitted on other images of the same class, and tells at least two classes apart."""
    counts = Counter(s.label for s in samples)
    if len(counts) < _LEAST or max(counts.values()) < _LEAST:
        raise InputError(
            f"{shown}: {len(samples)} images of {len(counts)} classes are too few for a linear "
            "head; it needs two classes, one of them with two images (‹most› leaves out images)"
        )
