"""Digits without targets, as images and as rows: the same as those of the test set."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from base import BaseDataLoader
from data_loader.data_loaders import MnistDataLoader, read_mnist
from utils.errors import ConfigError, RunError


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def loader(tiny_mnist: Path) -> MnistDataLoader:
    return MnistDataLoader(str(tiny_mnist), 7, shuffle=False, training=False)


@pytest.fixture
def inputs(tiny_mnist: Path, tmp_path: Path) -> dict[str, Path]:
    """The test images as PNG files and as a CSV file."""
    images = read_mnist(tiny_mnist, "t10k")[0][:, 0].numpy()
    (tmp_path / "images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "images" / f"{number:03d}.png")
    np.savetxt(tmp_path / "rows.csv", images.reshape(len(images), -1), fmt="%d", delimiter=",")
    return {"images": tmp_path / "images", "rows": tmp_path / "rows.csv"}


@pytest.mark.parametrize("kind", ["images", "rows"])
def test_inputs_are_prepared_as_for_testing(loader: MnistDataLoader, inputs: dict[str, Path],
                                            kind: str) -> None:
    dataset, names = loader.inputs_of(inputs[kind])
    batches = [batch[0] for batch in BaseDataLoader(dataset, 7)]
    assert all(map(torch.equal, batches, (data for data, _ in loader)))
    assert len(batches) == len(loader) and len(names) == 60


def test_images_and_rows_get_what_testing_says_of_them(
        tmp_path: Path, config_dict: dict[str, Any], inputs: dict[str, Path],
        in_process: Callable[..., int]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config_dict))
    assert in_process("train.py", "-c", tmp_path / "config.json", "trainer.epochs=1") == 0
    run = next((tmp_path / "saved" / "models" / "Mnist_LeNet").iterdir())
    assert in_process("test.py", "-r", run, "--predictions", tmp_path / "tested.csv") == 0
    expected = [{key: value for key, value in line.items() if key not in ("index", "target")}
                for line in table(tmp_path / "tested.csv")]
    for path in inputs.values():
        out = tmp_path / "out.csv"
        assert in_process("test.py", "-r", run, "--predict", path, "--predictions", out) == 0
        assert [{key: value for key, value in line.items() if key not in ("name", "confidence")}
                for line in table(out)] == expected


def test_neither_folder_nor_csv_is_refused(loader: MnistDataLoader, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(ConfigError, match=r"a folder of images or a .csv file, got .*a\.txt"):
        loader.inputs_of(tmp_path / "a.txt")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_file_that_is_no_image_is_named(loader: MnistDataLoader, inputs: dict[str, Path],
                                        content: bytes) -> None:
    (inputs["images"] / "x.png").write_bytes(content)
    with pytest.raises(RunError, match=r"x\.png: expected an image"):
        loader.inputs_of(inputs["images"])


def test_image_that_is_cut_off_is_named(loader: MnistDataLoader, inputs: dict[str, Path]) -> None:
    path = inputs["images"] / "003.png"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(RunError, match=r"003\.png: expected an image"):
        loader.inputs_of(inputs["images"])


@pytest.mark.parametrize(("mode", "size"), [
    ("L", (28, 27)), ("L", (56, 56)), ("RGB", (28, 28)), ("I;16", (28, 28)), ("LA", (28, 28))])
def test_image_of_another_kind_is_refused(loader: MnistDataLoader, inputs: dict[str, Path],
                                          mode: str, size: tuple[int, int]) -> None:
    """It would be another image if it were made to fit."""
    Image.new(mode, size).save(inputs["images"] / "x.png")
    with pytest.raises(RunError, match=r"x\.png: expected 28 x 28 grey .*got \d+ x \d+ of mode"):
        loader.inputs_of(inputs["images"])


@pytest.mark.parametrize("value", ["-1", "256", "0.5", "1e300"])
def test_value_that_is_no_pixel_is_refused(loader: MnistDataLoader, tmp_path: Path,
                                           value: str) -> None:
    (tmp_path / "a.csv").write_text(",".join([value, *["0"] * 783]))
    with pytest.raises(RunError, match="expected whole numbers from 0 to 255, got"):
        loader.inputs_of(tmp_path / "a.csv")


def test_row_of_another_length_is_refused(loader: MnistDataLoader, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",".join(["0"] * 783))
    with pytest.raises(RunError, match="expected 784 values, got 783"):
        loader.inputs_of(tmp_path / "a.csv")
