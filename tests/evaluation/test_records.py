"""What became of a question, on disk and back."""

from tamp_lightning.evaluation.records import Record
from tamp_lightning.evaluation.store import Store


def test_records_survive_the_way_to_disk(tmp_path):
    store = Store(tmp_path, "pope", {})
    store.start()
    records = [Record(0, "a", "é\n", None, (1.5, 2.0), (1, 2)), Record(1, "b", bad="gone")]
    store.append(0, records[:1], {})
    store.append(1, records[1:], {})
    assert list(store.records().values()) == records
