"""Encoding scans in the memory that is left, or taking their features from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.features import extract_pyramid, extract_pyramids
from meddift.system.memory import memory_for, require_memory, unless_card_is_full

if TYPE_CHECKING:
    from meddift.features import Pyramid
    from meddift.pipeline.scan import EncodedScan
    from meddift.pipeline.settings import Settings
    from meddift.system.progress import Progress
    from meddift.volume import Volume


def encode_scan(
    volume: Volume, *, digest: str, progress: Progress | None, settings: Settings, report: Progress
) -> Pyramid:
    """Compute the features of one scan, or read them from the store.

    Args:
        volume: The scan.
        digest: Digest of the scan, 64 hexadecimal digits.
        progress: Called with stage and fraction while the network computes.
        settings: Model, options and runtime.
        report: Called with a message when encoding has to save memory.

    Raises:
        MemoryLimitError: if there is not enough memory even in the most economical mode.
        MeddiftError: if features cannot be computed.
    """
    key = settings.key(digest, modality=volume.modality)
    network = bool(settings.extraction.network_levels)

    def extract(*, spare: bool) -> Pyramid:
        return extract_pyramid(
            volume,
            settings.model if network else None,
            settings.extraction,
            spec=settings.network_spec,
            digest=key,
            spare=spare,
            device=settings.runtime.device,
            on_progress=progress,
        )

    def make() -> Pyramid:
        with memory_for(_purpose(volume, settings)):
            if network and must_spare(volume, settings, report):
                return extract(spare=True)
            made = unless_card_is_full(lambda: extract(spare=False))
            if made is None:
                report("the graphics card is full: encoding once more, in less memory and more time", 0.05)
                made = extract(spare=True)
            return made

    store = settings.runtime.store
    return make() if store is None else store.get_or_make(key, make)


def encode_together(fixed: EncodedScan, moving: EncodedScan, *, progress: Progress, report: Progress) -> None:
    """Encode both scans of a pair in one batch of the network, where `Settings.encodes_together` says so.

    Nothing is done if features of one of them are there already, or if the memory of the graphics card does not
    suffice: then each scan is encoded alone.

    Args:
        fixed: The one scan.
        moving: The other one.
        progress: Called with stage and fraction while the network computes.
        report: Called with a message if the card was full.

    Raises:
        MemoryLimitError: if main memory runs out.
        MeddiftError: if features cannot be computed.
    """
    settings, scans = fixed.settings, (fixed, moving)
    if moving.settings is not settings or not settings.encodes_together([scan.grid for scan in scans]):
        return
    keys = [settings.key(scan.digest, modality=scan.volume.modality) for scan in scans]
    store = settings.runtime.store
    if keys[0] == keys[1] or (store is not None and any(key in store for key in keys)):
        return

    def make() -> list[Pyramid] | None:
        with memory_for(f"encoding both scans with {settings.spec.name}"):
            made = unless_card_is_full(
                lambda: extract_pyramids(
                    [scan.volume for scan in scans],
                    settings.model,
                    settings.extraction,
                    digests=keys,
                    device=settings.runtime.device,
                    on_progress=progress,
                )
            )
        if made is None:
            report("the graphics card is full: encoding one scan after the other", 0.05)
        elif store is not None:
            for pyramid in made:
                store.put(pyramid)
        return made

    fixed.encode_with(moving, make)


def must_spare(volume: Volume, settings: Settings, report: Progress) -> bool:
    """Whether encoding has to use the slower mode that saves memory, because the free memory is too small.

    Args:
        volume: The scan.
        settings: Model, options and runtime.
        report: Called with a message if it has to.

    Raises:
        MemoryLimitError: if there is not enough memory even in this mode.
    """
    plan = settings.encoding_plan(volume.grid)
    if plan.spare:
        require_memory(plan.needed_bytes, _purpose(volume, settings))
        report(f"little memory is left: encoding in {plan.needed_bytes / 1e9:.1f} GB, in somewhat more time", 0.05)
    return plan.spare


def _purpose(volume: Volume, settings: Settings) -> str:
    """A description of the work, for messages about memory."""
    return f"encoding a scan of {' x '.join(map(str, volume.grid.shape))} with {settings.spec.name}"
