"""How many invocations run at once: of a function, where some are reserved for it, and of an account in a region."""

from __future__ import annotations

from collections import Counter

from penstock.functions.base import Order


class Concurrency:
    """Counts invocations.

    Takes: `most`, how many an account may have running in a region.
    """

    def __init__(self, most: int):
        self._most = most
        self._functions: Counter[tuple[str, str, str]] = Counter()
        self._accounts: Counter[tuple[str, str]] = Counter()

    def admits(self, order: Order) -> bool:
        if order.limit is not None and self._functions[order.account, order.region, order.function] >= order.limit:
            return False
        return self._accounts[order.account, order.region] < self._most

    def enter(self, order: Order) -> None:
        self._functions[order.account, order.region, order.function] += 1
        self._accounts[order.account, order.region] += 1

    def leave(self, order: Order) -> None:
        function, account = (order.account, order.region, order.function), (order.account, order.region)
        self._functions[function] -= 1
        self._accounts[account] -= 1
        if not self._functions[function]:
            del self._functions[function]
        if not self._accounts[account]:
            del self._accounts[account]
