"""What the ledger says of a job; Ray calls it as an actor."""

import pytest

from workflow_blocks.cluster.ledger import MIN_REFUSALS, LedgerKeeper

IDS = [str(number) for number in range(8)]


def run(keeper, n_batches, reasons, n_failed=8):
    """Batches of 8 images; returns why no further one is begun."""
    for part in range(n_batches):
        if reason := keeper.begin(IDS):
            return reason
        keeper.finish(part, IDS, n_failed, reasons)
    return keeper.begin(IDS)


def test_a_workflow_that_always_fails_is_stopped():
    keeper = LedgerKeeper()
    assert run(keeper, MIN_REFUSALS // 8 - 1, ["no model"] * 8) is None
    assert f"failed for the first {MIN_REFUSALS} images: no model" in run(keeper, 9, ["no model"] * 8)


@pytest.mark.parametrize(
    ("keeper", "reasons", "n_failed"),
    [
        (LedgerKeeper(), ["no model"] * 7, 7),
        (LedgerKeeper(), ["no model"] * 7 + ["other"], 8),
        (LedgerKeeper(), [], 8),
        (LedgerKeeper(n_before=4), ["no model"] * 8, 8),
    ],
    ids=["one succeeds", "several reasons", "files are missing", "results of an earlier run"],
)
def test_other_jobs_go_on(keeper, reasons, n_failed):
    assert run(keeper, 50, reasons, n_failed) is None


def test_the_rate_is_from_the_first_result_on(monkeypatch):
    now = 100.0
    monkeypatch.setattr("workflow_blocks.cluster.ledger.time.monotonic", lambda: now)
    keeper = LedgerKeeper()
    assert keeper.progress().rate is None
    keeper.begin(IDS)
    now = 104.0
    keeper.finish(0, IDS, 0)
    assert keeper.progress().rate == 2
    now = 105.0
    keeper.finish(1, IDS, 0)
    assert keeper.progress().rate == 8
