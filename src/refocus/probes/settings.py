"""What a probe is measured with: the user's settings, and the images that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from torch import nn

from refocus import outputs
from refocus.data.folders import scan
from refocus.data.sampling import chosen
from refocus.errors import InputError
from refocus.evaluation import cues
from refocus.masks.trust import masked
from refocus.probes.batch import Options
from refocus.probes.registry import FOLDERS, Probe
from refocus.probes.tools.corruptions import SEVERITIES, published
from refocus.records import Sample
from refocus.settings import Count, CountOrZero, Fraction, Seed, Text, about, check


@dataclass(frozen=True)
class ProbeSettings:
    """How `probe` measures, and on what beside the images.

    Raises:
        InputError: a value that is not legal.

    Examples:
        >>> import refocus
        >>> refocus.ProbeSettings(kinds=("occlusion", "cutout")).most
        200
    """

    kinds: Annotated[
        tuple[Text, ...], about("Names of probes; all: those that can be run with what is given.")
    ] = ("all",)
    masks: Annotated[
        Text | None, about("Foreground masks, for shapes and attention-segmentation.")
    ] = None
    mask_polarity: Annotated[
        Literal["ask", "keep", "invert"], about("Whether masks mark the object.")
    ] = "ask"
    styles: Annotated[
        Text | None, about("Folder of pictures whose style is taken, for stylization.")
    ] = None
    cues: Annotated[
        Text | None, about("Cue conflict stimuli: SHAPE/SHAPEn-TEXTUREm.EXT, for shape-bias.")
    ] = None
    mapping: Annotated[
        Text | None, about("For ‹cues› with your own classes: JSON file of their names.")
    ] = None
    imagenet_c: Annotated[
        Text | None, about("The published ImageNet-C: CORRUPTION/SEVERITY/WNID/FILE.")
    ] = None
    saliency: Annotated[
        Literal["relevance", "attention"],
        about("What occlusion calls salient: GAE, or attention as DINO shows it."),
    ] = "relevance"
    most: Annotated[Count | None, about("Maximum number of images, spread over the classes.")] = 200
    mask_score: Annotated[
        Fraction, about("Leave out masks that `refocus masks` gave a lower score.")
    ] = 0.5
    batch_size: Annotated[Count, about("Images per forward pass.")] = 32
    workers: Annotated[CountOrZero, about("Processes that decode images.")] = 0
    seed: Annotated[Seed, about("Seed: which images, and all that is drawn at random.")] = 0
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], about("Where to compute.")] = "auto"

    def __post_init__(self) -> None:
        """Refuse what is not legal."""
        check(self)
        if self.mapping is not None and self.cues is None:
            raise InputError(f"‹mapping› {self.mapping}: only with ‹cues›")

    @property
    def options(self) -> Options:
        """What a probe may read, with the user's home folder in place of ~."""
        given = {name: getattr(self, name) for name in (*FOLDERS, "mapping")}
        paths = {name: Path(text).expanduser() if text else None for name, text in given.items()}
        return Options(**paths, mask_polarity=self.mask_polarity, saliency=self.saliency)


@dataclass(frozen=True)
class Material:
    """Images and models of one call.

    images: an ImageFolder. refs: "model", "against" -> as given.
    """

    images: Path | None
    settings: ProbeSettings
    refs: dict[str, str] = field(default_factory=dict)

    @cached_property
    def options(self) -> Options:
        """What a probe may read."""
        return self.settings.options

    def root(self, probe: Probe) -> Path:
        """The folder that a probe's images lie in."""
        if probe.on == "cues":
            assert self.options.cues is not None
            return self.options.cues
        if probe.on == "imagenet_c":
            assert self.options.imagenet_c is not None
            return next(iter(published(self.options.imagenet_c).values())) / str(SEVERITIES[0])
        if self.images is None:
            raise InputError("‹images›: missing; an ImageFolder of the model's classes")
        return self.images

    def samples(self, probe: Probe, model: nn.Module) -> list[Sample]:
        """The images that a probe asks a model about."""
        options, root = self.options, self.root(probe)
        if probe.on == "cues":
            cues.check(root, cues.mapping(model, options.mapping))
            found = cues.stimuli(root)
        elif "masks" in probe.needs:
            assert options.masks is not None
            polarity = options.mask_polarity
            every = scan(root, model, masks=options.masks, mask_polarity=polarity)
            found = masked(every, options.masks, self.settings.mask_score)
        else:
            parameter = "imagenet_c" if probe.on == "imagenet_c" else "images"
            found = scan(root, model, parameter=parameter)
        caps = [cap for cap in (self.settings.most, probe.most) if cap is not None]
        kept = chosen(found, min(caps) if caps else None, self.settings.seed)
        return [s for s in found if s.image in kept]

    def models(self) -> dict[str, list[str]]:
        """Which models these are, and whether they are still the same."""
        return {which: outputs.fingerprint(ref) for which, ref in self.refs.items()}

    def decisive(self, probe: Probe) -> dict[str, Any]:
        """What decides every record of a probe; kept beside them in settings.json."""
        settings, options = self.settings, self.options
        read = {need: getattr(options, need) for need in probe.needs if need in FOLDERS}
        folders = {"images": self.root(probe), **read}
        if options.mapping and probe.on == "cues":
            folders["mapping"] = options.mapping
        return {
            **self.models(),
            "folders": {
                name: [str(path.expanduser().resolve()), outputs.state(path)]
                for name, path in folders.items()
            },
            "saliency": settings.saliency,
            "mask_score": settings.mask_score if "masks" in probe.needs else None,
            "mask_polarity": settings.mask_polarity if "masks" in probe.needs else None,
            "most": settings.most,
            "seed": settings.seed,
        }
