"""`ModelSpec`: everything that must be known about a diffusion model to use it, except its weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Literal

from meddift.errors import ModelError

#: Body regions in the order of MAISI's one-hot vectors.
REGIONS = ("head-neck", "chest", "abdomen", "lower-body")

#: Keyword arguments of MONAI's DiffusionModelUNetMaisi that a specification may set.
UNET_OPTIONS = frozenset(
    {
        "in_channels",
        "out_channels",
        "num_res_blocks",
        "num_channels",
        "attention_levels",
        "norm_num_groups",
        "norm_eps",
        "resblock_updown",
        "num_head_channels",
        "transformer_num_layers",
        "num_class_embeds",
        "upcast_attention",
        "include_fc",
        "use_combined_linear",
        "include_top_region_index_input",
        "include_bottom_region_index_input",
        "include_spacing_input",
    }
)

#: Keyword arguments of MONAI's AutoencoderKlMaisi that a specification may set.
AUTOENCODER_OPTIONS = frozenset(
    {
        "in_channels",
        "out_channels",
        "num_res_blocks",
        "num_channels",
        "attention_levels",
        "latent_channels",
        "norm_num_groups",
        "norm_eps",
        "with_encoder_nonlocal_attn",
        "with_decoder_nonlocal_attn",
        "include_fc",
        "use_combined_linear",
        "use_convtranspose",
    }
)


@dataclass(frozen=True)
class Licence:
    """Terms of the weights.

    Attributes:
        name: Title of the licence.
        url: Where its text stands.
        accept_required: Whether the user must accept it before a download.
        commercial: Whether commercial use is allowed.
    """

    name: str
    url: str = ""
    accept_required: bool = True
    commercial: bool = False


@dataclass(frozen=True)
class WeightFile:
    """One published file.

    Attributes:
        role: What it holds.
        name: Path in the repository; for weights in a folder a glob of one or more parts.
        older_names: Names under which the same file was published earlier.
        repository: Where it is published, if elsewhere than the other files.
        sha256: 64 hexadecimal digits, or "" where not known.
        bytes: Size, or 0 where not known.
    """

    role: Literal["unet", "autoencoder"]
    name: str
    older_names: tuple[str, ...] = ()
    repository: str = ""
    sha256: str = ""
    bytes: int = 0

    def __post_init__(self) -> None:
        """Validate."""
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ModelError(f"sha256 must be 64 hexadecimal digits or empty, got {self.sha256!r}")
        for name in (self.name, *self.older_names):
            if not name or name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
                raise ModelError(f"a weights file needs a relative name inside its repository, got {name!r}")


@dataclass(frozen=True)
class Weights:
    """Where weights come from.

    Attributes:
        repository: Hugging Face repository, "" where the weights are not published there.
        revision: Commit or tag, "" = not pinned.
        folder: Folder of weights that come with the spec: relative to the package's weights folder for
            specs of the catalogue, to the spec's own folder for a user's spec file; "" = none.
        files: One file of role unet, and one of role autoencoder where the latent stage is one.
    """

    files: tuple[WeightFile, ...]
    repository: str = ""
    revision: str = ""
    folder: str = ""


@dataclass(frozen=True)
class LatentStage:
    """First stage of the model: from prepared image to latent.

    Attributes:
        kind: A fixed Haar transform or a learned autoencoder.
        stride: Image voxels along one axis of a latent voxel.
        channels: Channels of the latent.
        scale_factor: Factor by which the latent is multiplied; 0 = the weights file of the U-Net holds it.
        network: Keyword arguments of AutoencoderKlMaisi.
    """

    kind: Literal["haar", "autoencoder"]
    stride: int
    channels: int
    scale_factor: float = 0.0
    network: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Validate."""
        if self.kind == "haar" and (self.stride, self.channels, dict(self.network)) != (2, 8, {}):
            raise ModelError("a Haar latent has stride 2, 8 channels and no network")
        if self.kind == "autoencoder":
            steps = len(self.network.get("num_channels", ())) - 1
            if self.stride != 2 ** max(steps, 0):
                raise ModelError(f"an autoencoder with {steps + 1} stages has stride {2**steps}, not {self.stride}")
            if self.network.get("latent_channels") != self.channels:
                raise ModelError("latent.channels and latent.network.latent_channels differ")
        if not self.scale_factor >= 0 or self.scale_factor == float("inf"):
            raise ModelError(f"scale_factor must be a positive number, or 0 for the weights' own: {self.scale_factor}")


