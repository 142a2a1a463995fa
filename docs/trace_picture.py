"""Records one trace of a streamed upload and its answer, and draws it.

PYTHONPATH=. python docs/trace_picture.py record    # writes docs/trace.json; starts a server
PYTHONPATH=. python docs/trace_picture.py draw      # writes docs/trace.svg from it
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
RECORDED = DOCS / "trace.json"
PICTURE = DOCS / "trace.svg"
EXAMPLE = DOCS.parent / "examples" / "services-agreement.md"
NEEDED = {"caller", "upload", "tokenise", "queue", "prefill", "decode"}

DOCUMENT_BYTES = 20_000
PIECE_BYTES = 1_000
PAUSE_S = 0.2
OUTPUT_TOKENS = 32
NS = 1e9

COLOURS = {"caller": "#8c8c8c", "longspan-server": "#3b6ea5", "longspan-worker": "#c2683a"}


async def record() -> list[dict[str, Any]]:
    """The spans of one Analyze whose document arrives slowly, in the order of their beginnings."""
    from tests.e2e.real_decoders import answering, streaming_decoder
    from tests.support.collector import collecting
    from tests.support.tracing import calling

    from longspan.client import AsyncClient, Generation, Prompt

    task = Prompt("Who pays?", generation=Generation(max_tokens=OUTPUT_TOKENS))
    with (
        tempfile.TemporaryDirectory() as folder,
        collecting() as collector,
        calling(collector) as caller,
    ):
        model = streaming_decoder(Path(folder) / "model", context_tokens=16384)
        tracing = {"endpoint": collector.endpoint}
        async with answering(Path(folder) / "data", model, tracing=tracing) as serving:
            async with AsyncClient(serving.target) as client:
                with caller.span("caller") as trace_id:
                    async with client.analyze(_slowly(), task) as stream:
                        await stream.result()
            await collector.until(
                lambda: {span.name for span in collector.trace(trace_id)} >= NEEDED
            )
        return [asdict(span) for span in collector.trace(trace_id)]


async def _slowly() -> AsyncIterator[bytes]:
    document = EXAMPLE.read_bytes()[:DOCUMENT_BYTES]
    for start in range(0, len(document), PIECE_BYTES):
        yield document[start : start + PIECE_BYTES]
        await asyncio.sleep(PAUSE_S)


def draw(spans: list[dict[str, Any]]) -> None:
    """One bar a span, a tick for each event."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "longspan"
    from matplotlib import patches, pyplot

    began_ns = min(span["start_ns"] for span in spans)
    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(spans) + 1))
    for row, span in enumerate(spans):
        start = (span["start_ns"] - began_ns) / NS
        length = (span["end_ns"] - span["start_ns"]) / NS
        axes.barh(row, max(length, 0.01), left=start, color=COLOURS[span["service"]], height=0.6)
        times = [(event["time_ns"] - began_ns) / NS for event in span["events"]]
        axes.vlines(times, row - 0.3, row + 0.3, color="white", linewidth=1)
    names = [span["name"].rpartition("/")[2] for span in spans]
    axes.set_yticks(range(len(spans)), names)
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    handles = [patches.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    axes.legend(
        handles, list(COLOURS), loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Record or draw."""
    if sys.argv[1:] == ["record"]:
        RECORDED.write_text(json.dumps(asyncio.run(record()), indent=1) + "\n", "utf-8")
    elif sys.argv[1:] == ["draw"]:
        draw(json.loads(RECORDED.read_text("utf-8")))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
