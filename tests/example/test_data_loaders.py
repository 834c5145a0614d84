import gzip
import shutil
import sys

import pytest
import torch

from data_loader.data_loaders import MEAN, STD, MnistDataLoader, normalise, read_mnist
from utils.errors import RunError

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.fixture
def folder(tmp_path, tiny_mnist, monkeypatch):
    """A copy of the tiny data that a test may spoil; nothing can be downloaded."""
    shutil.copytree(tiny_mnist / "MNIST", tmp_path / "MNIST")
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    return tmp_path


def spoil(folder, name, change):
    path = folder / "MNIST" / "raw" / name
    path.write_bytes(change(path.read_bytes()))


def test_batches_are_normalised_images_and_labels(tiny_mnist):
    images, labels = next(iter(MnistDataLoader(str(tiny_mnist), 20)))
    assert images.shape == (20, 1, 28, 28) and images.dtype == torch.float32
    assert labels.shape == (20,) and labels.dtype == torch.int64


@pytest.mark.parametrize(("training", "samples"), [(True, 200), (False, 60)])
def test_training_and_test_set_are_apart(tiny_mnist, training, samples):
    assert MnistDataLoader(str(tiny_mnist), 20, training=training).n_samples == samples


def test_options_and_split_reach_the_loader(tiny_mnist):
    loader = MnistDataLoader(str(tiny_mnist), 16, True, 0.1, 0, drop_last=True)
    assert (loader.n_samples, len(loader), loader.split_validation().n_samples) == (180, 11, 20)


def test_images_belong_to_their_labels(tiny_mnist):
    images, labels = read_mnist(tiny_mnist, "train")
    rows = images[:, 0].float().mean(2)  # the tiny digits have 4 bright rows at 2 + 2 * label
    offset = rows.argmax(1) - 2 - 2 * labels
    assert offset.min() >= 0 and offset.max() < 4


def test_pixels_are_normalised_as_one_would_by_hand():
    pixels = torch.arange(256, dtype=torch.uint8)
    expected = (pixels.double() / 255 - MEAN) / STD
    # float32 arithmetic in another order
    assert torch.allclose(normalise(pixels).double(), expected, atol=1e-6)


def test_files_may_be_unpacked(folder):
    raw = folder / "MNIST" / "raw"
    before = read_mnist(folder, "train")
    for name in (IMAGES, LABELS):
        (raw / name[:-3]).write_bytes(gzip.decompress((raw / name).read_bytes()))
        (raw / name).unlink()
    assert all(map(torch.equal, before, read_mnist(folder, "train")))


@pytest.mark.parametrize("change", [
    lambda packed: b"", lambda packed: packed[:len(packed) // 2], lambda packed: packed[:-1],
    lambda packed: b"<html>not found</html>",
    lambda packed: packed[:100] + bytes([packed[100] ^ 255]) + packed[101:],
    lambda packed: packed[:12] + b"\xff" * 50 + packed[62:],
    lambda packed: gzip.compress(gzip.decompress(packed)[:-1]),
    lambda packed: gzip.compress(b"\0\0\x0d\3" + gzip.decompress(packed)[4:]),
    lambda packed: gzip.compress(b"\0\0\x08\3")],
    ids=["empty", "half", "cut", "html", "bit", "deflate", "pixel", "type", "head"])
def test_damaged_file_is_named_with_the_remedy(folder, change):
    spoil(folder, IMAGES, change)
    with pytest.raises(RunError, match=rf"{IMAGES}: damaged .*delete it"):
        read_mnist(folder, "train")


def test_labels_must_be_as_many_as_images(folder):
    spoil(folder, LABELS, lambda packed: gzip.compress(b"\0\0\x08\1\0\0\0\3abc"))
    with pytest.raises(RunError, match="200 images of train, but 3 labels"):
        read_mnist(folder, "train")


def test_missing_data_without_download_says_which_files_to_put_where(folder):
    (folder / "MNIST" / "raw" / IMAGES).unlink()
    with pytest.raises(RunError, match=rf"could not be downloaded.*{IMAGES}"):
        read_mnist(folder, "train")
