"""Yes and no, and what is neither."""

import torch

from tamp_lightning.metrics import YesNo


def test_yes_no_reports_what_it_could_not_read():
    replies, labels = ["Yes", "a dog", "no", "NO"], ["yes", "yes", "no", "no"]
    found = {}
    for protocol in ("official", "lmms"):
        metric = YesNo(4, protocol)
        metric.update(torch.arange(4), replies, labels)
        found[protocol] = {name: value.item() for name, value in metric.compute().items()}
    assert found["official"]["unparsed"] == 0.5
    assert found["official"]["pred_yes_ratio"] == 0.75
    assert found["official"]["accuracy"] == 0.75
    assert found["lmms"]["unparsed"] == 0.25
    assert found["lmms"]["recall"] == 1
