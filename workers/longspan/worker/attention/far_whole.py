"""Attention over all pages before the window, where they lie on the host: some at a time.

The first pages of a document and the task behind it choose nothing and see everything. What they
see does not fit on the device at once, so it comes in turns whose results are merged by
log-sum-exp. All keys of a far page lie before every query of its block: nothing is causal here.
"""

from __future__ import annotations

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.cpu_kernel import flash
from longspan.worker.attention.layer_plan import SelectingRows
from longspan.worker.attention.merge import joined, merge
from longspan.worker.attention.pool import LayerPages

PAGES_AT_ONCE = 16
"""4,096 tokens of one layer are on the device for it."""

SCORES = 2**26
"""Written out at once where no kernel does without: a quarter of a GiB."""

WIDEST = 256
"""Numbers of a head that torch's flash kernel takes on a GPU."""


class FarWhole:
    """A step's blocks that see all far pages, ready to look at them in every layer."""

    def __init__(self, blocks: SelectingRows) -> None:
        self._offsets = blocks.rows.offsets.tolist()
        self._pages = [candidates.tolist() for candidates in blocks.candidates]

    def attend(
        self, query: torch.Tensor, layer: LayerPages, selected: torch.Tensor | None, *, scale: float
    ) -> Attended:
        """Attend from ``query`` [tokens, heads, d]; each block has at least one far page.

        The result is in float32.
        """
        return joined(
            self._block(query[self._offsets[block] : self._offsets[block + 1]], layer, block, scale)
            for block in range(len(self._pages))
        )

    def _block(self, query: torch.Tensor, layer: LayerPages, block: int, scale: float) -> Attended:
        pages, done = self._pages[block], None
        # A token of an answer is followed by another one, which sees the same pages.
        for keys, values in layer.read(pages, PAGES_AT_ONCE, again=len(query) == 1):
            part = attend_whole(query, keys, values, scale=scale)
            done = part if done is None else merge([done, part])
        assert done is not None
        return done


def attend_whole(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, scale: float
) -> Attended:
    """Attend from ``query`` [tokens, heads, d] over whole pages, all of whose keys are seen.

    ``keys`` is [pages, kv_heads, page tokens, d], ``values`` [.., dv]; the result is in float32.
    """
    tokens, heads, dim = query.shape
    kv_heads = keys.shape[1]
    # The heads of a group read the same keys: to a kernel they are more rows of one head.
    rows = query.view(tokens, kv_heads, -1, dim).permute(1, 2, 0, 3).reshape(kv_heads, 1, -1, dim)
    side = [x.transpose(0, 1).reshape(kv_heads, 1, -1, x.shape[-1]) for x in (keys, values)]
    out, lse = _kernel(rows, side[0], side[1], scale)
    out = out.float().view(kv_heads, -1, tokens, out.shape[-1]).permute(2, 0, 1, 3)
    lse = lse.view(kv_heads, -1, tokens).permute(2, 0, 1)
    return Attended(out.reshape(tokens, heads, -1), lse.reshape(tokens, heads))


def _kernel(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """``query`` [batch, 1, n, d] over ``keys`` [batch, 1, m, d]: out [batch, 1, n, dv] and lse."""
    if query.device.type == "cpu" and values.shape[-1] == query.shape[-1]:
        return flash(query, keys, values, scale=scale)
    if _has_flash(query):
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            query, keys, values, 0.0, False, False, scale=scale
        )
        return out, lse
    size = max(1, SCORES // (len(query) * keys.shape[2]))
    parts = torch.split(query, size, 2)
    done = [_written_out(part, keys, values, scale) for part in parts]
    return torch.cat([out for out, _ in done], 2), torch.cat([lse for _, lse in done], 2)


def _has_flash(query: torch.Tensor) -> bool:
    """True where torch's own flash kernel takes such queries on their GPU."""
    half = query.dtype in (torch.float16, torch.bfloat16)
    if query.device.type != "cuda" or not half or query.shape[-1] % 8 or query.shape[-1] > WIDEST:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


def _written_out(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = (query.float() * scale) @ keys.float().mT
    lse = scores.logsumexp(-1)
    return scores.sub_(lse[..., None]).exp_() @ values.float(), lse
