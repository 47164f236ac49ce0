"""What the first block learns about a token besides itself: the tokens before it
(`model.ngram_rows`) and its position in its line (`model.line_sums`).

Shapes are those of gpt/__init__.py; n = line_sums.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.config import ModelConfig
from gpt.kv_cache import KVCache


class NgramEmbedding(nn.Module):
    """The last two, three, four and five tokens, a quarter of the vector each, (b, t, d).

    What a letter means depends on the letters before it; a table knows what the first layers would
    have to find out, and a lookup costs no matmul, so a small model learns far more in the same
    time (docs/decisions.md). N-grams with the same remainder modulo the number of rows share a row,
    as the hashed n-grams of Pagnoni et al. 2024 do. A prime number of rows mixes them best: with
    powers of two the first tokens of an n-gram hardly count.
    """

    SIZES = (2, 3, 4, 5)

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.rows = config.ngram_rows
        self.symbols = vocab_size + 1
        # Equal widths, the first ones wider by one where n_embd is no multiple of their number.
        widths = [(config.n_embd + index) // len(self.SIZES) for index in range(len(self.SIZES))]
        self.tables = nn.ModuleList(nn.Embedding(self.rows, width) for width in reversed(widths))

    @torch.no_grad()
    def init_weights(self, std: float, rng: torch.Generator) -> None:
        """N(0, std)."""
        for weight in self.parameters():
            weight.normal_(0.0, std, generator=rng)

    def forward(self, ids_bt: Tensor, cache: KVCache | None = None) -> Tensor:
        t = ids_bt.shape[1]
        if cache is not None:
            ids_bt = cache.with_recent(ids_bt, max(self.SIZES) - 1)
        # An n-gram is a number of n digits in base `symbols`, taken modulo `rows`; digit 0 stands
        # for the positions before the text.
        digits_bt = hash_bt = ids_bt + 1
        chunks = []
        for table in self.tables:
            hash_bt = (F.pad(hash_bt, (1, 0))[:, :-1] * self.symbols + digits_bt) % self.rows
            chunks.append(table(hash_bt[:, -t:]))
        return torch.cat(chunks, dim=-1)


class LinePosition(nn.Module):
    """Where in its line a token is, (b, t, d): its column, and n learned sums over the line.

    A token adds n values of its own to the sums, a syllable for instance; after a line break all
    start again at 0. Attention averages, so it can hardly count, and a poet has to
    (docs/decisions.md). Where the line starts before the context, the position is unknown.
    """

    COLUMNS = 80  # all columns of a line beyond these count as the last

    break_ids: Tensor

    def __init__(self, config: ModelConfig, line_breaks: Sequence[int]) -> None:
        super().__init__()
        self.line_breaks = tuple(line_breaks)
        self.columns = nn.Embedding(self.COLUMNS + 1, config.n_embd)  # the last: unknown
        self.values = nn.Linear(config.n_embd, config.line_sums, bias=False)
        self.out = nn.Linear(config.line_sums, config.n_embd, bias=False)
        break_ids = torch.tensor(self.line_breaks, dtype=torch.int64, device="cpu")
        self.register_buffer("break_ids", break_ids, persistent=False)

    @torch.no_grad()
    def init_weights(self, std: float, rng: torch.Generator) -> None:
        """N(0, std), and 0 for the sums' way into the residual stream."""
        self.columns.weight.normal_(0.0, std, generator=rng)
        self.values.weight.normal_(0.0, std, generator=rng)
        self.out.weight.zero_()

    def forward(self, x_btd: Tensor, ids_bt: Tensor, cache: KVCache | None = None) -> Tensor:
        positions_t = torch.arange(ids_bt.shape[1], device=ids_bt.device)
        # The position of the last break up to each token; -1 where there is none.
        is_break_bt = torch.isin(ids_bt, self.break_ids)
        last_bt = torch.where(is_break_bt, positions_t, -1).cummax(dim=1).values
        begun_bt1 = last_bt[..., None] >= 0
        # The column is a sum too, to which each token adds 1.
        ones_bt1 = torch.ones_like(x_btd[..., :1])
        sums_btn = torch.cat([ones_bt1, self.values(x_btd)], dim=-1).cumsum(dim=1)
        before_btn = sums_btn.gather(1, last_bt.clamp(min=0)[..., None].expand_as(sums_btn))
        since_btn = torch.where(begun_bt1, sums_btn - before_btn, 0.0)
        if cache is not None:
            since_btn, begun_bt1 = cache.since_break(sums_btn, since_btn, begun_bt1)
        column_bt = since_btn[..., 0].long().clamp(max=self.COLUMNS - 1)
        column_bt = torch.where(begun_bt1[..., 0], column_bt, self.COLUMNS)
        y_btd: Tensor = self.columns(column_bt) + self.out(since_btn[..., 1:])
        return y_btd
