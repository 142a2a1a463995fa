"""Full attention of a few queries with every score written out, from the keys in the pages."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Integers = npt.NDArray[np.int64]


def scores(
    query: torch.Tensor,
    keys: torch.Tensor,
    positions: Integers,
    *,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """q kᵀ · scale in float32, -inf where a key is not seen: [rows, heads, keys].

    ``query`` is [rows, heads, d], ``keys`` float32 [kv_heads, keys, d]. Row i stands at
    ``positions[i]``; with a window w it sees the keys at (position - w, position].
    """
    kv_heads = len(keys)
    grouped = query.float().view(len(query), kv_heads, -1, query.shape[-1]) * scale
    found = torch.einsum("rhgd,hkd->rhgk", grouped, keys)
    place = torch.from_numpy(positions).to(keys.device)[:, None]
    distance = place - torch.arange(keys.shape[1], device=keys.device)
    hidden = (distance < 0) | (distance >= (window or keys.shape[1]))
    # Filled, not added to: slots behind the last token hold anything, NaN too.
    return found.masked_fill(hidden[:, None, None], float("-inf")).flatten(1, 2)


def stored(pages: torch.Tensor, table: npt.NDArray[np.int32], tokens: int) -> torch.Tensor:
    """The first tokens of a sequence as one float32 tensor: [kv_heads, tokens, d]."""
    index = torch.from_numpy(table.astype(np.int64)).to(pages.device)
    return pages[index].transpose(0, 1).flatten(1, 2)[:, :tokens].float()


def attended(shares: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Weighted values: [rows, heads, dv] of ``shares`` [rows, heads, keys] and
    ``values`` [kv_heads, keys, dv]."""
    grouped = shares.view(len(shares), len(values), -1, shares.shape[-1])
    return torch.einsum("rhgk,hkd->rhgd", grouped, values).flatten(1, 2)
