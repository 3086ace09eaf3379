"""Which answers are right: ties count against the model, unknown where no model can miss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from clipa_scaling.correct import pack_bits
from clipa_scaling.train.features import Setting

STEPS = 2.0**24  # of a cosine from 0 to 1, about float32's own


def count_wrong(
    query_QE: torch.Tensor,
    other_RE: torch.Tensor,
    relevant: Callable[[slice], torch.Tensor],
    setting: Setting,
) -> torch.Tensor:
    """(Q,) how many wrong answers score at least as high as each query's best right one.

    Ties count against the model, so a collapsed one is never right. Cosines are summed in float64
    and compared in STEPS: float32 products of equal rows differ by their place in the matrix.
    """
    other_ER = other_RE.double().T
    counts = []
    for start in range(0, len(query_QE), setting.batch):
        setting.go_on()
        rows = slice(start, min(start + setting.batch, len(query_QE)))
        score_qR = (query_QE[rows].double() @ other_ER * STEPS).round()
        right_qR = relevant(rows)
        best_q1 = score_qR.masked_fill(~right_qR, -torch.inf).amax(dim=1, keepdim=True)
        # Not `>=`, which is false of NaN: a broken model would have no wrong answers.
        counts.append((~(score_qR < best_q1) & ~right_qR).sum(dim=1))
    return torch.cat(counts)


def share_right(wrong_Q: torch.Tensor, k: int, others: int) -> dict[str, Any]:
    """The share of queries with a right answer among the first k, and the bits behind it.

    Unknown, None, where there are no more than k answers: no model can miss.
    """
    if others <= k:
        return {"value": None, "correct": ""}
    bits = (wrong_Q < k).cpu().numpy()
    return {"value": float(bits.mean()), "correct": pack_bits(bits)}


def share_per_class(wrong_N: torch.Tensor, label_N: torch.Tensor, classes: int) -> dict[str, Any]:
    """The mean over classes of the share of a class's pictures whose first answer is right, and n.

    Unknown, None, of a single class. Every class has a picture: a pack knows no others. `n` is of
    equally sized classes whose mean is as uncertain, C^2 / sum 1/n_c: pictures of a small class
    weigh more.
    """
    count_C = torch.bincount(label_N, minlength=classes).double()
    n = round(float(classes**2 / (1 / count_C).sum()))
    if classes <= 1:
        return {"value": None, "correct": "", "n": n}
    right_N = (wrong_N < 1).double()
    sums_C = right_N.new_zeros(classes).index_add_(0, label_N, right_N)
    return {"value": float((sums_C / count_C).mean()), "correct": "", "n": n}


def share_caption(
    query_M: torch.Tensor,
    other_M: torch.Tensor,
    caption_M: torch.Tensor,
    others: int,
    rows: slice,
) -> torch.Tensor:
    """(q, R) bool: which of R others have a caption, to the word, that the queries in `rows` have.

    Caption m is one of query_M[m]'s and one of other_M[m]'s, and equal ones have one caption_M.
    """
    mine = (query_M >= rows.start) & (query_M < rows.stop)
    shape = rows.stop - rows.start, int(caption_M.max()) + 1
    has_qG = torch.zeros(shape, dtype=torch.bool, device=query_M.device)
    has_qG[query_M[mine] - rows.start, caption_M[mine]] = True
    row, m = has_qG[:, caption_M].nonzero(as_tuple=True)
    shared_qR = has_qG.new_zeros(shape[0], others)
    shared_qR[row, other_M[m]] = True
    return shared_qR
