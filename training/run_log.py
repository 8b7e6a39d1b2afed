"""The training's log, one JSON object a line, and its picture."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

LOG, PICTURE = "log.jsonl", "curve.png"
# Figures from 0 to 1, drawn apart from the losses.
FIGURES = "figures"


class RunLog:
    """Appends to the log in a folder; lines of steps that are taken again after a kill are dropped."""

    def __init__(self, folder: Path, stages: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._stages = stages

    def write(self, entry: dict[str, Any]) -> None:
        with (self._folder / LOG).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def entries(self) -> list[dict[str, Any]]:
        """What is in the log; a line that a kill cut short is skipped."""
        entries = []
        path = self._folder / LOG
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return entries

    def rewind(self, stage: str, step: int) -> None:
        """Drops what was logged after a checkpoint."""
        kept = [
            entry
            for entry in self.entries()
            if (self._stages.index(entry["stage"]), entry["step"]) <= (self._stages.index(stage), step)
        ]
        partial = self._folder / f"{LOG}.partial"
        partial.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        partial.rename(self._folder / LOG)

    def draw(self) -> Path:
        """Draws losses and figures over the hours of training."""
        figure = Figure(figsize=(11, 8), layout="constrained")
        FigureCanvasAgg(figure)
        losses, figures = figure.subplots(2, 1, sharex=True)
        entries = self.entries()
        for axes, key in ((losses, "losses"), (figures, FIGURES)):
            lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for entry in entries:
                for name, value in entry.get(key, {}).items():
                    lines[name].append((entry["hours"], value))
            for name, points in lines.items():
                axes.plot(
                    *zip(*points, strict=True), label=name, linewidth=1, marker="." if key == FIGURES else ""
                )
            axes.grid(alpha=0.3)
            if lines:
                axes.legend(fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
        losses.set_yscale("log")
        losses.set_ylabel("losses")
        figures.set_ylim(0, 1)
        figures.set_ylabel("figures on pictures kept aside")
        figures.set_xlabel("hours of training")
        path = self._folder / PICTURE
        figure.savefig(path, dpi=110)
        return path
