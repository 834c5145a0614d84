"""A GPT: a pre-norm transformer that predicts the next token from those before."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base import BaseModel


class Gpt(BaseModel):
    """The embedding of tokens is also the last layer.

    Args:
        num_tokens: size of the vocabulary.
        context: tokens that the model can see at once.
        width: of the vector of each token; a multiple of ``num_heads``.
    """

    def __init__(self, num_tokens: int, context: int, width: int, num_layers: int,
                 num_heads: int) -> None:
        super().__init__()
        self.context = context
        self.token_embedding = nn.Embedding(num_tokens, width)
        self.place_embedding = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, num_heads) for _ in range(num_layers)))
        self.norm = nn.LayerNorm(width)
        for embedding in (self.token_embedding, self.place_embedding):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, length) int64 to (batch, num_tokens, length) logits of the token after each."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embedding(tokens) + self.place_embedding(places)  # (batch, length, width)
        x = self.norm(self.blocks(x))
        return (x @ self.token_embedding.weight.T).transpose(1, 2)

    @torch.no_grad()
    def continued(self, tokens: Tensor, count: int, temperature: float,
                  generator: torch.Generator) -> Tensor:
        """The tokens and ``count`` more, each drawn from what the model predicts.

        Args:
            tokens: (length,) int64.
            temperature: 1 draws as the model predicts, less prefers what is likely.
            generator: of the CPU, whatever the device, for which each draw waits.
        """
        for _ in range(count):
            logits = self(tokens[None, -self.context:])[0, :, -1] / temperature
            drawn = torch.multinomial(logits.softmax(0).cpu(), 1, generator=generator)
            tokens = torch.cat([tokens, drawn.to(tokens.device)])
        return tokens


class Block(nn.Module):
    """Attention to the tokens before, then a small network for each token; both are added."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(),
                                    nn.Linear(4 * width, width))
        self.layers_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, width) to the same."""
        x = x + self._attention(self.attention_norm(x))
        return x + self.layers(self.layers_norm(x))

    def _attention(self, x: Tensor) -> Tensor:
        heads = self.query_key_value(x).unflatten(2, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (batch, heads, length, width/heads)
        x = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.attention_out(x.transpose(1, 2).flatten(2))
