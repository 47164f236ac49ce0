"""What a token tells the first block beside itself: the tokens before it, and its place in a line.

Shapes: b sequences, t positions, d = n_embd, n = line_sums.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.config import ModelConfig
from gpt.kv_cache import Cache


class NgramEmbedding(nn.Module):
    """What the last two, three, four and five tokens are, a quarter of the vector each, (b, t, d).

    What a letter means depends on the letters before it; here a table knows, where the first
    layers would have to find out. A lookup costs no product, so a small model learns far more in
    the same time (docs/decisions.md). Sequences with the same remainder by the number of rows share
    one, as in the hashed n-grams of Pagnoni et al. 2024. A prime number of rows mixes them best:
    with powers of two the first tokens of a sequence hardly count.
    """

    SIZES = (2, 3, 4, 5)

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.rows = config.ngram_rows
        self.symbols = vocab_size + 1
        # Parts of equal width, the first ones wider by one where the width is no multiple.
        widths = [(config.n_embd + place) // len(self.SIZES) for place in range(len(self.SIZES))]
        self.tables = nn.ModuleList(nn.Embedding(self.rows, width) for width in reversed(widths))

    def forward(self, ids_bt: Tensor) -> Tensor:
        # The remainder of an n-gram as a number of n digits; 0 is "nothing there", before the text
        # begins.
        digits_bt = row_bt = ids_bt + 1
        parts = []
        for table in self.tables:
            row_bt = (F.pad(row_bt, (1, 0))[:, :-1] * self.symbols + digits_bt) % self.rows
            parts.append(table(row_bt))
        return torch.cat(parts, dim=-1)


class LinePosition(nn.Module):
    """Where in its line a token stands, (b, t, d): its column, and n learned sums over the line.

    A token adds n numbers of its own to the sums, for instance a syllable; after a line break all
    begin again at 0. Attention averages, so it can hardly count, and a poet has to
    (docs/decisions.md). Where the line begins before what the model sees, the place is unknown.
    """

    COLUMNS = 80  # a line may be longer; its last columns are then one

    def __init__(self, config: ModelConfig, line_breaks: Sequence[int]) -> None:
        super().__init__()
        self.line_breaks = tuple(line_breaks)
        self.columns = nn.Embedding(self.COLUMNS + 1, config.n_embd)  # and one for unknown
        self.values = nn.Linear(config.n_embd, config.line_sums, bias=False)
        self.out = nn.Linear(config.line_sums, config.n_embd, bias=False)

    def forward(self, x_btd: Tensor, ids_bt: Tensor, cache: Cache | None = None) -> Tensor:
        breaks = torch.tensor(self.line_breaks, dtype=ids_bt.dtype, device=ids_bt.device)
        positions_t = torch.arange(ids_bt.shape[1], device=ids_bt.device)
        # The position of the last break up to each token; -1 where there is none.
        last_bt = torch.where(torch.isin(ids_bt, breaks), positions_t, -1).cummax(dim=1).values
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
