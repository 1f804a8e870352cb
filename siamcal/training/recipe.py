"""A recipe: every setting of a training or comparison, as one frozen description.

Recipes are Python functions in `recipes/` that return a `Recipe`; variants are made with
`dataclasses.replace`. Every run writes its recipe as `recipe.json`, which loads back strictly:
an unknown or misspelled key is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamcal.errors import ConfigError, UnknownNameError
from siamcal.files import read_json, read_text
from siamcal.model.merge_options import check_merge_options
from siamcal.model.merges import PAPER, paper
from siamcal.model.places import joined, merge_points
from siamcal.paper import PAPER_PREPROCESSING
from siamcal.preprocessing import Preprocessing
from siamcal.registry import merges, recipes
from siamcal.settings import check_choices, check_range, check_whole, from_dict

__all__ = ["Augmentation", "Noise", "Recipe", "ReferenceNoise", "load_recipe"]

MAX_RECIPE_BYTES = 1 << 20
TASKS = ("intensity", "detection")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the training crops; the defaults are the paper authors' code's.

    Attributes:
        flip: Probability of a horizontal flip.
        crop_scale: Range of the cropped share of the area.
        crop_ratio: Range of the crop's aspect ratio (width / height).
        brightness: Largest relative change of brightness (0 switches it off).
        contrast: Largest relative change of contrast (0 switches it off).
        shared: Draw once for a target and its reference; the paper draws independently.
    """

    flip: float = 0.5
    crop_scale: tuple[float, float] = (0.9, 1.0)
    crop_ratio: tuple[float, float] = (19 / 20, 20 / 19)
    brightness: float = 0.0
    contrast: float = 0.0
    shared: bool = False

    def __post_init__(self) -> None:
        for name in ("flip", "brightness", "contrast"):
            check_range(f"augmentation.{name}", getattr(self, name), 0, 1)
        for name, low, high in (("crop_scale", 0.01, 1), ("crop_ratio", 0.01, 100)):
            values = getattr(self, name)
            for value in values:
                check_range(f"augmentation.{name}", value, low, high)
            if len(values) != 2 or values[0] > values[1]:
                raise ConfigError(
                    f"augmentation.{name} takes the lower and the upper end, but got {values}."
                )


@dataclass(frozen=True)
class Noise:
    """Changes of the training crops after the augmentation: what a camera, a room or a file does.

    All are off by default.

    Attributes:
        probability: Of each kind of change, drawn apart.
        blur: Largest standard deviation of a Gaussian blur, in pixels of the crop.
        gain: Largest relative change of brightness.
        gradient: Largest relative change of light from the middle to an edge, in any direction.
        tint: Largest change of red, of green and of blue apart, as a natural logarithm.
        gamma: Largest change of the tone curve's exponent, as a natural logarithm.
        noise: Largest standard deviation of pixel noise, in grey levels of 255.
        jpeg: Lowest JPEG quality, 1 to 95; 0 is none.
        rotation: Largest rotation in degrees.
        scale: Largest relative change of size (with the same probability as the rotation).
        distance: Largest factor by which the face is farther away, so that it is seen in fewer
            pixels, which noise and JPEG then act on; 1 leaves it where it is.
    """

    probability: float = 0.5
    blur: float = 0.0
    gain: float = 0.0
    gradient: float = 0.0
    tint: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    jpeg: int = 0
    rotation: float = 0.0
    scale: float = 0.0
    distance: float = 1.0

    def __post_init__(self) -> None:
        allowed = {
            "probability": (0, 1),
            "distance": (1, 16),
            **dict.fromkeys(("gain", "gradient", "scale"), (0, 0.9)),
            **dict.fromkeys(("tint", "gamma"), (0, 2)),
            "blur": (0, 64),
            "noise": (0, 128),
            "jpeg": (0, 95),
            "rotation": (0, 180),
        }
        for name, (low, high) in allowed.items():
            check_range(f"{self._field()}.{name}", getattr(self, name), low, high)

    @staticmethod
    def _field() -> str:
        return "target_noise"

    @property
    def changes_images(self) -> bool:
        """Whether any change of the crops themselves is on."""
        light = (self.gain, self.gradient, self.tint, self.gamma)
        kinds = (self.blur, *light, self.noise, self.jpeg, self.rotation, self.scale)
        return bool(self.probability) and (any(kinds) or self.distance > 1)


@dataclass(frozen=True)
class ReferenceNoise(Noise):
    """Changes of the training references only, drawn apart from those of the targets.

    Attributes:
        active: Probability that another frame of the person stands in for the reference: not
            neutral but weak, or of another sequence.
        active_sum: Its largest sum of intensities over all action units.
    """

    active: float = 0.0
    active_sum: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("reference_noise.active", self.active, 0, 1)
        check_range("reference_noise.active_sum", self.active_sum, 0, 1000)

    @staticmethod
    def _field() -> str:
        return "reference_noise"


