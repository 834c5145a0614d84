"""A bag of words."""

from torch import Tensor, nn

from base import BaseModel


class BagOfWords(BaseModel):
    def __init__(self, num_words: int = 7) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(num_words, 8, padding_idx=0)
        self.head = nn.Linear(8, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, length) word numbers to (batch,) logits."""
        return self.head(self.embedding(tokens)).squeeze(1)
