"""`KnownField`: the field of a pair, from which the field of the exchanged pair follows by inversion."""

from __future__ import annotations

from dataclasses import dataclass, replace

from meddift.geometry import DisplacementField, nearest
from meddift.geometry.inverse import NumericalInverse
from meddift.pipeline.scan import EncodedScan
from meddift.pipeline.under_field import Usual
from meddift.registration.field import TensorField
from meddift.registration.fitted import Field
from meddift.registration.inverse import invert
from meddift.registration.support import Support


@dataclass(frozen=True, eq=False)
class KnownField:
    """The results of a pair that its reverse can use; holds neither scan.

    Attributes:
        field: The displacement field, fixed to moving.
        usual: Typical values of correct matches under this field.
    """

    field: Field
    usual: Usual


def reversed_field(field: Field, moving: EncodedScan) -> Field:
    """The inverse of a field, computed numerically at the points where it is evaluated, with its support.

    Args:
        field: Fixed to moving.
        moving: The moving scan; its lungs are the sliding region of the inverse.
    """
    whole, *parts = (NumericalInverse(part, field.affine) for part in (field.transform, *field.parts))
    sliding = moving.lungs if field.sliding is not None else None
    return replace(
        field,
        transform=whole,
        parts=(whole,) if sliding is None else tuple(parts),
        sliding=sliding,
        affine=field.affine.inverted(),
        support=_reversed_support(field, moving),
        timing={},
    )


def _reversed_support(field: Field, moving: EncodedScan) -> Support | None:
    """The support of the inverse: that of the fixed positions to which nodes of a grid over the moving scan map."""
    support = field.support
    if support is None or not isinstance(field.transform, DisplacementField):
        return None
    device = moving.settings.runtime.device
    support = support.on(device)
    nodes = moving.grid.reoriented("RAS")[0].respaced(support.grid.spacing.tolist())
    back = invert(TensorField.of(field.transform, device), field.affine, nodes, device)
    places = back.apply(nodes.voxel_centers_on(device))
    disagreement = nearest(support.disagreement_mm[..., None].contiguous(), support.grid.world_to_index(places))
    supported = support.supported_at(places) & support.grid.contains(places)
    return Support(nodes, disagreement.reshape(nodes.shape), supported.reshape(nodes.shape))
