"""ROUGE-L as the PyPI package `rouge` 1.0.1 computes it (LLaVA-Interleave-Bench)."""

from collections.abc import Sequence

from tamp_lightning.metrics.text import References, references

# LLaVA-Interleave-Bench scores the start of a long reply only.
_MOST_CHARACTERS = 512


def rouge_l(reply: str, target: References) -> float:
    """F-score of the longest common subsequences of a reply (512 characters at most) and the best reference.

    Texts are cut into sentences at every "." and into words at spaces; case counts. Over all pairs of
    sentences the words of the common subsequences are united as a *set*, and precision and recall are taken
    over the distinct words. An empty reply is 0; a perfect one is 1 - 5e-9, as in the package.

    Source: PyPI rouge 1.0.1, lmms-eval llava_interleave_bench/utils.py.
    """
    said = _sentences(reply[:_MOST_CHARACTERS])
    return max(_f_score(said, _sentences(answer)) for answer in references(target))


def _sentences(text: str) -> list[list[str]]:
    # A stretch of spaces between two periods is a sentence of one empty word to the package.
    return [part.split() or [""] for part in text.split(".") if part]


def _f_score(said: list[list[str]], true: list[list[str]]) -> float:
    if not said or not true:
        return 0.0
    common = {word for expected in true for sentence in said for word in common_subsequence(expected, sentence)}
    precision = len(common) / len({word for sentence in said for word in sentence})
    recall = len(common) / len({word for sentence in true for word in sentence})
    return 2 * precision * recall / (precision + recall + 1e-8)


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """A longest common subsequence; among several, the one found going back along `second` first."""
    length = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, left in enumerate(first, 1):
        for j, right in enumerate(second, 1):
            longer = max(length[i - 1][j], length[i][j - 1])
            length[i][j] = length[i - 1][j - 1] + 1 if left == right else longer
    found: list[str] = []
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            found.append(first[i - 1])
            i, j = i - 1, j - 1
        elif length[i - 1][j] > length[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found[::-1]
