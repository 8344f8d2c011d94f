"""Time of a k-means iteration on a GPU by arithmetic, from the sizes of blocks and chunks in the code.

Prints what docs/performance.md quotes. Nothing here is a measurement: the rates are assumed.
"""

from ssltransfer.artifacts.features import CHUNK_BYTES
from ssltransfer.kmeans.points import BLOCK_FLOATS

POINTS, DIMS, CLUSTERS = 1_280_000, 9600, 2000
HALF, FLOAT, DOUBLE = 2, 4, 8  # bytes
BANDWIDTH, PRODUCTS, PEAK_PRODUCTS = 3e12, 620e12, 700e12  # bytes/s; FLOP/s of float16 products as used, and at best


def main() -> None:
    """Blocks, bytes and milliseconds."""
    chunk = CHUNK_BYTES // (DIMS * HALF)
    block = BLOCK_FLOATS["cuda"] // max(CLUSTERS, DIMS) // chunk * chunk
    blocks = -(-POINTS // block)
    operations = 2 * POINTS * CLUSTERS * DIMS
    # Products: written. |c|^2 - 2xc: read and written. Minimum: read.
    scores = 4 * FLOAT * POINTS * CLUSTERS
    # Each point is read once, each sum is read and written once per block.
    sums = HALF * POINTS * DIMS + 2 * DOUBLE * blocks * CLUSTERS * DIMS
    seconds = [operations / PRODUCTS, scores / BANDWIDTH, sums / BANDWIDTH]
    print(f"{blocks} blocks of {block} points, {block // chunk} chunks of a store each")
    names = ("products", f"scores, {scores / 1e9:.0f} GB", f"sums, {sums / 1e9:.0f} GB")
    for name, second in zip(names, seconds, strict=True):
        print(f"{name}: {1000 * second:.0f} ms")
    total = sum(seconds)
    print(f"iteration: {total:.2f} s, {100 * operations / PEAK_PRODUCTS / total:.0f} % of the rate of bare products")


if __name__ == "__main__":
    main()
