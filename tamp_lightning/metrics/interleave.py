"""Categories of LLaVA-Interleave-Bench: the mean of its sub-tasks' categories is its score."""

from collections.abc import Sequence

_SUB_TASKS = {
    "Spot-the-Diff": ("Spot-the-Diff", "Birds-to-Words", "CLEVR-Change"),
    "Image-Edit": ("IEdit", "HQ-Edit", "MagicBrush"),
    "Visual-Story-Telling": ("AESOP", "FlintstonesSV", "PororoSV", "VIST"),
    "Visual-Cloze": ("COMICS_Dialogue", "RecipeQA_VisualCloze"),
    "Text-Rich-VQA": ("WebQA", "TQA", "OCR-VQA", "DocVQA"),
    "Multi-Image-VQA": (
        "MIT-States_StateCoherence",
        "MIT-States_PropertyCoherence",
        "VISION",
        "RecipeQA_ImageCoherence",
    ),
    "Puzzle": ("RAVEN",),
    "NLVR2": ("NLVR2_Mantis",),
    "QBench": ("QBench",),
    "ScanQA": ("ScanQA",),
    "ALFRED": ("ALFRED",),
    "nuscenes": ("nuscenes",),
    "ScanNet_chat": ("ScanNet_chat",),
    "ScanNet_task": ("ScanNet_task",),
    "BLINK": ("BLINK",),
    "MathVerse": ("MathVerse",),
    "SciVerse": ("SciVerse",),
    "Mantis": ("Mantis",),
}
_CATEGORY = {task: category for category, tasks in _SUB_TASKS.items() for task in tasks}


def interleave_categories(sub_tasks: Sequence[str]) -> list[str | None]:
    """Category of every row's sub-task, None for unknown ones: ``groups`` of a macro-averaged `AnswerScore`.

    Source: lmms-eval llava_interleave_bench/utils.py, overall_score (unknown sub-tasks do not count).
    """
    return [_CATEGORY.get(task) for task in sub_tasks]
