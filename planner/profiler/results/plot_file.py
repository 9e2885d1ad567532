"""One plot as a PNG. Needs matplotlib, which is imported when a plot is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES = (8.0, 5.0)
DOTS_PER_INCH = 120


def png(draw: Callable[[Axes], None]) -> bytes:
    """The content of a file with what ``draw`` puts on the axes. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(visible=True, alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
