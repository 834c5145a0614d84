"""Curves of one or several histories, drawn into a PNG file."""

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from logger.console import VALID
from logger.history import COUNTERS
from utils.config.misspellings import suggestion
from utils.errors import ConfigError, RunError
from utils.files import replaced

MAX_PANELS = 12
MAX_LEGEND = 20  # entries; more are counted
MAX_LABEL = 60  # characters
DPI = 110
STYLES: tuple[Any, ...] = ("--", "-", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))

Histories = dict[str, list[dict[str, Any]]]


def draw_curves(histories: Histories, path: Path, names: Iterable[str] | None = None) -> None:
    """Draws the values of histories over their epochs, or over steps where an epoch has several
    rows.

    Each name has axes of its own, with training and validation in it; learning rates have one at
    the end. Values that are not finite are gaps.

    Args:
        histories: the rows of a run, as ``history.jsonl`` has them, by what the legend calls it.
        path: of the PNG file; a reader sees the one before or the whole new one.
        names: values to draw, with their ``val_``; None for all but counters and times.

    Raises:
        ConfigError: one of ``names`` is in no history.
        RunError: there is nothing to draw, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = panels_of(histories, names)
    shown = dict(list(panels.items())[:MAX_PANELS])
    num_columns = 1 if len(shown) == 1 else 2 if len(shown) <= 4 else 3
    num_rows = math.ceil(len(shown) / num_columns)
    legend_rows = min(len(histories), MAX_LEGEND + 1) if len(histories) > 1 else 0
    size = (7.5, 4.4) if len(shown) == 1 else (4.3 * num_columns, 3.1 * num_rows)
    figure = Figure(figsize=(size[0], size[1] + 0.11 * legend_rows), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    over, kinds = x_name(histories), _kinds(panels)
    for index, (base, keys) in enumerate(shown.items()):
        axes = figure.add_subplot(num_rows, num_columns, index + 1)
        _draw_panel(axes, histories, base, {key: kinds[key] for key in keys}, over)
    if len(histories) > 1:
        _draw_legend(figure, list(histories))
    if len(panels) > MAX_PANELS:
        rest = ", ".join(list(panels)[MAX_PANELS:])
        note = f"{len(panels) - MAX_PANELS} more values are not drawn: {plain_text(rest, 100)}"
        figure.suptitle(note, fontsize="small").set_parse_math(False)
    _write(canvas, path)


def panels_of(histories: Histories, names: Iterable[str] | None = None) -> dict[str, list[str]]:
    """The values of each axes, by the name that those of training and validation share.

    Raises:
        ConfigError: one of ``names`` is in no history.
        RunError: there is no number at all.
    """
    known = list(dict.fromkeys(key for rows in histories.values() for row in rows
                               for key, value in row.items() if is_figure(value)))
    wanted = [key for key in known if key not in COUNTERS] if names is None else list(names)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"no history has numbers under {name!r}{suggestion(name, known)}; "
                              f"they have {', '.join(known) or 'none'}")
    if not wanted:
        raise RunError("the history has no values to draw")
    bases = base_names(known)
    panels: dict[str, list[str]] = {}
    for name in wanted:
        panels.setdefault(bases[name], []).append(name)
    rates = panels.pop("lr", None)
    return panels if rates is None else panels | {"lr": rates}


def base_names(keys: list[str]) -> dict[str, str]:
    """What each value is of: ``loss`` for ``loss``, ``val_loss`` and ``val_SET_loss``; ``lr`` for
    each learning rate."""
    training = [key for key in keys if not key.startswith(VALID)]
    bases = {key: "lr" if key == "lr" or key.startswith("lr_") else key for key in training}
    sets = set()
    for key in keys:
        if key.startswith(VALID):
            rest = key.removeprefix(VALID)
            ends = [name for name in training if rest.endswith(f"_{name}")]
            bases[key] = rest if rest in training else max(ends, key=len, default=rest)
            if bases[key] != rest:
                sets.add(rest.removesuffix(bases[key]))
    for key, base in bases.items():  # a value that only the validation has
        prefix = max((one for one in sets if base.startswith(one)), key=len, default="")
        if key.startswith(VALID) and key == VALID + base:
            bases[key] = base.removeprefix(prefix)
    return bases


def x_name(histories: Histories) -> str:
    """``step`` if an epoch has several rows, or rows have none; else ``epoch``."""
    for rows in histories.values():
        epochs = [row.get("epoch") for row in rows]
        if not all(map(is_figure, epochs)) or len(set(epochs)) < len(epochs):
            return "step"
    return "epoch"


def is_figure(value: Any) -> bool:
    """Whether a value is a number, NaN and infinities among them."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plain_text(text: str, length: int = MAX_LABEL) -> str:
    """On one line, without what a terminal obeys or a font lacks, shortened in the middle."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if len(text) <= length:
        return text
    tail = (length - 2) // 2
    return f"{text[:length - 2 - tail]}..{text[len(text) - tail:]}"


def _kinds(panels: dict[str, list[str]]) -> dict[str, tuple[str, int]]:
    """What the legend calls each value, and its number: of training, of each set of validation."""
    numbers = {"train": 0}
    kinds = {}
    for base, keys in panels.items():
        for index, key in enumerate(keys):
            kind = plain_text(key, 30) if base == "lr" else "train"
            if key.startswith(VALID):
                part = key.removeprefix(VALID).removesuffix(base).rstrip("_")
                kind = plain_text(f"valid {part}".rstrip(), 30)
            kinds[key] = kind, index if base == "lr" else numbers.setdefault(kind, len(numbers))
    return kinds


def _draw_panel(axes: Any, histories: Histories, base: str, keys: dict[str, tuple[str, int]],
                over: str) -> None:
    from matplotlib.ticker import LogFormatter, MaxNLocator

    everything: list[float] = []
    for index, (label, rows) in enumerate(histories.items()):
        for key, (_, number) in keys.items():
            points = _points(rows, key, over)
            everything += [y for _, y in points]
            color = f"C{number % 10}" if len(histories) == 1 else _color(index, len(histories))
            style = "-" if 1 in (len(histories), len(keys)) else STYLES[number % len(STYLES)]
            axes.plot([x for x, _ in points], [y for _, y in points], color=color, linestyle=style,
                      linewidth=1.3, marker="o" if len(points) <= 25 else "", markersize=3,
                      label=label)
    finite = [value for value in everything if math.isfinite(value)]
    if not finite:
        axes.text(0.5, 0.5, "no finite value", ha="center", transform=axes.transAxes)
    elif _wants_log(finite, is_rate=base == "lr"):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    axes.set_title(plain_text(next(iter(keys)) if len(keys) == 1 else base), fontsize="medium",
                   parse_math=False)
    axes.set_xlabel(over)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(alpha=0.3)
    if len(keys) > 1:
        _draw_kinds(axes, list(keys.values()), by_style=len(histories) > 1)


def _wants_log(values: list[float], *, is_rate: bool) -> bool:
    """Of numbers above 0, rates that change, and other values that span more than three powers of
    ten."""
    return min(values) > 0 and max(values) > (1 if is_rate else 1000) * min(values)


def _draw_kinds(axes: Any, kinds: list[tuple[str, int]], *, by_style: bool) -> None:
    """The legend of one axes: which line is training, which validation."""
    from matplotlib.lines import Line2D

    handles = []
    for _, number in kinds[:MAX_LEGEND]:
        style: Any = STYLES[number % len(STYLES)] if by_style else "-"
        handles.append(Line2D([], [], color="0.3" if by_style else f"C{number % 10}",
                              linestyle=style, linewidth=1.3))
    legend = axes.legend(handles, [kind for kind, _ in kinds[:MAX_LEGEND]], fontsize="small",
                         framealpha=0.6, handlelength=2.4)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_legend(figure: Any, labels: list[str]) -> None:
    """The legend of all axes: which color is which history."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_color(index, len(labels)), linewidth=2)
               for index in range(len(labels))][:MAX_LEGEND]
    texts = [" " + plain_text(label) for label in labels][:MAX_LEGEND]  # "_" would hide one
    if len(labels) > MAX_LEGEND:
        handles.append(Line2D([], [], linestyle=""))
        texts.append(f"and {len(labels) - MAX_LEGEND} more")
    widest = max(map(len, texts)) * 0.075 + 0.6  # inches
    legend = figure.legend(handles, texts, loc="outside lower left", fontsize="small",
                           ncols=max(1, int(figure.get_figwidth() / widest)), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _color(index: int, count: int) -> Any:
    if count <= 10:
        return f"C{index}"
    from matplotlib import colormaps

    return colormaps["turbo"](index / (count - 1))


def _points(rows: list[dict[str, Any]], key: str, over: str) -> list[tuple[float, float]]:
    """(x, value) of the rows that have both; NaN, a gap, for what cannot be drawn."""
    found = []
    for row in rows:
        if is_figure(row.get(over)) and is_figure(row.get(key)):
            x, y = _drawable(row[over]), _drawable(row[key])
            found += [(x, y)] if math.isfinite(x) else []
    return found


def _drawable(value: float) -> float:
    return float(value) if abs(value) < 1e100 else math.nan  # also of an integer beyond floats


def _write(canvas: Any, path: Path) -> None:
    with replaced(path) as temporary, open(temporary, "wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the font lacks a letter of a name
        canvas.print_png(file)
