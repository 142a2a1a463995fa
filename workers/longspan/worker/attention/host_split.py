"""How memory is shared where far pages lie on the host: frames, slots, bounds. Pure."""

from __future__ import annotations

from dataclasses import dataclass

SLOTS = 64
"""Pages of the host that each layer has room for on the device: what eight answers choose at once,
or one that sees all of a document's first 64 pages."""

SLOT_SHARE = 8
"""Of the device's memory, the part that slots take at most, if a row's pages fit into it."""

MOST_NUMBERED = 16
"""Pages with a number, for each that lies in frames, at most: their bounds lie on the device, and
take a sixteenth of what the pages themselves would."""


@dataclass(frozen=True, slots=True)
class HostNeeds:
    """What pages take where some layers keep theirs on the host.

    Attributes:
        frame_bytes: of a frame, on the device.
        frames: of a page.
        kept: of those, whose layers keep everything in frames.
        hosted: of those, whose layers keep their far pages on the host.
        bounds_bytes: of a page, on the device, for as long as it has a number.
        page_bytes: of a page, on the host.
        chosen: pages that a row chooses at most.
    """

    frame_bytes: int
    frames: int
    kept: int
    hosted: int
    bounds_bytes: int
    page_bytes: int
    chosen: int


@dataclass(frozen=True, slots=True)
class HostSplit:
    """What there is.

    Attributes:
        slots: pages of the host that each layer has room for on the device.
        frames: on the device, slots not among them; of whole pages.
        pages: that may have a number, and lie on the host.
    """

    slots: int
    frames: int
    pages: int


def split(needs: HostNeeds, device_bytes: int, host_bytes: int) -> HostSplit:
    """Share out memory, so that neither frames nor numbers are left when the others run out."""
    slots = _slots(needs, device_bytes)
    left = max(device_bytes - slots * needs.hosted * needs.frame_bytes, 0)
    # Each page with a number needs frames in the layers that keep everything, and its bounds.
    share = _numbered(needs)
    frames = left * share // (share * needs.frame_bytes + MOST_NUMBERED * needs.bounds_bytes)
    pages = host_bytes // needs.page_bytes
    if pages < frames * MOST_NUMBERED // share:
        frames = (left - pages * needs.bounds_bytes) // needs.frame_bytes
    # A worker that starts again is told whole pages, and must have as many numbers.
    frames -= frames % needs.frames
    return HostSplit(slots, frames, min(pages, frames * MOST_NUMBERED // share))


def split_of_frames(needs: HostNeeds, frames: int, host_bytes: int) -> HostSplit:
    """The same where so many frames there must be, whatever the rest takes beside them."""
    slots = _slots(needs, frames * needs.frame_bytes)
    most = frames * MOST_NUMBERED // _numbered(needs)
    return HostSplit(slots, frames, min(host_bytes // needs.page_bytes, most))


def _slots(needs: HostNeeds, device_bytes: int) -> int:
    fitting = device_bytes // (SLOT_SHARE * needs.hosted * needs.frame_bytes)
    return max(min(SLOTS, fitting), needs.chosen)


def _numbered(needs: HostNeeds) -> int:
    """Frames of a page with a number, times ``MOST_NUMBERED``."""
    return max(MOST_NUMBERED * needs.kept, needs.frames)
