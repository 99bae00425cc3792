"""Who sends which part of a sum to whom, and when: a pure function of the number of workers.

The schedule is that of Träff, "Optimal, Non-pipelined Reduce-scatter and Allreduce Algorithms"
(https://arxiv.org/abs/2410.14234): ceil(log2(workers)) rounds for any number of workers, powers of two or not, in which
each worker sends, and receives, everything but its own part exactly once; then the same rounds backwards.

The array is cut into as many blocks as there are workers. Worker w counts them from its own: its block number i is
block w + i of the array, modulo the workers. In a round with skip s it sends its blocks from s on to worker w + s and
adds the blocks that worker w - s sends to its first ones. In the end its block 0 is the sum over all workers.
"""

from dataclasses import dataclass

# Blocks begin at multiples of so many values, 64 bytes of float32: a cache line, and whole words for the check.
GRAIN = 16

Segments = tuple[slice, ...]


@dataclass(frozen=True)
class Round:
    """One exchange of messages.

    Attributes:
        ahead: Index of the worker that gets partial sums from this one, and later sends it the finished ones.
        behind: Index of the worker that sends partial sums to this one, and later gets the finished ones.
        given: Where in the array those lie that go ahead; one or two pieces, as the blocks are counted in a circle.
        taken: Where those lie to which the ones from behind are added.
    """

    ahead: int
    behind: int
    given: Segments
    taken: Segments


@dataclass(frozen=True)
class Schedule:
    """What one worker does for arrays of one size.

    Attributes:
        rounds: In the order of adding; the finished sums travel in the opposite order.
        own: The block that this worker finishes.
        untouched: Blocks that the first round neither sends nor adds to.
    """

    rounds: tuple[Round, ...]
    own: Segments
    untouched: Segments


def skips(workers: int) -> list[int]:
    """The distance between partners in each round: half the workers, half of that, ..., 1, rounded up."""
    found = []
    while workers > 1:
        workers = (workers + 1) // 2
        found.append(workers)
    return found


def neighbours(workers: int, index: int) -> list[int]:
    """The workers with which one exchanges messages in some round: at most 2 ceil(log2(workers))."""
    return sorted({(index + sign * skip) % workers for skip in skips(workers) for sign in (1, -1)})


def block_start(block: int, workers: int, size: int) -> int:
    """Where a block begins in an array of `size` values; blocks differ by at most one grain."""
    grains = -(-size // GRAIN)
    return min(size, grains * block // workers * GRAIN)


def largest_message(workers: int, size: int) -> int:
    """Values that a round brings, at most, for arrays of up to `size` values."""
    grains = -(-size // GRAIN)
    return (-(-(workers // 2) * grains // workers)) * GRAIN


def schedule(workers: int, index: int, size: int) -> Schedule:
    """Plans the sum of an array of `size` values for the worker `index` of `workers`."""

    def segments(first: int, end: int) -> Segments:
        """Where this worker's blocks `first` to `end` lie in the array."""
        first, end = index + first, index + end
        if first < workers < end:
            pieces = [(first, workers), (0, end - workers)]
        else:
            pieces = [(first % workers, first % workers + end - first)]
        bounds = [(block_start(one, workers, size), block_start(other, workers, size)) for one, other in pieces]
        return tuple(slice(start, stop) for start, stop in bounds if start < stop)

    rounds, before = [], workers
    for skip in skips(workers):
        rounds.append(
            Round(
                ahead=(index + skip) % workers,
                behind=(index - skip) % workers,
                given=segments(skip, before),
                taken=segments(0, before - skip),
            )
        )
        before = skip
    return Schedule(tuple(rounds), segments(0, 1), segments(workers // 2, (workers + 1) // 2))
