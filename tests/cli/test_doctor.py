"""What `tamp doctor` says."""

import pytest

from tamp_lightning.cli import doctor


def test_doctor(tamp, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, _ = tamp("doctor")
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()][-1] == "lightning"
    assert "not on the PATH" in out


@pytest.mark.parametrize(
    ("line", "says"), [("from tamp_lightning.cli.main import x", "ours"), ("from sdk.a import b", "sdk:")]
)
def test_doctor_names_the_owner_of_lightning(tmp_path, monkeypatch, line, says):
    script = tmp_path / "lightning"
    script.write_text(f"#!/bin/python\nimport sys\n{line}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert says in doctor.lightning_owner()
