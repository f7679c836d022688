"""The bench of many machines, on two that are pretended: it runs, and its JSON is what it says."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from vs_vsr.bench import cluster

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason='no Ray: pip install "vs-vsr[cluster]"')
def test_two_workers_of_which_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    path = tmp_path / "result.json"
    arguments = "--workers 2 --parts 2 --picture 1 --kills 0.25"
    cluster.main([*arguments.split(), "--json", str(path)])
    result = json.loads(path.read_text())
    assert result["machine"]["ray"]
    assert result["settings"]["picture"] == 1
    undisturbed, disturbed = result["rows"]
    assert (undisturbed["workers"], undisturbed["parts"], undisturbed["killed"]) == (2, 4, 0)
    assert (disturbed["workers"], disturbed["parts"], disturbed["killed"]) == (2, 4, 1)
    assert all(0 < row["of_ideal"] < 1 and row["seconds"] > 0 for row in result["rows"])
