"""Draws a benchmark's <name>.png from its results in <name>.json: `python -m benchmarks.draw`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib import pyplot
from matplotlib.figure import Figure

from benchmarks.plots import CORE, OTHER, OURS, REFERENCE, horizontal_boxes, lines, plots, write_ratios

FOLDER = Path("docs/benchmarks")
# The picture of a page of its own lies beside it.
FOLDERS = {"scores": Path("docs")}
COLOURS = {
    "our block": OURS,
    "core blocks": CORE,
    "core block": CORE,
    "core blocks, no image cache": OTHER,
}
DTYPE_COLOURS = {"float32": REFERENCE, "bfloat16": OTHER, "float16": CORE, "int8": OURS}
FORMAT_COLOURS = {"coco": OURS, "yolo": CORE, "pascal_voc": OTHER}

Results = dict[str, Any]


def publish(name: str, results: Results, folder: Path) -> None:
    """Writes the results to <name>.json and, if they have a picture, draws <name>.png from it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    if name in DRAWINGS:
        draw(name, folder)


def draw(name: str, folder: Path) -> Path:
    """Draws <name>.png from <name>.json in the folder, and gives its path."""
    results = json.loads((folder / f"{name}.json").read_text())
    picture = folder / f"{name}.png"
    figure = DRAWINGS[name](results)
    figure.savefig(picture)
    pyplot.close(figure)
    print(f"Drew {picture}")
    return picture


def prompts(results: Results) -> Figure:
    """`n_prompts`, and for each of `models` the `seconds` by what ran and the `ratios` to those of ours."""
    figure, axes = plots(
        "Many prompts on one image: one step of our block, or a core block for each prompt",
        f"{results['machine']}, new image {results['image']}, same model in all;"
        " n x: core blocks take n times as long",
        list(results["models"]),
    )
    for axis, model in zip(axes, results["models"].values(), strict=True):
        lines(axis, results["n_prompts"], model["seconds"], COLOURS)
        for name, ratios in model["ratios"].items():
            # There is no room for the ratios of one and two prompts.
            points = (results["n_prompts"], model["seconds"][name], ratios)
            write_ratios(axis, *(values[2:] for values in points), on_the_left=name != "core blocks")
        axis.set(xlabel="prompts", ylabel="seconds (less is better)")
    return figure


def dtypes(results: Results) -> Figure:
    """`seconds` by work and dtype, and of the bundled model the figures of `boxes` by what it ran with."""
    figure, (speed, quality) = plots(
        "Dtypes and crops: how fast, and how good the boxes are",
        f"{results['machine']}, {results['image']}; released widths, 4 vision and 3 text layers,"
        " random weights; n x: faster than float32 with all crops",
        ["released widths", "bundled model"],
    )
    seconds = results["seconds"]
    first = next(iter(seconds.values()))["float32"]
    for place, (work, measured) in enumerate(seconds.items()):
        base = first if work.startswith("encode") else measured["float32"]
        for shift, (name, value) in enumerate(measured.items()):
            y = place + 0.25 * (shift - 1)
            speed.barh(y, value, 0.22, color=DTYPE_COLOURS[name], label=name if place == 0 else None)
            speed.annotate(
                f"{base / value:.1f} x", (value, y), xytext=(3, 0), textcoords="offset points", va="center"
            )
    speed.set_yticks(range(len(seconds)), [work.replace(", ", ",\n") for work in seconds])
    speed.invert_yaxis()
    speed.set(xlim=(0, 1.15 * first), xlabel="seconds (less is better)")
    speed.legend(loc="lower right")
    rows = results["boxes"]
    for place, figures in enumerate(rows.values()):
        for shift, (name, colour) in enumerate((("mAP@50", OURS), ("mAP@50:95", REFERENCE))):
            y = place + 0.4 * shift - 0.2
            quality.barh(y, figures[name], 0.36, color=colour, label=name if place == 0 else None)
            quality.annotate(
                f"{figures[name]:.3f}",
                (figures[name], y),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
            )
    quality.set_yticks(range(len(rows)), list(rows))
    quality.invert_yaxis()
    quality.set(xlim=(0, 1.2), xlabel="more is better")
    for axis in (speed, quality):
        axis.grid(visible=False, axis="y")
    return figure


def images(results: Results) -> Figure:
    """`n_images`, and for each of `models` the images per second by what ran."""
    figure, axes = plots(
        f"Images per second with {results['n_prompts']} prompts: our block, or a core block for each prompt",
        f"{results['machine']}, new images {results['image']}, same model in all;"
        " n x: ours handles n times as many",
        list(results["models"]),
    )
    for axis, rates in zip(axes, results["models"].values(), strict=True):
        lines(axis, results["n_images"], rates, COLOURS)
        ratios = [ours / core for ours, core in zip(rates["our block"], rates["core blocks"], strict=True)]
        write_ratios(axis, results["n_images"], rates["our block"], ratios)
        axis.set(xlabel="images in one run", ylabel="images per second (more is better)")
        axis.set_ylim(0, 1.6 * max(rates["our block"]))
    return figure


def overhead(results: Results) -> Figure:
    """`milliseconds` at `PERCENTILES` by what ran."""
    figure, (axis,) = plots(
        "What block and engine add to the model's time",
        f"{results['machine']}, image {results['image']}, 1 prompt; numbers: medians",
    )
    milliseconds = results["milliseconds"]
    horizontal_boxes(axis, milliseconds, [COLOURS[name] for name in milliseconds], "ms")
    axis.set(xlabel="milliseconds (less is better); boxes: half of the runs, lines: 90 %")
    return figure


