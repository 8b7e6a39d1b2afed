"""Kills drivers and workers at random times, and checks that each image has one row. Run by hand:

    python -m tests.cluster.kill_trials --kills 20

It starts a cluster of two nodes on this machine, and ends only processes that it started.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil
import pyarrow.dataset
import typer

from tests.cluster.conftest import write_images


def worker_pids(cluster_pids: set[int]) -> list[int]:
    """Processes that the cluster started, and that run the job's workers."""
    found = []
    for process in psutil.process_iter(["cmdline", "ppid"]):
        is_worker = "PartWorker" in " ".join(process.info["cmdline"] or [])
        if is_worker and process.info["ppid"] in cluster_pids:
            found.append(process.pid)
    return found


def kill_someone(driver: subprocess.Popen[bytes], cluster_pids: set[int], chance: random.Random) -> str:
    """Kills the driver or a worker, and says which; nothing if there is nobody."""
    workers = worker_pids(cluster_pids)
    victim = driver.pid if not workers or chance.random() < 0.4 else chance.choice(workers)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return ""
    if victim != driver.pid:
        return "worker"
    driver.wait()
    return "driver"


def run_with_kills(command: list[str], output: Path, cluster_pids: set[int], kills: int, seed: int) -> int:
    """Repeats the command until it succeeds, and returns how many processes were killed meanwhile."""
    chance = random.Random(seed)
    killed = 0
    while True:
        driver = subprocess.Popen(command)
        while driver.poll() is None and killed < kills:
            # Most kills are in the work; some while the driver and its workers start, which takes long.
            if chance.random() < 0.8:
                while driver.poll() is None and not worker_pids(cluster_pids):
                    time.sleep(1)
            time.sleep(chance.uniform(2, 40))
            if driver.poll() is None and (who := kill_someone(driver, cluster_pids, chance)):
                killed += 1
                n_files = len(list((output / "rows").glob("*.parquet")))
                typer.echo(f"{killed}: killed a {who}; {n_files} files of rows")
        if driver.wait() == 0:
            return killed


def main(
    kills: Annotated[int, typer.Option(help="How many processes are killed.")] = 20,
    images: Annotated[int, typer.Option(help="How many images the job has.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the times and the victims.")] = 0,
) -> None:
    """Prints each kill, and the rows at the end; the exit code is 1 if a row is lost or doubled."""
    folder = Path(tempfile.mkdtemp(prefix="wb-kill-", dir="/tmp"))
    os.environ.update(RAY_TMPDIR=str(folder), RAY_USAGE_STATS_ENABLED="0")
    from ray.cluster_utils import Cluster

    nodes = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**nodes, "include_dashboard": False})
    try:
        cluster.add_node(**nodes)
        cluster_pids = {child.pid for child in psutil.Process().children(recursive=True)}
        write_images(folder / "in", images)
        command = [sys.executable, "-m", "workflow_blocks", "run-cluster", "detect_objects", "--workers", "2"]
        command += ["--batch-size", "8", "--address", cluster.address, "--prompts", "shape"]
        command += ["-i", str(folder / "in"), "-o", str(folder / "out")]
        killed = run_with_kills(command, folder / "out", cluster_pids, kills, seed)
        table = pyarrow.dataset.dataset(folder / "out" / "rows", format="parquet").to_table()
        uris = table["uri"].to_pylist()
        expected = {path.as_uri() for path in (folder / "in").iterdir()}
        n_failed = len(uris) - table["error"].null_count
        typer.echo(
            f"{killed} kills, {len(uris)} rows, {len(uris) - len(set(uris))} doubled, "
            f"{len(expected - set(uris))} lost, {n_failed} failed"
        )
        if len(uris) != len(set(uris)) or set(uris) != expected:
            raise typer.Exit(1)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    typer.run(main)
