"""Episodes on a cluster: one evaluation on processes and on dask.distributed, with the same result
to the last bit.

    pip install -e '.[pusht,dask]'
    python tests/benchmarks/on_dask.py 1000           episodes of the shipped policy

`rollout.evaluate` takes any concurrent.futures.Executor, so a cluster needs no code of ours: give
Client the address of a scheduler in place of the LocalCluster here.
"""
import concurrent.futures
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from minidiff import beyond  # noqa: E402
from minidiff.pusht import SHIPPED_POLICY  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.scoring import rollout, scores  # noqa: E402

from dask.distributed import Client, LocalCluster  # noqa: E402


def main(episodes):
    policy, _ = beyond.load(SHIPPED_POLICY, PUSHT, sampler="ddim", steps=4)
    results = []
    with (LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
          Client(cluster) as client,
          client.get_executor() as on_dask,
          concurrent.futures.ProcessPoolExecutor(2) as on_processes):
        for name, executor in (("dask", on_dask), ("processes", on_processes)):
            started = time.monotonic()
            results.append(rollout.evaluate(policy, range(episodes), executor))
            seconds = time.monotonic() - started
            print(f"{name:9} {seconds:5.1f} s   {scores.sentence(scores.summary(results[-1]))}")
    sys.exit(0 if results[0] == results[1] else "the two differ")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