@dataclass(frozen=True)
class Schedule:
    """Noise schedule of training.

    Attributes:
        kind: ddpm (variance preserving, scaled-linear betas) or rflow (rectified flow).
        prediction: What the network's output means; the features do not depend on it.
        steps: Number of timesteps.
        beta_start: First beta (ddpm).
        beta_end: Last beta (ddpm).
    """

    kind: Literal["ddpm", "rflow"]
    prediction: Literal["epsilon", "v", "sample"]
    steps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0195

    def __post_init__(self) -> None:
        """Validate."""
        if self.steps < 2 or not 0 < self.beta_start <= self.beta_end < 1:
            raise ModelError(f"impossible schedule: {self}")


@dataclass(frozen=True)
class Intensity:
    """Mapping from intensities to the values that the network was trained on.

    Attributes:
        kind: A piecewise-linear window (CT), or percentiles of the scan at hand (MR).
        knots: (intensity, value) pairs of the window, intensities ascending; clamped outside.
        percentiles: Lower and upper percentile, mapped to 0 and 1; not clamped.
    """

    kind: Literal["window", "percentiles"]
    knots: tuple[tuple[float, float], ...] = ()
    percentiles: tuple[float, float] = (0.0, 99.5)

    def __post_init__(self) -> None:
        """Validate."""
        at = [knot[0] for knot in self.knots]
        if self.kind == "window" and (len(at) < 2 or any(b <= a for a, b in pairwise(at))):
            raise ModelError(f"a window needs two or more knots of ascending intensity, got {self.knots}")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ModelError(f"percentiles must ascend between 0 and 100, got {self.percentiles}")


@dataclass(frozen=True)
class GridPolicy:
    """Which grid the network sees.

    Attributes:
        kind: `resize_128` = each axis resized to the nearest multiple of 128 (half to even, at least 128);
            `respace` = resampled to `spacing_mm`, then padded on both sides to a multiple.
        spacing_mm: Voxel size for `respace`, mm.
        multiple: Each axis becomes a multiple of it, for `respace`.
        padding: Value of padded voxels, after the intensity rule, for `respace`.
    """

    kind: Literal["resize_128", "respace"]
    spacing_mm: float = 2.0
    multiple: int = 16
    padding: float = 0.0

    def __post_init__(self) -> None:
        """Validate."""
        if not 0 < self.spacing_mm < float("inf") or self.multiple < 1:
            raise ModelError(f"impossible grid policy: {self}")


@dataclass(frozen=True)
class Conditioning:
    """Inputs of the network besides the latent; only those that its U-Net takes are used.

    Attributes:
        top_region: Body region at the top of the scan.
        bottom_region: Body region at its bottom.
        class_label: Modality code (MAISI: 0 unknown, 1 CT, 8 MR, 9 T1 ...).
        spacing: Which voxel size it is given: that of the grid it sees, or that of the scan as stored.
    """

    top_region: Literal["head-neck", "chest", "abdomen", "lower-body"] = "chest"
    bottom_region: Literal["head-neck", "chest", "abdomen", "lower-body"] = "chest"
    class_label: int = 0
    spacing: Literal["network", "original"] = "network"


