"""Pages' parts out of the pool's tensors and back into them, as bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.eight_bit import EightBitPages
from longspan.worker.attention.host_pages import HostPages
from longspan.worker.attention.pool import LayerPages

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Lying:
    """Where a page lies, taken down while somebody holds it.

    Attributes:
        number: of the page.
        frames: int32, where its frames lie.
    """

    number: int
    frames: npt.NDArray[np.int32]


class PageTensors:
    """The pool's tensors, seen as the parts of pages.

    Parts that nobody writes to or reads from meanwhile may be copied by any thread.

    Args:
        layers: of the pool.
        sizes: frames of a page for each group of layers; the last group may have none: what
            stands for a page, which lies by the page's number.
    """

    def __init__(self, layers: Sequence[LayerPages], sizes: Sequence[int]) -> None:
        self._layers = layers
        self._sizes = sizes
        ends = np.cumsum(sizes).tolist()
        columns = [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        self._by_number = 0 in sizes
        self._groups = [[layer for layer in layers if layer.frame in c] for c in columns]
        self._device = layers[0].keys.device
        self.sizes = tuple(self._count(group) for group in range(len(sizes)))

    @property
    def identity(self) -> bytes:
        """Equal where parts of pages are laid out alike."""
        shapes = [
            [(str(piece.dtype), tuple(piece.shape)) for piece in self._pieces(group, _ANY)]
            for group in range(len(self._sizes))
        ]
        members = [
            [number for number, layer in enumerate(self._layers) if layer in group]
            for group in self._groups
        ]
        return sha256(repr((self._sizes, members, shapes)).encode()).digest()

    def read(self, group: int, lying: Lying) -> memoryview:
        """A copy of a page's part: ``sizes[group]`` bytes."""
        copy = self._read_cuda(group, lying) if self._cuda else self._read_host(group, lying)
        return copy.data

    def write(self, group: int, lying: Lying, data: memoryview) -> None:
        """Put a part where a page lies; it has ``sizes[group]`` bytes."""
        if self._cuda:
            self._write_cuda(group, lying, data)
        else:
            self._write_host(group, lying, data)
        if self._sizes[group] == 0:
            for layer in self._layers:
                if isinstance(layer, HostPages):
                    layer.slots.rewritten(lying.number)

    @property
    def _cuda(self) -> bool:
        return self._device.type == "cuda"

    def _read_host(self, group: int, lying: Lying) -> Bytes:
        """By numpy: torch would raise a team of threads here that the engine's own waits for."""
        data = np.empty(self.sizes[group], np.uint8)
        start = 0
        for piece in self._pieces(group, lying):
            flat = _flat(piece).numpy()
            data[start : start + flat.size] = flat
            start += flat.size
        return data

    def _read_cuda(self, group: int, lying: Lying) -> Bytes:
        staged = torch.empty(self.sizes[group], dtype=torch.uint8, pin_memory=True)
        with self._stream() as stream:
            start = 0
            for piece in self._pieces(group, lying):
                _settle(piece, stream)
                flat = _flat(piece)
                staged[start : start + len(flat)].copy_(flat, non_blocking=True)
                start += len(flat)
            stream.synchronize()
        return staged.numpy()

    def _write_host(self, group: int, lying: Lying, data: memoryview) -> None:
        start = 0
        for piece in self._pieces(group, lying):
            flat = _flat(piece).numpy()
            flat[:] = np.frombuffer(data, np.uint8, flat.size, start)
            start += flat.size

    def _write_cuda(self, group: int, lying: Lying, data: memoryview) -> None:
        staged = torch.frombuffer(data, dtype=torch.uint8).pin_memory()
        with self._stream() as stream:
            start = 0
            for piece in self._pieces(group, lying):
                _settle(piece, stream)
                flat = _flat(piece)
                flat.copy_(staged[start : start + len(flat)], non_blocking=True)
                start += len(flat)
            stream.synchronize()

    def _stream(self) -> _SideStream:
        return _SideStream(self._device)

    def _count(self, group: int) -> int:
        return sum(len(_flat(piece)) for piece in self._pieces(group, _ANY))

    def _pieces(self, group: int, lying: Lying) -> Iterator[torch.Tensor]:
        """The contiguous tensors that a part is made of, always in the same order."""
        if self._sizes[group] == 0:
            for layer in self._layers:
                yield from _summaries(layer, lying.number)
            return
        for layer in self._groups[group]:
            frame = int(lying.frames[layer.frame])
            yield from _numbers(layer, frame)
            if not self._by_number:
                yield from _summaries(layer, frame)


class _SideStream:
    """A CUDA stream of our own, behind what the engine's has queued so far."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.default_stream(device))
        self._context = torch.cuda.stream(self._stream)

    def __enter__(self) -> torch.cuda.Stream:
        self._context.__enter__()  # type: ignore[no-untyped-call]
        return self._stream

    def __exit__(self, *exc: object) -> None:
        self._context.__exit__(None, None, None)


_ANY = Lying(0, np.zeros(1 << 10, np.int32))


def _numbers(layer: LayerPages, frame: int) -> Iterator[torch.Tensor]:
    yield layer.keys[frame]
    if not layer.latent:
        yield layer.values[frame]
    if isinstance(layer, EightBitPages):
        yield layer.key_scales[frame]
        yield layer.value_scales[frame]
    if layer.bounds is not None and not isinstance(layer, HostPages):
        yield from layer.bounds[:, frame]
    if layer.four_bit is not None:
        yield from layer.four_bit.parts(frame)


def _summaries(layer: LayerPages, number: int) -> Iterator[torch.Tensor]:
    """What stands for a page, or is found by its number, on the device and on the host."""
    if isinstance(layer, HostPages):
        assert layer.bounds is not None
        yield from layer.bounds[:, number]
        yield layer.host_keys[number]
        yield layer.host_values[number]
    if layer.centroids is not None:
        yield from layer.centroids.keys[:, number]
        if not layer.latent:
            yield from layer.centroids.values[:, number]
    if layer.page_sums is not None:
        yield from layer.page_sums.sums[:, number]


def _settle(piece: torch.Tensor, stream: torch.cuda.Stream) -> None:
    """Memory of the host is copied at once: what the device still copies there must be there."""
    if piece.device.type == "cpu":
        stream.synchronize()


def _flat(piece: torch.Tensor) -> torch.Tensor:
    """Its bytes, in place."""
    assert piece.is_contiguous()
    return piece.view(-1).view(torch.uint8)