@dataclass(frozen=True)
class Recipe:
    """Settings of a training; the defaults are the paper's (arXiv:2409.00240 and its code).

    Attributes:
        name: The recipe's name.
        dataset: Name of the data set.
        dataset_options: Its options (`size`, `bias`, `seed` of the rendered set, ...).
        task: "intensity" or "detection"; each is a training of its own, as in the paper.
        backbone: Name of the backbone (`siamcal ls backbones`).
        backbone_options: Further arguments of the backbone.
        weights: Start weights: "" (random), "asset:NAME" (in the package), "pretrained" (timm's,
            torchvision's, transformers' own) or the path of a face-recognition state dict.
        checkpoint: Path of a whole trained network's state dict, in place of `weights`: every entry
            must fit (`siamcal.training.checkpoint`). NCG is then this network, not trained again,
            and a calibrated training starts from it. Its outputs are those of the task's head or,
            for intensity, one an AU.
        merge_at: Merge point; "layer4" means at the entrance of `layer4`. Or several in the order
            in which the network reaches them, which merge one behind the other (docs/merges.md).
        merge: Name of the form of the merge (`siamcal ls merges`).
        merge_options: Its options (`shrinkage`, `per`, ...).
        branches: "separate" forwards of target and reference (the paper) or "concatenate".
        freeze_pre_batchnorm: Keep BatchNorm before the merge point at its running statistics.
        freeze_pre: 0 trains everything. K > 0 keeps all before the merge point at its start weights
            and computes the features there once, for each frame and K augmented copies of it: a
            minute's training on a processor. NCG gets the same frozen part.
        freeze_batchnorm: Keep every BatchNorm at its running statistics.
        sync_batchnorm: On several GPUs BatchNorm sees the whole batch, not each GPU's share.
        references_per: "target" (the paper: each target has its own augmented reference) or
            "participant" (each participant's reference is encoded once a step: about the plain
            network's cost).
        participants_per_batch: 0 shuffles all frames (the paper); k > 0 draws every batch from k
            participants, which makes references_per="participant" cheap. NCG gets the same batches.
        reference_dropout: Probability that a target is read without its reference, with a null
            reference that is trained by it; over 0 the network then also reads people who have
            none (`model(targets, None)`). The loss is that of all targets alike.
        target_noise: Changes of the targets, by what no action does; NCG gets the same.
        reference_noise: Changes of the references only.
        preprocessing: Frame -> network input.
        augmentation: Random changes of the training crops.
        epochs: Passes over the training frames; ignored where `steps` is set.
        steps: Optimisation steps; 0 means: as many as `epochs` takes.
        batch_size: Targets per step, over all processes.
        accumulate: Split each batch into this many parts to save memory.
        learning_rate: For all but the last layer.
        learning_rate_last: For the last layer.
        weight_decay: Strength of the decay.
        decoupled_decay: False: L2 in Adam (the paper); True: AdamW.
        schedule: "constant" (the paper) or "cosine" (with `warmup_steps`).
        warmup_steps: Steps of linear warm-up of the cosine schedule.
        rescale_people: `siamcal train` of intensities only: so many participants are left out, and
            each AU's readings of them are scaled towards the labels' spread
            (`siamcal.training.rescaling`).
        zero_at_reference: Of what `siamcal train` saves, for intensities: `siamcal predict` takes
            off what is read of the reference against itself (`CalibratorConfig`).
        soft_zero: Likewise: readings of about this size are drawn to 0 (`CalibratorConfig`).
        printed_eq7: Class weights of Eq. 7 as printed instead of as released.
        loss_weights: Of the MSE, cosine and ordinal parts (Eq. 2).
        huber: 0: the paper's squared error, in which rare intensities weigh more (Eq. 2). Over 0,
            in its place: Huber's loss, squared below this error and linear beyond, all labels
            alike. Its optimum is nearer to the median, so that a face at rest is read as 0.
        seed: Seed of start, order, augmentation and dropout.
        precision: "fp32", "bf16" or "fp16".
        compile: Use torch.compile.
        deterministic: Ask torch for deterministic algorithms.
        note: Where the recipe's numbers come from.
    """

    name: str
    dataset: str = "disfa"
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    task: str = "intensity"
    backbone: str = "ir50"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    checkpoint: str = ""
    merge_at: str | tuple[str, ...] = "layer4"
    merge: str = PAPER
    merge_options: Mapping[str, Any] = field(default_factory=dict)
    branches: str = "separate"
    freeze_pre_batchnorm: bool = False
    freeze_pre: int = 0
    freeze_batchnorm: bool = False
    sync_batchnorm: bool = True
    references_per: str = "target"
    participants_per_batch: int = 0
    reference_dropout: float = 0.0
    target_noise: Noise = field(default_factory=Noise)
    reference_noise: ReferenceNoise = field(default_factory=ReferenceNoise)
    preprocessing: Preprocessing = PAPER_PREPROCESSING
    augmentation: Augmentation = field(default_factory=Augmentation)
    epochs: float = 3
    steps: int = 0
    batch_size: int = 64
    accumulate: int = 1
    learning_rate: float = 1e-5
    learning_rate_last: float = 1e-4
    weight_decay: float = 5e-4
    decoupled_decay: bool = False
    schedule: str = "constant"
    warmup_steps: int = 0
    rescale_people: int = 0
    zero_at_reference: bool = False
    soft_zero: float = 0.0
    printed_eq7: bool = False
    loss_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    huber: float = 0.0
    seed: int = 42
    precision: str = "fp32"
    compile: bool = False
    deterministic: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        check_choices(
            self,
            task=TASKS,
            branches=("separate", "concatenate"),
            references_per=("target", "participant"),
            schedule=("constant", "cosine"),
            precision=PRECISIONS,
        )
        object.__setattr__(self, "merge_at", merge_points(self.merge_at))
        if self.checkpoint and self.weights:
            raise ConfigError(
                f"checkpoint={self.checkpoint!r} holds the whole network, so weights="
                f"{self.weights!r} would be written over; set weights= (empty), or no checkpoint."
            )
        self._check_ranges()
        if self.freeze_pre < 0:
            raise ConfigError(f"freeze_pre is a number of copies from 0 on; got {self.freeze_pre}.")
        if self.freeze_pre and self.augmentation.shared:
            raise ConfigError(
                "augmentation.shared draws once for a target and its reference, but copies of "
                "frames are drawn for each frame alone; use freeze_pre=0."
            )
        if self.freeze_pre and self.merge_at == "output":
            raise ConfigError(
                "merge_at='output' leaves nothing to train behind it; use freeze_pre=0."
            )
        if self.merge != PAPER:  # a form with parameters loads torch, which the default needn't
            merges.get(self.merge)
        check_merge_options(self.merge, self.merge_options)
        if not isinstance(self.merge_at, str):
            self._check_several()

    def _check_several(self) -> None:
        """Refuse, before anything is made, what is for one merge point."""
        if self.merge == PAPER:
            paper(self.merge_at)
        usual = {
            "freeze_pre": 0,
            "branches": "separate",
            "compile": False,
            "zero_at_reference": False,
        }
        for name, value in usual.items():
            if getattr(self, name) != value:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is for one merge point, but merge_at names "
                    f"{len(self.merge_at)} ({joined(self.merge_at)}); set {name}={value!r}, or "
                    "name one."
                )

    def _check_ranges(self) -> None:
        """Refuse numbers with which nothing, or nonsense, would be trained."""
        check_range("reference_dropout", self.reference_dropout, 0, 1)
        check_range("huber", self.huber, 0, 5)
        check_range("soft_zero", self.soft_zero, 0, 1)
        whole = {
            "batch_size": (1, 10**6),
            "accumulate": (1, 10**6),
            "steps": (0, 10**9),
            "warmup_steps": (0, 10**9),
            "participants_per_batch": (0, 10**6),
            "rescale_people": (0, 10**6),
            "seed": (0, 2**32 - 1),
        }
        for name, (low, high) in whole.items():
            check_whole(name, getattr(self, name), low, high)
        for name in ("learning_rate", "learning_rate_last", "weight_decay"):
            check_range(name, getattr(self, name), 0, 1e38)
        check_range("epochs", self.epochs, 0, 10**6)
        if not self.steps and not self.epochs:
            raise ConfigError("epochs=0 and steps=0 train nothing; set one of them.")
        for weight in self.loss_weights:
            check_range("loss_weights", weight, 0, 10**6)
        if len(self.loss_weights) != 3 or not any(self.loss_weights):
            raise ConfigError(
                "loss_weights takes the weights of the MSE, cosine and ordinal parts, not all 0, "
                f"but got {self.loss_weights}."
            )


def load_recipe(name: str | Path) -> Recipe:
    """The recipe of that name, or the one in a `recipe.json` or a TOML file.

    Raises:
        UnknownNameError: Nothing is registered under the name.
        ConfigError: The file can't be read, or has a key twice, unknown keys, wrong types or
            values; the message names it.
    """
    path = Path(name)
    if path.suffix not in (".json", ".toml"):
        return recipes.get(str(name))()
    values = read_json(path, MAX_RECIPE_BYTES) if path.suffix == ".json" else _read_toml(path)
    try:
        return from_dict(values, Recipe)
    except UnknownNameError as error:
        raise UnknownNameError(f"{path}: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(read_text(path, MAX_RECIPE_BYTES))
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError(f"{path} isn't read: its tables lie too deep in one another.") from None
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise ConfigError(f"{path} isn't TOML: {str(error)[:200]}.") from None