@dataclass(frozen=True)
class Defaults:
    """What works best with this model.

    Attributes:
        timestep: In the model's own schedule.
        levels: Levels that are used, coarse to fine.
        whiten: Whether features are whitened.
        noise_samples: Number of noise draws that are averaged; 0 = no noise is added.
        extra_levels: Hand-made levels used beside the model's, such as "mind".
        level_weights: Weight of a level in the mean over levels; 1 for levels not named.
    """

    timestep: int
    levels: tuple[str, ...]
    whiten: bool = True
    noise_samples: int = 1
    extra_levels: tuple[str, ...] = ()
    level_weights: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class ModelSpec:
    """A diffusion model, described.

    Attributes:
        name: Short name: lower-case letters, digits, `-`, `_`, `.`.
        title: One line for people.
        modality: What it was trained on.
        licence: Terms of the weights.
        weights: Where they come from.
        latent: First stage.
        unet: Keyword arguments of DiffusionModelUNetMaisi.
        schedule: Noise schedule.
        intensity: Intensity rule.
        grid: Grid rule.
        levels: Names of all levels that can be read, coarse to fine.
        defaults: What works best.
        conditioning: Inputs besides the latent.
        normalisation: Where the U-Net's norms take their statistics: over groups of channels of the whole scan, as in
            MONAI, or over the channels of each voxel, which does not depend on the field of view.
        other_scans: Name of the model that describes pairs of scans which are not both in Hounsfield units; "" = this
            one. Both have levels of the same names.
        origin: The file that this spec was read from; "" for specs of the catalogue.

    Raises:
        ModelError: if the parts contradict each other.
    """

    name: str
    title: str
    modality: Literal["CT", "MR", "CT and MR"]
    licence: Licence
    weights: Weights
    latent: LatentStage
    unet: Mapping[str, Any] = field(hash=False)
    schedule: Schedule
    intensity: Intensity
    grid: GridPolicy
    levels: tuple[str, ...]
    defaults: Defaults
    conditioning: Conditioning = Conditioning()
    normalisation: Literal["scan", "voxel"] = "scan"
    other_scans: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        """Check the parts against each other."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.name):
            raise ModelError(f"a model's name is lower-case letters, digits, '-', '_' and '.', got {self.name!r}")
        if self.unet.get("in_channels") != self.latent.channels:
            raise ModelError(
                f"unet.in_channels is {self.unet.get('in_channels')}, "
                f"but the latent has {self.latent.channels} channels"
            )
        stages = len(self.unet.get("num_channels", ()))
        if stages < 1 or len(self.unet.get("attention_levels", ())) != stages:
            raise ModelError("unet.num_channels and unet.attention_levels must be lists of equal length")
        known = ("middle", *(f"up{i}" for i in range(stages)))
        strangers = [level for level in self.levels if level not in known]
        if strangers or not self.levels:
            raise ModelError(f"levels {strangers} do not exist in this U-Net; it has {', '.join(known)}")
        absent = [level for level in self.defaults.levels if level not in self.levels]
        if absent:
            raise ModelError(f"defaults.levels {absent} are not among levels {list(self.levels)}")
        if not 0 <= self.defaults.timestep < self.schedule.steps or self.defaults.noise_samples < 0:
            raise ModelError(f"impossible defaults: {self.defaults}")
        if self.grid.kind == "respace" and self.grid.multiple % self.multiple:
            raise ModelError(
                f"grid.multiple is {self.grid.multiple}, but this network needs a multiple of {self.multiple}"
            )
        roles = sorted(file.role for file in self.weights.files)
        wanted = ["autoencoder", "unet"] if self.latent.kind == "autoencoder" else ["unet"]
        if roles != wanted:
            raise ModelError(f"weights.files must have the roles {wanted}, got {roles}")

    @property
    def multiple(self) -> int:
        """Each axis of the network's grid must be divisible by it: stride of the latent times that of the U-Net."""
        return self.latent.stride * int(2 ** (len(self.unet["num_channels"]) - 1))

    def digest(self) -> str:
        """sha256 of everything that determines the features (not of titles, licences or defaults)."""
        parts = asdict(self)
        for name in ("title", "licence", "weights", "levels", "defaults", "origin"):
            del parts[name]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
