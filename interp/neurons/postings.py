"""What can be looked up in an atlas, and the scores of the rows that have it in their lists."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float, Int


class Entries:
    """What can be looked up in an atlas with a vocabulary (id, token, word), by number.

    A word family is an entry. So is a token's text where it is not all of its family: another token
    of the family is its rival. Otherwise the text has the family's number.
    """

    def __init__(self, vocabulary: pd.DataFrame) -> None:
        ids = vocabulary["id"].to_numpy(int)
        family, words = pd.factorize(vocabulary["word"].where(vocabulary["word"] != ""))
        text, texts = pd.factorize(vocabulary["token"])
        own = np.bincount(text)[text] != np.bincount(family + 1)[family + 1]
        of_text = np.where(own | (family < 0), text + len(words), family)
        self._families, self._texts = np.full((2, ids.max(initial=-1) + 1), -1)
        self._families[ids] = family
        self._texts[ids] = np.where(of_text == family, -1, of_text)
        entry_of_text = np.zeros(len(texts), int)
        entry_of_text[text] = of_text
        self._names = pd.DataFrame(
            {
                "text": [*words, *texts],
                "exact": np.repeat([False, True], [len(words), len(texts)]),
                "entry": np.concatenate([np.arange(len(words)), entry_of_text]),
            }
        )
        self._counts = np.zeros(len(self._names), np.int64)

    def postings(self, rows: pa.Table, start: int) -> pa.Table:
        """`entry`, `row` and `score` of each hit in some rows of an atlas (ids, logits, z, margin,
        std); `start` is the number of the first."""
        ids, lengths = _rectangle(rows["ids"].combine_chunks())
        logits, _ = _rectangle(rows["logits"].combine_chunks())
        z, std, margin = (rows[x].to_numpy().astype(float)[:, None] for x in ("z", "std", "margin"))
        logits = logits.astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = z - np.abs(logits[:, :1] - logits) / std
        there = rows["z"].is_valid().to_numpy()[:, None]
        found = []
        for entry_of, leads in ((self._families, margin[:, 0]), (self._texts, None)):
            known = there & (ids >= 0) & (ids < len(entry_of))
            entry = np.where(known, entry_of[np.where(known, ids, 0)], -1)
            row, place = np.nonzero(_firsts(entry))
            found.append((entry[row, place], row, _scores(entry, z, leads, lengths, row, place)))
        entry, row, score = (np.concatenate(each) for each in zip(*found, strict=True))
        self._counts += np.bincount(entry, minlength=len(self._counts))
        score = np.where(np.isnan(score), -np.inf, score)  # NaN is the last in a ranking
        made = {"entry": entry.astype(np.int32), "row": (row + start).astype(np.int32)}
        return pa.table({**made, "score": score})

    @property
    def table(self) -> pd.DataFrame:
        """`index/words`, once all rows were seen."""
        entry = self._names["entry"].to_numpy()
        start = np.cumsum(self._counts) - self._counts
        places = {"start": start[entry], "count": self._counts[entry]}
        found = self._names[["text", "exact"]].assign(**places)
        return found[found["count"] > 0].reset_index(drop=True)


def _rectangle(lists: pa.ListArray) -> tuple[np.ndarray, Int[np.ndarray, " n"]]:
    """[n, k], lists beside each other, shorter ones filled up with -1; and their lengths."""
    offsets = lists.offsets.to_numpy()
    lengths, values = np.diff(offsets), lists.values.to_numpy()[offsets[0] : offsets[-1]]
    width = lengths.max(initial=1)
    if (lengths == width).all():
        return values.reshape(-1, width), lengths
    filled = np.full((len(lengths), width), -1, values.dtype)
    filled[np.arange(width) < lengths[:, None]] = values
    return filled, lengths


def _firsts(entry: Int[np.ndarray, "n k"]) -> np.ndarray:
    """Where an entry stands in a list for the first time."""
    first = entry >= 0
    for place in range(1, entry.shape[1]):
        first[:, place] &= (entry[:, :place] != entry[:, place : place + 1]).all(1)
    return first


def _scores(
    entry: Int[np.ndarray, "n k"],
    z: Float[np.ndarray, "n k"],
    leads: Float[np.ndarray, " n"] | None,
    lengths: Int[np.ndarray, " n"],
    row: Int[np.ndarray, " hits"],
    place: Int[np.ndarray, " hits"],
) -> Float[np.ndarray, " hits"]:
    """The scores of hits, in the arithmetic of `search.find`: z plus the lead over the rival, the
    first of the list that is of another entry.

    Args:
        leads: the margin of each row, which is the lead of its first token's word.
    """
    others = (entry != entry[:, :1]) & (np.arange(entry.shape[1]) < lengths[:, None])
    rival = np.where(others.any(1), others.argmax(1), lengths - 1)
    own = z[row, place]
    lead = own - z[row, np.where(place > 0, 0, rival[row])]
    if leads is not None:
        lead = np.where(place > 0, lead, leads[row])
    scores: Float[np.ndarray, " hits"] = own + lead
    return scores
