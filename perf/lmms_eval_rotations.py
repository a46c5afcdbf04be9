"""Every rotation of MMBench's questions scored alone by lmms-eval's own evaluator, for `lmms_eval_agreement.py`.

Standard input: the rows that their task hands to its aggregation. Last line of output: 0 or 1 for each of them.
"""

from __future__ import annotations

import json
import sys

from lmms_eval.tasks.mmbench.en_utils import mmbench_evaluator

ROTATION = 10**6

hits = []
for row in json.load(sys.stdin):
    alone = {**row, "index": row["index"] % ROTATION}
    hits.append(float(mmbench_evaluator.eval_result([alone], "static")[0]))
print(json.dumps(hits))
