"""Time of a k-means iteration on a GPU by arithmetic, from the sizes of blocks and chunks in the code.

Prints what docs/performance.md quotes. Nothing here is a measurement: the rates are assumed.
"""

from ssltransfer.artifacts.features import CHUNK_BYTES
from ssltransfer.kmeans.assignment import FUSED_DIMS
from ssltransfer.kmeans.points import BLOCK_FLOATS

POINTS = 1_280_000
CASES = ((9600, 2000), (2048, 16_000))  # dimensions and clusters of Noroozi et al. 2018 and of CompRess
HALF, FLOAT, DOUBLE = 2, 4, 8  # bytes
BANDWIDTH = 3e12  # bytes/s
COPIES = 50e9  # bytes/s from page-locked memory, by PCIe 5
PRODUCTS, FUSED_PRODUCTS, PEAK_PRODUCTS = 620e12, 450e12, 700e12  # FLOP/s of float16: cuBLAS, Triton, at best


def iteration(dims: int, clusters: int) -> None:
    """Blocks, bytes and milliseconds of an iteration."""
    chunk = CHUNK_BYTES // (dims * HALF)
    block = max(1, BLOCK_FLOATS["cuda"] // dims // chunk) * chunk
    blocks = -(-POINTS // block)
    fused = dims <= FUSED_DIMS
    operations = 2 * POINTS * clusters * dims
    # Products are written, and read once.
    scores = 0 if fused else 2 * FLOAT * POINTS * clusters
    # Each point is read once, each sum is read and written once per block.
    sums = HALF * POINTS * dims + 2 * DOUBLE * blocks * clusters * dims
    seconds = [operations / (FUSED_PRODUCTS if fused else PRODUCTS), scores / BANDWIDTH, sums / BANDWIDTH]
    print(
        f"{dims} dimensions, k = {clusters}: {blocks} blocks of {block} points, {block // chunk} chunks of a store each"
    )
    names = (
        "products and minima" if fused else "products",
        f"scores, {scores / 1e9:.0f} GB",
        f"sums, {sums / 1e9:.0f} GB",
    )
    for name, second in zip(names, seconds, strict=True):
        if second:
            print(f"  {name}: {1000 * second:.0f} ms")
    total = sum(seconds)
    print(f"  iteration: {total:.2f} s, {100 * operations / PEAK_PRODUCTS / total:.0f} % of the rate of bare products")
    # Blocks are copied while the GPU works on those before.
    copies = HALF * POINTS * dims / COPIES
    print(f"  with points in host memory: {max(total, copies):.2f} s, copies of {copies:.2f} s")


def main() -> None:
    """Both cases, and where one kernel for products and minima is as fast as two."""
    for dims, clusters in CASES:
        iteration(dims, clusters)
    equal = 2 * FLOAT / BANDWIDTH / (2 / FUSED_PRODUCTS - 2 / PRODUCTS)
    print(f"one kernel for products and minima is faster up to {equal:.0f} dimensions")


if __name__ == "__main__":
    main()
