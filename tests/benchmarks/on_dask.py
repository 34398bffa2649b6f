"""Episodes on a cluster: the same evaluation on processes and on dask.distributed, with the same result to the last bit.

    pip install -e '.[dask]'
    python tests/benchmarks/on_dask.py 1000           episodes of the policy that comes with minidiff

`rollout.evaluate` takes any concurrent.futures.Executor, so a cluster needs no code of ours: give Client the address of
a scheduler in place of the LocalCluster here.
"""
import minidiff  # first: one BLAS thread
import concurrent.futures
import sys
import time

from dask.distributed import Client, LocalCluster

from minidiff import policy
from minidiff.pusht import SHIPPED_POLICY, rollout
from minidiff.pusht.features import PUSHT

if __name__ == "__main__":
    shipped, _ = policy.load(SHIPPED_POLICY, PUSHT, sampler="ddim", steps=4)
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    results = []
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client, \
            client.get_executor() as on_dask, concurrent.futures.ProcessPoolExecutor(2) as on_processes:
        for name, executor in (("dask", on_dask), ("processes", on_processes)):
            started = time.monotonic()
            results.append(rollout.evaluate(shipped, seeds, executor))
            print(f"{name:9} {time.monotonic() - started:5.1f} s   {rollout.sentence(rollout.summary(results[-1]))}")
    sys.exit(0 if results[0] == results[1] else "the two differ")
