"""Starts a project of one's own: copies the template, or one of its examples, to a new folder."""

import argparse
import shutil
from pathlib import Path

from utils.errors import ConfigError, clean_exit

TEMPLATE = Path(__file__).resolve().parent
# of the template itself, not of projects made from it; patterns of names, anywhere in the tree
LEFT_OUT = (".git", ".gitignore", ".github", ".ci", ".venv", "venv", "env", "__pycache__",
            "*.py[cod]", ".*_cache", ".hypothesis", ".idea", ".vscode", ".DS_Store", "*.egg-info")
# the same at the top of the tree, and of its tests
LEFT_OUT_AT_TOP = ("README.md", "CONTRIBUTING.md", "LICENSE", "new_project.py", "saved",
                   "benchmarks", "examples")
EXAMPLES = TEMPLATE / "examples"
LEFT_OUT_DOCS = ("migrating.md",)
LEFT_OUT_TESTS = ("framework", "example", "conftest.py")
README = """# {name}

Started from a PyTorch project template.

```bash
python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements-dev.txt
python train.py -c config.json                     # train
python train.py --resume latest                    # go on with the newest run
python test.py --resume latest                     # evaluate its best model
tensorboard --logdir saved/log/                    # look
python -m pytest                                   # is the project still sound?
```

What to edit: `data_loader/data_loaders.py` (the data), `model/` (model, losses, metrics),
`trainer/trainer.py` (one step, one epoch, one validation) and `config.json`. `base/`, `logger/`,
`utils/` and `parse_config.py` are the framework. All keys of the config are in `docs/config.md`,
whole files for many tasks in `docs/recipes.md`; those define a `Trainer` of their own in
`trainer/__init__.py`, which leaves `trainer/trainer.py` as it is: either way will do.
"""


def new_project(target: Path, example: str | None = None) -> None:
    """Copies the template to ``target``, and the files of an example over it.

    Raises:
        ConfigError: it exists and is not an empty folder, or lies inside the template; or there is
            no such example.
    """
    if example is not None and example not in example_names():
        raise ConfigError(f"--example {example}: there is no such example; there are "
                          f"{', '.join(example_names())}")
    target = target.expanduser().resolve()
    if target.is_relative_to(TEMPLATE):
        raise ConfigError(f"{target}: lies inside the template; choose a folder outside of "
                          f"{TEMPLATE}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: exists already; choose a new or an empty folder")
    try:
        shutil.copytree(TEMPLATE, target, dirs_exist_ok=True, ignore=_left_out)
        text = README.format(name=target.name)
        if example is not None:
            shutil.copytree(EXAMPLES / example, target, dirs_exist_ok=True, ignore=_left_out)
            text += "\n#" + (target / "README.md").read_text(encoding="utf-8")  # one level down
        (target / "README.md").write_text(text, encoding="utf-8")
        kept = (TEMPLATE / ".gitignore").read_text(encoding="utf-8").splitlines()
        (target / ".gitignore").write_text("".join(
            f"{line}\n" for line in kept if not line.startswith("!")), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error})") from error


def example_names() -> list[str]:
    """The examples that there are."""
    return sorted(path.name for path in EXAMPLES.iterdir() if (path / "README.md").is_file())


def _left_out(folder: str, names: list[str]) -> set[str]:
    left_out = set(shutil.ignore_patterns(*LEFT_OUT)(folder, names))
    if Path(folder) == TEMPLATE:
        left_out |= set(LEFT_OUT_AT_TOP)
    if Path(folder) == TEMPLATE / "docs":
        left_out |= set(LEFT_OUT_DOCS)
    if Path(folder) == TEMPLATE / "tests":
        left_out |= set(LEFT_OUT_TESTS)
    return left_out & set(names)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Start a project from the template.")
    parser.add_argument("target", type=Path, help="folder of the new project")
    parser.add_argument("--example", metavar="NAME", help=(
        f"start from an example instead of MNIST: {', '.join(example_names())}"))
    arguments = parser.parse_args()
    with clean_exit():
        new_project(arguments.target, arguments.example)
        print(f"New project in {arguments.target}. Next:\n"
              f"  cd {arguments.target}\n"
              "  python train.py -c config.json\n"
              "then edit data_loader/data_loaders.py, model/ and config.json.\n"
              "After git init each run notes its commit.")
