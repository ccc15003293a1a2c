"""Prints every number up to the limit with its smallest factor."""

import sys


def smallest_factors(limit):
    factors = list(range(limit + 1))
    for number in range(2, int(limit**0.5) + 1):
        if factors[number] == number:
            for multiple in range(number * number, limit + 1, number):
                if factors[multiple] == multiple:
                    factors[multiple] = number
    return factors


limit = int(sys.argv[1])
for number, factor in enumerate(smallest_factors(limit)):
    kind = "prime" if factor == number and number > 1 else f"smallest factor {factor}"
    print(f"{number:>8}: {kind}")
