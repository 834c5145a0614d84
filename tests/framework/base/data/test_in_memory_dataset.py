import numpy as np
import pytest
import torch

from base import BaseDataLoader, InMemoryDataset, as_fetched

IMAGES = torch.arange(40, dtype=torch.uint8).view(10, 1, 2, 2)
LABELS = torch.arange(10)


def memmap(folder, array):
    mapped = np.memmap(folder / "field.bin", array.dtype, "w+", shape=array.shape)
    mapped[:] = array
    return mapped


@pytest.mark.parametrize("kind", ["tensor", "numpy", "memmap"])
def test_batch_has_the_rows_in_the_order_asked_for(kind, tmp_path):
    field = {"tensor": lambda: IMAGES, "numpy": IMAGES.numpy,
             "memmap": lambda: memmap(tmp_path, IMAGES.numpy())}[kind]()
    images, labels = InMemoryDataset(field, LABELS).__getitems__([7, 0, 7])
    assert torch.equal(images, IMAGES[[7, 0, 7]]) and images.dtype == torch.uint8
    assert labels.tolist() == [7, 0, 7]


def test_memmap_is_not_read_or_copied_as_a_whole(tmp_path):
    field = memmap(tmp_path, IMAGES.numpy())
    assert InMemoryDataset(field).fields[0] is field


def test_batches_do_not_share_memory_with_the_fields(tmp_path):
    field = IMAGES.numpy().copy()
    InMemoryDataset(field).__getitems__([3])[0].zero_()
    assert np.array_equal(field, IMAGES.numpy())


def test_transform_gets_the_whole_batch_of_the_first_field():
    dataset = InMemoryDataset(IMAGES, LABELS, transform=lambda images: images.float() / 2)
    images, labels = dataset.__getitems__([1, 2])
    assert torch.equal(images, IMAGES[[1, 2]].float() / 2) and labels.tolist() == [1, 2]


@pytest.mark.parametrize("index", [0, 9, -1])
def test_single_sample_is_a_row_of_each_field(index):
    image, label = InMemoryDataset(IMAGES, LABELS.numpy())[index]
    assert torch.equal(image, IMAGES[index]) and int(label) == int(LABELS[index])


@pytest.mark.parametrize("field", [IMAGES, IMAGES.numpy()])
def test_index_beyond_the_end_is_an_index_error(field):
    with pytest.raises(IndexError):
        InMemoryDataset(field)[10]


@pytest.mark.parametrize("fields", [(), (IMAGES, LABELS[:9])])
def test_no_field_or_fields_of_different_lengths_are_refused(fields):
    with pytest.raises(ValueError, match="fields of one length"):
        InMemoryDataset(*fields)


@pytest.mark.parametrize("options", [{}, {"collate_fn": as_fetched}])
def test_loader_gives_batches_as_fetched(options):
    loader = BaseDataLoader(InMemoryDataset(IMAGES, LABELS), 4, **options)
    assert [tuple(images.shape) for images, _ in loader] == [(4, 1, 2, 2)] * 2 + [(2, 1, 2, 2)]
