"""Memory and time of nearest neighbours at Kinetics' size, beside scikit-learn's brute force.

python benchmarks/neighbours.py --queries 20000 --gallery 240000 --channels 512

Each runs in a process of its own, on the same random float32 features; memory is the process's peak, features
included. scikit-learn searches a part of the queries, for its time grows with their number.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

NEIGHBOURS = 50


def features(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Gallery and queries."""
    rng = np.random.default_rng(0)
    shapes = (arguments.gallery, arguments.channels), (arguments.queries, arguments.channels)
    return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def measure(arguments: argparse.Namespace) -> None:
    """Prints seconds, memory and a digest of the rows found, as JSON."""
    gallery, queries = features(arguments)
    if arguments.only == "ours":
        from hcml_jax.evaluation.neighbours import nearest

        search = lambda: nearest(gallery, queries, NEIGHBOURS, centred=False).rows  # noqa: E731
    else:
        from sklearn.neighbors import NearestNeighbors

        queries = queries[: arguments.part]
        model = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine", algorithm="brute").fit(gallery)
        search = lambda: model.kneighbors(queries, return_distance=False)  # noqa: E731
    began = time.perf_counter()
    rows = search()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {"seconds": seconds, "queries": len(rows), "gib": peak, "rows": rows[: arguments.part, :5].tolist()}
    print(json.dumps(found))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--gallery", type=int, default=240_000)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--part", type=int, default=2_000, help="queries that scikit-learn searches")
    parser.add_argument("--only", choices=["ours", "sklearn"])
    arguments = parser.parse_args()
    if arguments.only:
        measure(arguments)
        return
    found = {}
    for name in ("ours", "sklearn"):
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print("| | queries | seconds | queries a second | peak, GiB |\n|---|---|---|---|---|")
    for name, one in found.items():
        speed = one["queries"] / one["seconds"]
        print(f"| {name} | {one['queries']:,} | {one['seconds']:.0f} | {speed:.0f} | {one['gib']:.2f} |")
    same = np.mean(np.array(found["ours"]["rows"]) == np.array(found["sklearn"]["rows"]))
    print(f"\nThe five nearest are the same rows for {same:.2%} of the places")


if __name__ == "__main__":
    main()
