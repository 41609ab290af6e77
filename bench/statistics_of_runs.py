"""Medians of a few runs, and how sure they are."""
import random
import statistics

LEVEL = 0.95
RESAMPLES = 2000
FEWEST = 4  # runs that can show a difference: the range of 3 misses the true median in a quarter of cases
SEED = 20150  # fixed, so that the same lines give the same table


def quantile(ordered, share):
    """Least of the sorted values that at least this share of them do not exceed."""
    at_most = next(i for i in range(1, len(ordered) + 1) if i >= share * len(ordered) - 1e-9)
    return ordered[at_most - 1]


def interval(values):
    """Percentile bootstrap interval of the median: (low, high); of 2 to 5 values it is their range, which covers less than
    LEVEL (range_coverage). None of a single value, which says nothing about others."""
    if len(values) < 2:
        return None
    draw = random.Random(SEED)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (1 - LEVEL) / 2
    return quantile(medians, tail), quantile(medians, 1 - tail)


def range_coverage(n):
    """Chance that the range of n independent runs holds their true median: all n on one side of it miss it."""
    return 1 - 2.0 ** (1 - n)


def differ(a, b):
    """Do two samples' intervals lie apart? Not when one of them has too few runs for that to say much."""
    if min(len(a), len(b)) < FEWEST:
        return False
    first, second = interval(a), interval(b)
    return first[1] < second[0] or second[1] < first[0]