def remote(results: Results) -> Figure:
    """`seconds` by how many steps the engine runs at once, and by what ran."""
    figure, (axis,) = plots(
        f"A server {results['round_trip_ms']:.0f} ms away detects: our block, or core blocks",
        f"both servers on {results['machine']}; {results['n_images']} images {results['image']},"
        f" {results['n_prompts']} prompts",
    )
    for place, seconds in enumerate(results["seconds"].values()):
        ours, core = seconds["our block"], seconds["core blocks"]
        for shift, name in ((-0.2, "our block"), (0.2, "core blocks")):
            bar = axis.bar(place + shift, seconds[name], 0.36, color=COLOURS[name])
            ratio = f"\n{core / ours:.1f} x" if name == "core blocks" else ""
            axis.bar_label(bar, [f"{seconds[name]:.2f} s{ratio}"], padding=2)
            bar.set_label(name if place == 0 else "")
    axis.set_xticks(range(len(results["seconds"])), [f"steps: {name}" for name in results["seconds"]])
    axis.set_ylabel("seconds (less is better)")
    axis.margins(y=0.2)
    axis.grid(visible=False, axis="x")
    axis.legend(loc="upper right")
    return figure


def time_spent(results: Results) -> Figure:
    """For each of `models` the milliseconds of each stage."""
    figure, axes = plots(
        "Where the time of one image goes",
        f"{results['machine']}, image {results['image']}, {results['n_prompts']} prompts decoded together",
        list(results["models"]),
    )
    for axis, milliseconds in zip(axes, results["models"].values(), strict=True):
        total = sum(milliseconds.values())
        bars = axis.barh(list(milliseconds), list(milliseconds.values()), color=OURS)
        axis.bar_label(
            bars, [f"{value:.0f} ms, {value / total:.0%}" for value in milliseconds.values()], padding=3
        )
        axis.invert_yaxis()
        axis.set(xlabel="milliseconds", xlim=(0, 1.5 * max(milliseconds.values())))
        axis.grid(visible=False, axis="y")
    return figure


def dataset_export(results: Results) -> Figure:
    """`n_images` in the dataset, the `milliseconds` of one more by format, and the last by the 100th.

    Some formats may have fewer values.
    """
    figure, (axis,) = plots(
        "Adding one more image to a dataset, as it grows",
        f"{results['machine']}, image {results['image']}, {results['n_boxes']} boxes each;"
        " means of 100 to 1,000 images",
    )
    for name, milliseconds in results["milliseconds"].items():
        label = f"{name}: the last costs {results['ratios'][name]:.2f} x the 100th"
        places = results["n_images"][: len(milliseconds)]
        axis.plot(places, milliseconds, color=FORMAT_COLOURS[name], label=label, linewidth=1.2)
    highest = max(max(milliseconds) for milliseconds in results["milliseconds"].values())
    axis.set(xlabel="images in the dataset", ylabel="milliseconds (less is better)", ylim=(0, 1.4 * highest))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.legend(loc="upper left")
    return figure


def soak(results: Results) -> Figure:
    """`seconds` at `PERCENTILES` by workflow, and `memory` as seconds and GiB."""
    figure, (left, right) = plots(
        f"A server under load: {results['n_clients']} clients for {results['minutes']:g} minutes",
        f"{results['machine']}, images {results['image']}; {results['n_good']} good requests,"
        f" {results['n_bad']} bad ones, {results['n_problems']} wrong answers or errors",
        ["time until the answer, and its median (boxes: half, lines: 90 %)", "memory of the server"],
    )
    horizontal_boxes(left, results["seconds"], [OURS] * len(results["seconds"]), "s")
    left.set(xlabel="seconds")
    seconds, gib = zip(*results["memory"], strict=True)
    right.plot(seconds, gib, color=OURS, label=f"{results['growth']:+.1%} in the second half")
    right.set(xlabel="seconds", ylabel="resident memory, GiB", ylim=(0, 1.2 * max(gib)))
    right.legend(loc="lower right")
    return figure


def scores(results: Results) -> Figure:
    """For each kind of `scenes` the mean score and the share of right boxes, bin by bin, of each score."""
    figure, axes = plots(
        "Which share of boxes with a score is right?",
        f"bundled model, {results['n_scenes']} drawn scenes of each kind; right: IoU of 0.5 or more",
        [
            f"{kind} scenes: {found['right']:.0%} of {found['boxes']:,} boxes are right"
            for kind, found in results["scenes"].items()
        ],
    )
    colours = {"p_object x p_box (chosen)": OURS, "p_object": CORE}
    for axis, found in zip(axes, results["scenes"].values(), strict=True):
        axis.plot([0, 1], [0, 1], color=REFERENCE, linestyle=":", label="perfectly calibrated")
        for name, bins in found["scores"].items():
            axis.plot(bins["score"], bins["right"], marker="o", color=colours[name], label=name)
        axis.set(xlabel="score", ylabel="share of right boxes", xlim=(0, 1.03), ylim=(-0.03, 1.05))
    axes[0].legend(loc="upper left")
    return figure


DRAWINGS: dict[str, Callable[[Results], Figure]] = {
    drawing.__name__: drawing
    for drawing in (prompts, dtypes, images, overhead, remote, time_spent, dataset_export, soak, scores)
}


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which; all that have results if left out.")
    ] = None,
) -> None:
    """Draws pictures of stored results again."""
    folders = {name: FOLDERS.get(name, FOLDER) for name in DRAWINGS}
    stored = [name for name, folder in folders.items() if (folder / f"{name}.json").exists()]
    for name in names or stored:
        draw(name, folders[name])


if __name__ == "__main__":
    typer.run(main)
