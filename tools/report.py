"""``python -m tools.report RUN ...``: a page about a run, or about several side by side.

The page is one file: no network, no scripts, pictures in it, every name and value escaped.
"""

import argparse
import base64
import html
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from logger.console import duration, number
from logger.curves import draw_curves
from tools.run_files import Row, find_runs
from tools.runs_table import read_run, setting_names, settings_of
from utils.errors import ConfigError, RunError, clean_exit
from utils.files import replaced
from utils.runs.folder import ENVIRONMENT, read_object

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; color: #222;
       padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { text-align: left; vertical-align: top; padding: .15em 1.2em .15em 0 }
th { font-weight: 600 } tr.other td { background: #fff4d6 }
td { font-variant-numeric: tabular-nums }
img { max-width: 100%; margin: .5em 0 } pre { background: #f5f5f5; padding: .6em; overflow-x: auto }
figure { display: inline-block; margin: 0 1em 1em 0; vertical-align: top }
figcaption { color: #666; font-size: .9em }
"""
FACTS = ("state", "monitor", "best", "best_epoch", "epochs", "steps", "duration", "time", "path")
NEVER_EQUAL = ("time", "path", "seconds", "duration", "memory_mb", "samples_per_second",
               "checkpoint")
PICTURES = ("confusion", "mistakes", "scatter", "calibration")  # in this order
MAX_ROWS = 200  # of a history; of a longer one the last


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.report",
                                     description="Write a page about a run, or several.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or folders with runs")
    parser.add_argument("--out", type=Path, metavar="FILE", help=(
        "default: report.html in the folder of the run; of several comparison.html in the first"))
    arguments = parser.parse_args()
    folders = find_runs(arguments.runs)
    if not folders:
        raise RunError(f"{', '.join(map(str, arguments.runs))}: there is no run")
    name = "report.html" if len(folders) == 1 else "comparison.html"
    out = arguments.out or folders[0] / name
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder; expected a file")
    text = page(folders)
    with replaced(out) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    print(f"written: {out}")


def page(folders: Sequence[Path]) -> str:
    """The page about these runs, as HTML.

    Args:
        folders: ``models/NAME/RUN`` each.
    """
    read = [read_run(folder) for folder in folders]
    rows = [row for row, _ in read]
    labels = _labels(rows)
    title = labels[0] if len(labels) == 1 else (
        f"{len(labels)} runs of {', '.join(dict.fromkeys(str(row['name']) for row in rows))}")
    parts = [f"<h1>{_text(title)}</h1>", _table(labels, rows, FACTS, _fact)]
    if histories := {label: lines for label, (_, lines) in zip(labels, read, strict=True) if lines}:
        parts += ["<h2>Curves</h2>", _curves(histories)]
        last = list(dict.fromkeys(key for lines in histories.values() for key in lines[-1]))
        parts += ["<h2>Last values</h2>", _table(
            list(histories), [lines[-1] for lines in histories.values()], last, _value)]
    names = setting_names(rows)
    defaults = settings_of({})
    changed = [name for name in names if any(
        row[name] != defaults.get(name) for row in rows if name in row)]
    names = [name for name in names if name != "$schema"]
    changed = sorted(set(changed) & set(names), key=lambda name: (  # what differs comes first
        len({row.get(name) for row in rows}) == 1, names.index(name)))
    parts += ["<h2>Settings</h2>", _table(labels, rows, changed, str)]
    others = [name for name in names if name not in changed]
    if others:
        parts.append(f"<details><summary>{len(others)} with their defaults</summary>"
                     f"{_table(labels, rows, others, str)}</details>")
    parts += _tests(labels, folders)
    for label, folder in zip(labels, folders, strict=True):
        parts += _pictures(label if len(labels) > 1 else "", folder)
    for label, folder in zip(labels, folders, strict=True):
        parts += _environment(label if len(labels) > 1 else "", folder)
    for label, lines in histories.items():
        parts += _history(label if len(labels) > 1 else "", lines)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}'
            f"</title><style>{STYLE}</style></head>\n<body>{''.join(parts)}</body></html>\n")


def _labels(rows: Sequence[Row]) -> list[str]:
    """What each run is called: as much of it as tells it from the others."""
    names = {row["name"] for row in rows}
    labels = [str(row["run"] or row["name"]) if len(names) == 1 and len(rows) > 1
              else f"{row['name']} {row['run']}".strip() for row in rows]
    return labels if len({*labels}) == len(labels) else [str(row["path"]) for row in rows]


def _text(value: Any) -> str:
    return html.escape(str(value))


def _value(value: Any) -> str:
    is_large = isinstance(value, float) and 1e4 <= abs(value) < 1e15
    return f"{value:,.0f}" if is_large else number(value)


def _fact(value: Any) -> str:
    return _value(value) if isinstance(value, float) else str(value)


def _table(labels: Sequence[str], rows: Sequence[Row], keys: Iterable[str],
           text_of: Callable[[Any], str]) -> str:
    """A line for each key, a column for each run; where several differ, the line stands out."""
    head = "" if len(labels) == 1 else "<tr><th></th>{}</tr>".format(
        "".join(f"<th>{_text(label)}</th>" for label in labels))
    lines = []
    for key in keys:
        values = [row.get(key) for row in rows]
        if all(value is None for value in values):
            continue
        texts = ["-" if value is None else duration(value) if key == "duration"
                 else text_of(value) for value in values]
        kind = ' class="other"' if len({*texts}) > 1 and key not in NEVER_EQUAL else ""
        cells = "".join(f"<td>{_text(text)}</td>" for text in texts)
        lines.append(f"<tr{kind}><th>{_text(key)}</th>{cells}</tr>")
    return f"<table>{head}{''.join(lines)}</table>"


def _curves(histories: dict[str, list[Row]]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.png"
        try:
            draw_curves(histories, path)
        except RunError as error:
            return f"<p>{_text(error)}</p>"
        return _image(path)


def _image(path: Path, caption: str = "") -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{_text(path.stem)}" src="data:image/png;base64,{content}">'
    return f"<figure>{image}<figcaption>{_text(caption)}</figcaption></figure>"


def _tests(labels: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """What test.py measured, for each checkpoint and set."""
    files = {file.name for folder in folders for file in folder.glob("*.*.json")}
    parts: list[str] = []
    for name in sorted(files):
        values = [read_object(folder / name) for folder in folders]
        if any("samples" in one for one in values):
            keys = dict.fromkeys(key for one in values for key in one)
            parts += [f"<h2>Test {_text(name.removesuffix('.json'))}</h2>",
                      _table(labels, values, keys, _value)]
    return parts


def _pictures(label: str, folder: Path) -> list[str]:
    """Those of test.py's reports of a run."""
    parts: list[str] = []
    for report in sorted((folder / "reports").glob("*")):
        pictures = sorted(report.glob("*.png"), key=lambda one: (
            PICTURES.index(one.stem) if one.stem in PICTURES else len(PICTURES), one.name))
        if pictures:
            parts += [f"<h2>Report {_text(label)}: {_text(report.name)}</h2>",
                      *(_image(picture, picture.stem) for picture in pictures)]
    return parts


def _environment(label: str, folder: Path) -> list[str]:
    made = read_object(folder / ENVIRONMENT)
    if not made:
        return []
    command, resumed = made.pop("command", ""), made.pop("resumed", [])
    rest = {key: json.dumps(value) if isinstance(value, dict) else value
            for key, value in made.items()}
    return [f"<h2>Made with {_text(label)}</h2>", _table([""], [rest], rest, str),
            f"<p>To make it again:</p><pre>python {_text(command)}</pre>",
            f"<p>It went on {len(resumed)} times.</p>" if resumed else ""]


def _history(label: str, lines: list[Row]) -> list[str]:
    keys = list(dict.fromkeys(key for line in lines for key in line))
    head = "".join(f"<th>{_text(key)}</th>" for key in keys)
    body = "".join("<tr>{}</tr>".format("".join(
        f"<td>{_text(_value(line[key]) if key in line else '-')}</td>" for key in keys))
        for line in lines[-MAX_ROWS:])
    return [f"<h2>History {_text(label)}</h2>",
            f"<details><summary>{'' if len(lines) <= MAX_ROWS else f'the last {MAX_ROWS} of '}"
            f"{len(lines)} rows</summary>"
            f"<table><tr>{head}</tr>{body}</table></details>"]


if __name__ == "__main__":
    with clean_exit():
        main()
