"""How often Python's garbage collector looks at everything in a server process.

An open stream is a hundred objects, which live as long as it does. A look at all objects of ten
thousand streams stops the event loop for a second, and finds nothing: what a call leaves behind
is freed by reference counts, or found while it is young.
"""

from __future__ import annotations

import gc

# Objects made and not freed between two looks at the youngest; ten of these, one at those that
# outlived them; fifty of those, one at everything.
YOUNG, MIDDLE, OLD = 10_000, 10, 50


def collect_rarely() -> None:
    """To be called once, when everything that lives as long as the process is there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
