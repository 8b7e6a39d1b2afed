"""A short soak; `python -m benchmarks.soak` runs a long one and watches the server's memory."""

import pytest

from benchmarks.soak import soak


@pytest.mark.long
def test_a_server_under_load_answers_every_client(server, processes):
    findings = soak(processes["server"], minutes=0.5, n_clients=8)

    assert findings.problems == []
    assert all(findings.seconds.values())  # every workflow was answered
    assert findings.n_bad > 0
