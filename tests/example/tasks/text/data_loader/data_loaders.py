"""Sentences of different lengths, as a stream, with their labels as words."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, IterableDataset

from base import BaseDataLoader

SENTENCES = ["good fine great", "bad awful", "fine", "poor bad bad awful", "great good"] * 8
WORDS = ["<pad>", "good", "fine", "great", "bad", "awful", "poor"]


class SentenceStream(IterableDataset[Any]):
    def __init__(self, sentences: list[str]) -> None:
        self.sentences = sentences

    def __iter__(self) -> Iterator[tuple[list[int], str]]:
        for sentence in self.sentences:
            words = sentence.split()
            yield [WORDS.index(word) for word in words], (
                "positive" if words[0] in WORDS[1:4] else "negative")


class SentenceLoader(BaseDataLoader):
    def __init__(self, batch_size: int, training: bool = True) -> None:
        self.training = training
        super().__init__(SentenceStream(SENTENCES if training else SENTENCES[:7]), batch_size,
                         collate_fn=collate)

    def split_validation(self) -> Any:
        return DataLoader(SentenceStream(SENTENCES[:9]), batch_size=4, collate_fn=collate)


def collate(samples: list[Any]) -> tuple[torch.Tensor, list[str]]:
    tokens = [torch.tensor(tokens) for tokens, _ in samples]
    return pad_sequence(tokens, batch_first=True), [label for _, label in samples]
