"""Starts a project of one's own: copies the template to a new folder."""

import argparse
import shutil
from pathlib import Path

from utils.errors import ConfigError, clean_exit

TEMPLATE = Path(__file__).resolve().parent
# of the template itself, not of projects made from it; patterns of names, anywhere in the tree
LEFT_OUT = (".git*", ".ci", ".venv", "venv", "env", "__pycache__", "*.py[cod]", ".*_cache",
            ".hypothesis", ".idea", ".vscode", ".DS_Store", "*.egg-info")
# the same at the top of the tree
LEFT_OUT_AT_TOP = ("README.md", "LICENSE", "new_project.py", "data", "saved", "benchmarks")
# tests of what is left out
LEFT_OUT_TESTS = ("test_new_project.py", "test_readme.py", "test_mnist_files.py", "test_ci.py",
                  "test_benchmarks.py")
NEW_GITIGNORE = "# data and runs stay out of the repository\n*\n!.gitignore\n"


def new_project(target: Path) -> None:
    """Copies the template to ``target``.

    Raises:
        ConfigError: it exists and is not an empty folder, or lies inside the template.
    """
    target = target.expanduser().resolve()
    if target.is_relative_to(TEMPLATE):
        raise ConfigError(f"{target}: lies inside the template; choose a folder outside of "
                          f"{TEMPLATE}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: exists already; choose a new or an empty folder")
    try:
        shutil.copytree(TEMPLATE, target, dirs_exist_ok=True, ignore=_left_out)
        for name in ("data", "saved"):
            (target / name).mkdir()
            (target / name / ".gitignore").write_text(NEW_GITIGNORE, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error})") from error


def _left_out(folder: str, names: list[str]) -> set[str]:
    left_out = set(shutil.ignore_patterns(*LEFT_OUT)(folder, names))
    if Path(folder) == TEMPLATE:
        left_out |= {name for name in names if name in LEFT_OUT_AT_TOP}
    if Path(folder) == TEMPLATE / "tests":
        left_out |= {name for name in names if name in LEFT_OUT_TESTS}
    return left_out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Start a project from the template.")
    parser.add_argument("target", type=Path, help="folder of the new project")
    arguments = parser.parse_args()
    with clean_exit():
        new_project(arguments.target)
        print(f"New project in {arguments.target}. Next:\n"
              f"  cd {arguments.target}\n"
              "  python train.py -c config.json\n"
              "then edit data_loader/data_loaders.py, model/ and config.json.")
